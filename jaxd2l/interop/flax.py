"""Arrays to and from Flax, linen and nnx, for the layers that both libraries have; networks as
Flax modules.

Layouts are equal but for two: Flax's `ConvTranspose` does not flip its kernel, ours does, and
Flax's `PReLU` has one slope where ours has one per feature. A `Repeat` keeps its arrays stacked, as
`nn.scan` and `nnx.vmap` do.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.interop.flax_modules import as_linen as as_linen
from jaxd2l.interop.flax_modules import as_nnx as as_nnx
from jaxd2l.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    Parallel,
    PReLU,
    Repeat,
    Serial,
    Split,
    Tied,
    declared,
)
from jaxd2l.layers.core import Array, Params, Shape, State, path_text
from jaxd2l.layers.shapes import array_paths, check_network, check_shape, inner_path

Names = Mapping[str, str]
Place = tuple[str, ...]  # (collection, path of the layer, leaf)

SHARED = (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    PReLU,
)


def load_linen(
    net: Layer, variables: Mapping[str, Any], input_shape: Any, names: Names | None = None
) -> tuple[Params, State]:
    """Parameters and statistics of a network from the variables of a linen module.

    Args:
      net: the network.
      variables: {"params": ..., "batch_stats": ...}, the second one where there are statistics.
      input_shape: shape of one input, without the batch axis.
      names: regular expression of a layer's path in `net` -> its path in `variables`:
        `{"conv(.)": r"Conv_\\1", "block/(.*)": r"Block_0/\\1"}`. One matches a path in full or not
        at all; a layer that none matches has the same path in both.

    Returns:
      (params, state), equal to the given arrays bit for bit.

    Shapes: as in the network, but a kernel of `ConvTranspose` has its spatial axes reversed and
      the slope of `PReLU` is one number for all features.

    Raises:
      ValueError: arrays that are missing, unexpected, of the wrong shape or not floating point, all
        of them in one message; a name that matches no layer; a layer that Flax has not.

    Source: Flax's `nn.Module.init`. PyTorch's are read by `jaxd2l.interop.torch`.

    Example:
      >>> import flax.linen as nn
      >>> from jaxd2l import layers
      >>> variables = nn.Sequential([nn.Dense(2)]).init(jax.random.key(0), jnp.ones((1, 3)))
      >>> params, state = load_linen(
      ...     layers.Dense("head", 2), variables, (3,), {"head": "layers_0"})
      >>> params["head"]["kernel"].shape
      (3, 2)
    """
    import flax.linen as nn

    if not isinstance(variables, Mapping) or "params" not in variables:
        raise TypeError(
            f'load_linen: variables must be a dict with "params", as module.init returns it, got '
            f"{sorted(variables) if isinstance(variables, Mapping) else variables!r}"
        )
    given = array_paths(nn.unbox(variables))
    return _load("load_linen", net, given, input_shape, names, "/".join)


def export_linen(
    net: Layer, params: Params, state: State, names: Names | None = None
) -> dict[str, Any]:
    """The variables of a linen module from a network's parameters and statistics.

    `names` and layouts as in `load_linen`, which gives the same arrays back bit for bit.

    Shapes: as in `load_linen`.

    Returns:
      {"params": ..., "batch_stats": ...}, the second only if there are statistics.

    Raises:
      ValueError: a name that matches no layer, two arrays with one name, a layer that Flax has
        not, a `PReLU` whose slopes differ, arrays that are not the network's.

    Source: Flax's `nn.Module.apply`.

    Example:
      >>> import flax.linen as nn
      >>> from jaxd2l import init, layers
      >>> net = layers.Dense("head", 2)
      >>> variables = export_linen(net, *init(net, jax.random.key(0), (3,)), {"head": "layers_0"})
      >>> nn.Sequential([nn.Dense(2)]).apply(variables, jnp.ones((5, 3))).shape
      (5, 2)
    """
    out: dict[str, Any] = {"params": {}}
    for (collection, layer, leaf), array in _export("export_linen", net, params, state, names):
        _put(out, [collection, *layer.split("/"), leaf], array)
    return out


def load_nnx(
    net: Layer, source: Any, input_shape: Any, names: Names | None = None
) -> tuple[Params, State]:
    """Parameters and statistics of a network from an nnx module.

    Args:
      source: an nnx module, or its `nnx.state`, or that as a pure dict (`nnx.to_pure_dict`). Of a
        module and a state the `nnx.Param` and `nnx.BatchStat` variables are read.
      net, input_shape, names: as in `load_linen`; a path is made of attributes and indices,
        "layers/0".

    Returns:
      (params, state), equal to the given arrays bit for bit.

    Shapes: as in `load_linen`.

    Raises:
      ValueError: as in `load_linen`.

    Source: Flax's `nnx.state`.

    Example:
      >>> from flax import nnx
      >>> from jaxd2l import layers
      >>> model = nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
      >>> params, state = load_nnx(layers.Dense("head", 2), model, (3,), {"head": "layers/0"})
      >>> params["head"]["kernel"].shape
      (3, 2)
    """
    from flax import nnx

    if isinstance(source, nnx.Module):
        source = nnx.state(source)
    if isinstance(source, nnx.State):
        source = nnx.to_pure_dict(nnx.filter_state(source, nnx.Any(nnx.Param, nnx.BatchStat)))
    if not isinstance(source, Mapping):
        raise TypeError(f"load_nnx: expected an nnx module, its state or a dict, got {source!r}")
    return _load("load_nnx", net, array_paths(source), input_shape, names, _without_collection)


def export_nnx(net: Layer, params: Params, state: State, names: Names | None = None) -> Any:
    """The `nnx.State` of a module from a network's parameters and statistics, as `nnx.Param` and
    `nnx.BatchStat`: `nnx.update(module, export_nnx(net, params, state))` puts them in.

    `names` and layouts as in `load_nnx`, which gives the same arrays back bit for bit. A number in
    a name of `names` is an index, as in "layers/0".

    Shapes: as in `load_linen`.

    Raises:
      ValueError: as in `export_linen`.

    Source: Flax's `nnx.update`.

    Example:
      >>> from flax import nnx
      >>> from jaxd2l import init, layers
      >>> net = layers.Dense("head", 2)
      >>> params, state = init(net, jax.random.key(0), (3,))
      >>> model = nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
      >>> nnx.update(model, export_nnx(net, params, state, {"head": "layers/0"}))
      >>> bool((model.layers[0].kernel == params["head"]["kernel"]).all())
      True
    """
    from flax import nnx

    kinds = {"params": nnx.Param, "batch_stats": nnx.BatchStat}
    own = {path for path, _ in _leaves(net)}
    out: dict[str, Any] = {}
    for (collection, layer, leaf), array in _export("export_nnx", net, params, state, names):
        parts: list[str | int] = list(layer.split("/"))
        if layer not in own:
            parts = [int(part) if str(part).isdigit() else part for part in parts]
        _put(out, [*parts, leaf], kinds[collection](array))
    return nnx.State(out)


def _put(tree: dict[Any, Any], path: list[Any], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _without_collection(place: Place) -> str:
    return "/".join(place[1:])


def _leaves(layer: Layer, path: tuple[Any, ...] = ()) -> Iterator[tuple[str, Layer]]:
    """Every layer that may own arrays, with its path; a repeated one once, with stacked arrays."""
    path = inner_path(path, layer)
    match layer:
        case Serial(children) | Parallel(children) | Split(children):
            for child in children:
                yield from _leaves(child, path)
        case Repeat(child):
            yield from _leaves(child, path)
        case Tied():
            pass  # uses those of another path
        case _ if layer.name is not None:
            yield path_text(path), layer


def _renamed(what: str, net: Layer, names: Names | None) -> dict[str, tuple[str, Layer]]:
    """{path of a layer: (its path in Flax, the layer)}."""
    check_network(net)
    names = names or {}
    used: set[str] = set()
    out: dict[str, tuple[str, Layer]] = {}
    for path, layer in _leaves(net):
        matches = {pattern: m for pattern in names if (m := re.fullmatch(pattern, path))}
        if len(matches) > 1:
            raise ValueError(f"{what}: {path!r} matches more than one name: {list(matches)}")
        used |= set(matches)
        out[path] = next((m.expand(names[p]) for p, m in matches.items()), path), layer
    unused = [pattern for pattern in names if pattern not in used]
    if unused:
        raise ValueError(f"{what}: the names {unused} match no layer; the layers are {sorted(out)}")
    return out


def _places(
    what: str, net: Layer, names: Names | None, params: Any, state: Any
) -> Iterator[tuple[str, Layer, Place, Any]]:
    """Each array: its path, the layer, its place in Flax, the array."""
    table = _renamed(what, net, names)
    taken: dict[Place, str] = {}
    foreign, strange, found = [], [], []
    for collection, tree in (("params", params), ("batch_stats", state)):
        for path, array in array_paths(tree).items():
            owner, _, leaf = path.rpartition("/")
            while owner and owner not in table:  # arrays in a FlaxModule lie deeper
                owner = owner.rpartition("/")[0]
            if owner not in table:
                strange.append(path)
                continue
            theirs, layer = table[owner]
            if type(layer) not in SHARED:
                foreign.append(f"{path} of {layer!r}")
                continue
            place = (collection, theirs, "negative_slope" if leaf == "slope" else leaf)
            first = taken.setdefault(place, path)
            if first != path:
                raise ValueError(f"{what}: {first} and {path} are both called {'/'.join(place)}")
            found.append((path, layer, place, array))
    if foreign or strange:
        told = [f"Flax has no layer with {array}" for array in foreign]
        told += [f"the network has no array {path}" for path in strange]
        raise ValueError(f"{what}:\n  " + "\n  ".join(told))
    yield from found


def _load(
    what: str, net: Layer, given: Mapping[str, Any], input_shape: Any, names: Any, join: Any
) -> tuple[Params, State]:
    shape = check_shape(input_shape)
    wanted = declared(net, shape)
    left = dict(given)
    problems, arrays = [], {}
    for path, layer, place, leaf in _places(what, net, names, *wanted):
        name = join(place)
        array = left.pop(name, None)
        needed = leaf.shape[:-1] if isinstance(layer, PReLU) else leaf.shape
        if array is None:
            problems.append(f"{name} is missing: {path} needs {needed}")
        elif jnp.shape(array) != needed:
            problems.append(f"{name} has shape {jnp.shape(array)}: {path} needs {needed}")
        elif jnp.asarray(array).dtype != array.dtype:
            problems.append(f"{name} is {array.dtype}: call inside jax.enable_x64(True)")
        elif not jnp.issubdtype(array.dtype, jnp.floating):
            problems.append(f"{name} is {array.dtype}: {path} needs floating-point numbers")
        else:
            arrays[place[0], path] = _to_ours(layer, place[2], jnp.asarray(array), leaf.shape)
    problems += [f"{name} is not expected" for name in left]
    if problems:
        raise ValueError(f"{what}: the arrays do not fit the network:\n  " + "\n  ".join(problems))
    params, state = (
        jax.tree.unflatten(jax.tree.structure(tree), [arrays[kind, p] for p in array_paths(tree)])
        for kind, tree in zip(("params", "batch_stats"), wanted, strict=True)
    )
    return params, state


def _export(
    what: str, net: Layer, params: Any, state: Any, names: Names | None
) -> Iterator[tuple[Place, Array]]:
    for path, layer, place, array in _places(what, net, names, params, state):
        yield place, _to_theirs(f"{what}: {path}", layer, place[2], array)


def _flipped(layer: ConvTranspose, kernel: Array) -> Array:
    """The kernel with its spatial axes reversed; a repetition's has one axis more in front."""
    return jnp.flip(kernel, tuple(range(-2 - len(layer.kernel), -2)))


def _to_ours(layer: Layer, leaf: str, array: Array, shape: Shape) -> Array:
    if isinstance(layer, ConvTranspose) and leaf == "kernel":
        return _flipped(layer, array)
    if isinstance(layer, PReLU):
        return jnp.broadcast_to(array[..., None], shape)
    return array


def _to_theirs(where: str, layer: Layer, leaf: str, array: Array) -> Array:
    if isinstance(layer, ConvTranspose) and layer.groups > 1:
        raise ValueError(
            f"{where}: Flax's ConvTranspose has no groups, this one has {layer.groups}"
        )
    if isinstance(layer, ConvTranspose) and leaf == "kernel":
        return _flipped(layer, array)
    if isinstance(layer, PReLU):
        if not bool((array == array[..., :1]).all()):
            raise ValueError(f"{where}: Flax's PReLU has one slope, these differ: {array}")
        return array[..., 0]
    return array
