"""A trained network, read from a checkpoint."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l import checkpoint
from jaxd2l.layers import Layer, declared
from jaxd2l.layers.shapes import check_shape


class Trained(NamedTuple):
    """What `load` gives: the network, its parameters and statistics, and what was stored with
    them.
    """

    net: Layer
    params: Any
    state: Any
    meta: dict[str, Any]


def find(path: str | os.PathLike[str]) -> Path:
    """The checkpoint file at `path`: the file itself, or the newest one in a run's folder.

    Raises:
      FileNotFoundError: neither; the message says what was looked for.
    """
    place = Path(path)
    if place.is_file():
        return place
    newest = checkpoint.latest(place) if place.is_dir() else None
    if newest is None:
        raise FileNotFoundError(
            f"{place}: no checkpoint here: wanted a .safetensors file or the folder of a run"
        )
    return newest


def _kind(array: Any) -> str:
    return "nothing" if array is None else f"{array.dtype} {array.shape}"


def load(path: str | os.PathLike[str], net: Layer | None = None) -> Trained:
    """The network in a checkpoint of `fit`, ready for `apply`; the optimiser's state is left out.

    Args:
      path: a checkpoint, or the folder of a run (its newest checkpoint is taken).
      net: needed only where the file does not hold the network (functions are part of it).

    Raises:
      FileNotFoundError: there is no checkpoint at `path`.
      ValueError: not a checkpoint of `fit`, a damaged one, or arrays that do not fit the network.

    Example:
      >>> import tempfile, optax
      >>> from jaxd2l import data, models, train
      >>> from jaxd2l.ops import losses
      >>> folder = tempfile.mkdtemp()
      >>> result = train.fit(models.softmax_regression(), data.load_digits(8), epochs=1,
      ...                    loss=losses.softmax_cross_entropy, optimizer=optax.sgd(0.1),
      ...                    batch_size=256, folder=folder)
      >>> net, params, state, meta = load(folder)
      >>> net == models.softmax_regression(), meta["input_shape"]
      (True, [8, 8, 1])
    """
    file = find(path)
    if net is None:
        net = checkpoint.load_network(file)
    meta = checkpoint.read_metadata(file)
    if not isinstance(net, Layer) or "input_shape" not in meta:
        raise ValueError(f"{file}: not a checkpoint of train.fit: no network or input shape in it")
    try:
        shape = check_shape(meta["input_shape"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None
    wanted = declared(net, shape)
    target = dict(zip(("params", "state"), wanted, strict=True))
    flat = checkpoint.load_flat(file)
    named = {
        jax.tree_util.keystr(p, simple=True, separator="/"): leaf
        for p, leaf in jax.tree_util.tree_leaves_with_path(target)
    }
    problems = [
        f"{name}: the network needs {_kind(leaf)}, the file has {_kind(flat.get(name))}"
        for name, leaf in named.items()
        if _kind(flat.get(name)) != _kind(leaf)
    ]
    extra = [n for n in flat if n.split("/")[0] in target and n not in named]
    problems += [f"{name}: the network has no such array" for name in extra]
    if problems:
        raise ValueError(f"{file} does not fit its network:\n  " + "\n  ".join(problems))
    structure = jax.tree_util.tree_structure(target)
    tree = jax.tree_util.tree_unflatten(structure, [jnp.array(flat[name]) for name in named])
    return Trained(net, tree["params"], tree["state"], meta)
