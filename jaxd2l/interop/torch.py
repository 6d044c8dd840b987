"""Weights to and from PyTorch: a state_dict as our trees of parameters and statistics, and back.

Nothing here needs PyTorch but reading a `.pth` file. Networks that torchvision has are known by
name; for another network pass `names`, a rule for each kind of path::

    params, state = load(net, "weights.safetensors", names={r"conv(\\d)": r"features.\\1"})
"""

import fnmatch
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from jaxd2l.checkpoint import load_flat
from jaxd2l.checkpoint.safetensors import shown
from jaxd2l.interop.torch_layout import Array, Leaf, Network, Place, places
from jaxd2l.interop.torch_names import FAMILIES, Names, current_key, module_names, names_of
from jaxd2l.layers import BatchNorm, Conv, Layer, Parallel, Repeat, Serial, Split, Tied
from jaxd2l.layers.core import Params, Shape, State
from jaxd2l.layers.shapes import array_paths
from jaxd2l.models.auxiliary import WithAuxiliary

COUNTER = "num_batches_tracked"  # PyTorch's batch norms count their training passes
SIZE = 224  # pixels a side where neither the caller nor the family says

Trees = tuple[Params, State]


def load(
    net: Network,
    state_dict_or_path: Any,
    input_shape: Any = None,
    *,
    names: Names | None = None,
    ignore: Collection[str] = (),
) -> Trees:
    """Parameters and statistics of `net` from a PyTorch state_dict.

    Kernels become HWIO, dense ones (in, out); the rows of a dense layer after a flatten go from the
    order (c, h, w) to (h, w, c); the units of a `Repeat` are stacked. Every array keeps its
    floating-point type (float64 only in 64-bit mode); the counters of batch norms are not used.

    Args:
      net: the network, or GoogLeNet or Inception with auxiliary heads (`googlenet_auxiliary`).
        Its family is found from its paths.
      state_dict_or_path: names to arrays (PyTorch's, NumPy's or jax's), or a `.safetensors` file,
        or a `.pth`/`.pt` file, which PyTorch reads with weights_only=True.
      input_shape: of one image, (h, w, c). None: c as the first convolution has it, 224 x 224
        (Inception: 299); it only matters to a dense layer after a flatten.
      names: for networks that torchvision has not: pattern of a layer's path, matched in full, to
        the name of PyTorch's module, a template (`features.\\1`) or a function of the match. Each
        path must match exactly one pattern. Paths are as `layers.walk` writes them: repetitions
        one by one, `blocks[4]/conv`, or `[4]/block/conv` where the `Repeat` has no name.
      ignore: patterns (`aux*`) of keys that the network has not and that are left out. For
        torchvision's pretrained weights without their auxiliary heads `("aux*",)` (GoogLeNet),
        `("AuxLogits.*",)` (Inception); both take images scaled to -1..1 (`transform_input`).

    Shapes:
      state_dict: PyTorch's, checked before anything is transposed.
    Raises:
      ValueError: keys that are missing, unexpected or wanted twice, arrays of the wrong shape or
        type, all of them listed; a network or path that no table covers; a file of another kind.
      TypeError: neither a mapping nor a path.
      ImportError: a `.pth` file without PyTorch installed.

    Example:
      >>> from jaxd2l import layers
      >>> net = layers.Dense("head", 2)
      >>> weights = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32)}
      >>> params, state = load(net, weights, (3,), names={"head": "fc"})
      >>> params["head"]["kernel"].shape, state
      ((3, 2), {})
    """
    source = _read(state_dict_or_path, old=names is None)

    def channels(item: Item) -> int | None:
        shape = tuple(getattr(source.get(item.key), "shape", ()))
        return shape[1] if len(shape) > 1 else None

    items = _plan(net, input_shape, names, channels)
    problems = _repeated(items)
    arrays: dict[str, Array] = {}
    for item in items:
        if item.key not in source:
            problems.append(f"missing: {item.key!r}, for {item.path!r}")
            continue
        try:
            arrays[item.key] = _checked(source[item.key], item)
        except (TypeError, ValueError) as error:
            problems.append(str(error))
    wanted = {item.key for item in items} | set(_counters(items))
    problems += _unexpected([key for key in source if key not in wanted], ignore)
    _raise_all("load: the weights do not fit the network", problems)
    return _stacked(items, arrays)


def export(
    net: Network,
    params: Params,
    state: State,
    input_shape: Any = None,
    *,
    names: Names | None = None,
) -> dict[str, Array]:
    """The state_dict of PyTorch's network with our weights: fresh NumPy arrays. Undoes `load`.

    Batch norms get a `num_batches_tracked` of 0, so that `load_state_dict` takes it with
    strict=True. To hand it over in a file (which bfloat16 needs: NumPy has no such type)::

        with open("weights.safetensors", "wb") as file:
            jaxd2l.checkpoint.safetensors.write(file, export(net, params, state), checksums=False)

    and in PyTorch, with or without the file::

        module.load_state_dict(safetensors.torch.load_file("weights.safetensors"))
        module.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})

    Args:
      net, params, state: a network and its trees.
      input_shape, names: as in `load`.

    Shapes:
      params, state: as `init` makes them.
    Raises:
      ValueError: arrays that are missing, unexpected or of the wrong shape, or layers that would
        get the same name, all of them listed; a network or path that no table covers.

    Example:
      >>> import jax, jaxd2l
      >>> net = jaxd2l.layers.Serial([jaxd2l.layers.Conv("conv1", 8, 3)])
      >>> params, state = jaxd2l.init(net, jax.random.key(0), (6, 6, 3))
      >>> weights = export(net, params, state, names={"conv1": "features.0"})
      >>> {key: array.shape for key, array in weights.items()}
      {'features.0.weight': (8, 3, 3, 3), 'features.0.bias': (8,)}
    """
    given = array_paths({"params": params, "state": state})

    def channels(item: Item) -> int | None:
        shape = np.shape(given.get(item.path, 0.0))
        return shape[-2] if len(shape) > 1 else None

    items = _plan(net, input_shape, names, channels)
    problems = _repeated(items)
    times = _times(items)
    own = {item.path: item.leaf.own for item in items}
    for path, counts in times.items():
        wanted = (*counts, *own[path])
        if path not in given:
            problems.append(f"missing: {path!r}")
        elif np.shape(given[path]) != wanted:
            problems.append(f"{path!r}: shape {np.shape(given[path])}, wanted {wanted}")
    problems += [f"unexpected: {path!r}" for path in given if path not in times]
    _raise_all("export: the arrays do not fit the network", problems)
    here = {path: np.asarray(given[path]) for path in times}
    made: dict[str, Array] = {}
    for item in items:
        array = item.leaf.to_torch(here[item.path][item.place.units])
        made[item.key] = np.array(array, order="C")  # a copy, so that it can be written to
        if item.leaf.name == "var":
            made[_counter(item)] = np.zeros((), np.int64)
    return made


def shapes(net: Network, input_shape: Any, *, names: Names | None = None) -> dict[str, Shape]:
    """The keys and shapes of the state_dict of `net`, as `load` wants and `export` gives it.

    Args:
      input_shape: of one image, (h, w, c).
      names: as in `load`.

    Raises:
      ValueError: a network or path that no table covers.

    Example:
      >>> from jaxd2l.models.resnet import resnet18
      >>> list(shapes(resnet18(), (224, 224, 3)).items())[-2:]
      [('fc.weight', (1000, 512)), ('fc.bias', (1000,))]
    """
    made: dict[str, Shape] = {}
    for item in _items(places(net, input_shape), names)[0]:
        made[item.key] = item.leaf.shape
        if item.leaf.name == "var":
            made[_counter(item)] = ()
    return made


class Item(NamedTuple):
    """One array: its key in the state_dict, and where it stands here."""

    key: str
    place: Place
    leaf: Leaf

    @property
    def path(self) -> str:
        """Of the (stacked) array in {"params": params, "state": state}."""
        return "/".join((self.leaf.group, *self.place.levels, self.leaf.name))


def _plan(
    net: Network,
    input_shape: Any,
    names: Names | None,
    channels: Callable[[Item], int | None],
) -> list[Item]:
    """Every array of the network with its key, in the order of execution.

    `channels(item)` says how many channels a group of the first convolution takes; it is asked
    only where `input_shape` is None.
    """
    if input_shape is not None:
        return _items(places(net, input_shape), names)[0]
    conv = _first_conv(net.net if isinstance(net, WithAuxiliary) else net)
    if conv is None:
        raise ValueError("input_shape can only be left out where a convolution comes first")
    try:
        rank = len(conv.kernel)
        guess = SIZE if names else max(family.size for family in FAMILIES)  # large enough for all
        (first, *_), size = _items(places(net, (*(guess,) * rank, conv.groups)), names)
        if first.place.layer != conv:
            raise ValueError(f"{first.place.path!r} comes before the first convolution")
        shape = (*(size,) * rank, (channels(first) or 1) * conv.groups)
        return _items(places(net, shape), names)[0]
    except ValueError as error:
        error.add_note("input_shape was left out; pass it if the network needs another one")
        raise


def _items(found: list[Place], names: Names | None) -> tuple[list[Item], int]:
    """The arrays of these places, and the size of the images of their family."""
    steps, size = [place.path for place in found], SIZE
    found = [place for place in found if place.leaves]
    paths = [place.path for place in found]
    if names is None:
        names, family = names_of(steps, paths)
        size = family.size
    modules = module_names(paths, names)
    return [
        Item(".".join(filter(None, (modules[place.path], leaf.suffix))), place, leaf)
        for place in found
        for leaf in place.leaves
    ], size


def _first_conv(layer: Layer) -> Conv | None:
    match layer:
        case Serial(children) | Parallel(children) | Split(children):
            return next(filter(None, map(_first_conv, children)), None)
        case Repeat(child) | Tied(_, child):
            return _first_conv(child)
    return layer if isinstance(layer, Conv) else None


def _counter(item: Item) -> str:
    return item.key.removesuffix(item.leaf.suffix) + COUNTER


def _counters(items: list[Item]) -> list[str]:
    return [_counter(item) for item in items if isinstance(item.place.layer, BatchNorm)]


def _times(items: list[Item]) -> dict[str, tuple[int, ...]]:
    """The leading axes of each of our arrays: how often each `Repeat` around it runs."""
    last = {item.path: item.place.units for item in items}  # in order, so the highest number
    return {path: tuple(i + 1 for i in index) for path, index in last.items()}


# Reading


def _read(source: Any, old: bool) -> dict[str, Any]:
    """The state_dict; with `old`, keys of old files as torchvision writes them today."""
    if isinstance(source, str | os.PathLike):
        source = _read_file(Path(source))
    if not isinstance(source, Mapping):
        hint = "; pass module.state_dict()" if hasattr(source, "state_dict") else ""
        raise TypeError(
            f"load: expected a state_dict (names to arrays) or the path of a file, got a "
            f"{type(source).__name__}{hint}"
        )
    nested = [key for key, value in source.items() if isinstance(value, Mapping)]
    if nested:
        raise ValueError(
            f"load: {nested[0]!r} holds a dict: take the state_dict out, as in "
            f"torch.load(path, weights_only=True)[{nested[0]!r}], and pass that"
        )
    if not old:
        return dict(source)
    made = {current_key(str(key)): value for key, value in source.items()}
    if len(made) < len(source):
        raise ValueError("load: the state_dict has both an old and a new key of the same array")
    return made


def _read_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_flat(path)
    if path.suffix not in (".pth", ".pt"):
        raise ValueError(f"{path}: expected a .safetensors, .pth or .pt file")
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path}: only PyTorch can read this file, and it is not installed; convert it with "
            f"safetensors.torch.save_file where it is"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise  # no such file, no permission
    except Exception as error:  # PyTorch raises several kinds, and advises weights_only=False
        raise ValueError(
            f"{path}: PyTorch cannot read it with weights_only=True ({type(error).__name__}): it "
            f"is damaged, or holds more than tensors; save module.state_dict() anew"
        ) from None


def _checked(value: Any, item: Item) -> Array:
    """The value as a NumPy array of the wanted shape and an allowed type."""
    what = repr(item.key)
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(f"{what} is a {type(value).__name__}, not an array")
    shape = tuple(value.shape)
    if shape != item.leaf.shape:
        raise ValueError(f"{what}: shape {shape}, {item.path!r} needs {item.leaf.shape}")
    if hasattr(value, "detach"):  # a PyTorch tensor; it gives NumPy no bfloat16
        value = value.detach().cpu()
        half = str(value.dtype) == "torch.bfloat16"
        value = value.float().numpy().astype(ml_dtypes.bfloat16) if half else value.numpy()
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{what}: {array.dtype} is not floating point")
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(f"{what}: {array.dtype} needs 64-bit mode (jax_enable_x64), or a cast")
    return array


def _stacked(items: list[Item], arrays: Mapping[str, Array]) -> Trees:
    """Our nested dicts; what stands in a `Repeat` is stacked."""
    parts: dict[str, list[Array]] = {}
    for item in items:
        parts.setdefault(item.path, []).append(item.leaf.to_own(arrays[item.key]))
    trees: dict[str, Any] = {"params": {}, "state": {}}
    mixed = [path for path, units in parts.items() if len({a.dtype for a in units}) > 1]
    _raise_all("load: repeated units must be of one type", mixed)
    for path, counts in _times(items).items():
        units = parts.pop(path)
        array = np.stack(units).reshape(*counts, *units[0].shape) if counts else units[0]
        *levels, name = path.split("/")
        tree = trees
        for level in levels:
            tree = tree.setdefault(level, {})
        tree[name] = jnp.array(array)
    return trees["params"], trees["state"]


# Problems


def _repeated(items: list[Item]) -> list[str]:
    takers: dict[str, list[str]] = {}
    for item in items:
        takers.setdefault(item.key, []).append(item.place.path)
    return [
        f"wanted more than once: {key!r}, by {paths}"
        for key, paths in takers.items()
        if len(paths) > 1
    ]


def _unexpected(keys: list[str], ignore: Collection[str]) -> list[str]:
    if isinstance(ignore, str):
        raise TypeError(f"load: ignore must be a list of patterns, got {ignore!r}")
    unused = [p for p in ignore if not any(fnmatch.fnmatchcase(str(k), p) for k in keys)]
    left = [k for k in keys if not any(fnmatch.fnmatchcase(str(k), p) for p in ignore)]
    return [
        *(f"unexpected: {shown(str(key))}" for key in left),
        *(f"ignore: {pattern!r} matches no unexpected key" for pattern in unused),
    ]


def _raise_all(what: str, problems: list[str]) -> None:
    if problems:
        raise ValueError(f"{what} ({len(problems)} problems):\n  " + "\n  ".join(problems))
