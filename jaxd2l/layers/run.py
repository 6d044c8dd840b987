"""The interpreter `apply`: a network run on a batch."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.checks import check_integer
from jaxd2l.layers.composites import (
    Padded,
    Parallel,
    Repeat,
    Serial,
    Split,
    Tied,
    level_names,
    sibling_names,
)
from jaxd2l.layers.core import Array, Context, Layer, Params, State, path_text
from jaxd2l.layers.shapes import (
    array_paths,
    check_network,
    combined_shape,
    look_up,
    shape_of,
    split_shape,
    where_raised,
)


def apply(
    net: Layer,
    params: Params,
    state: State,
    x: Array,
    *,
    key: Array | None = None,
    train: bool = False,
    examples: Array | None = None,
    mask: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Any, State]:
    """Run a network on a batch.

    Args:
      net: the network.
      params, state: from `init`, or trees of the same structure.
      x: (n, *input_shape).
      key: needed when train=True and something random runs; the error names the layer.
      train: a Python bool; with False the state comes back unchanged.
      examples: (n,) int index of each example in the global batch, default 0..n-1. A random mask
        depends on (key, path, index), so shards of one batch draw what the whole would.
      mask: (n,) bool, False for examples that only pad the batch: batch statistics ignore them.
      lengths: (n,) int, how many positions of each sequence (n, t, ...) are real; recurrent layers,
        attention and pools over time leave the rest out. Default: all (see `layers.Padded`).

    Returns:
      (y, new_state).

    Raises:
      ValueError: parameters or input of another shape than the network needs; a note names the
        layer.

    Example:
      >>> from jaxd2l import init, layers
      >>> net = layers.Serial([layers.Flatten(), layers.Dense("head", 2)])
      >>> params, state = init(net, jax.random.key(0), (2, 2, 1))
      >>> y, state = apply(net, params, state, jnp.ones((5, 2, 2, 1)))
      >>> y.shape
      (5, 2)
    """
    y, new_state = run(net, params, state, x, key, train, examples, mask, lengths)
    return y, (new_state if train else state)


def run(
    net: Layer,
    params: Params,
    state: State,
    x: Array,
    key: Array | None = None,
    train: bool = False,
    examples: Array | None = None,
    mask: Array | None = None,
    lengths: Array | None = None,
    extends: bool = False,
) -> tuple[Any, State]:
    """`apply`, with the state that the layers leave behind whether it is a training pass or not."""
    check_network(net)
    if not isinstance(train, bool):
        raise TypeError(f"apply: train must be True or False (a static value), got {train!r}")
    for name, tree in (("params", params), ("state", state)):
        if not isinstance(tree, Mapping):
            raise TypeError(
                f"apply: {name} must be a dict, as init returned it, got {type(tree).__name__}"
            )
        _check_names(sibling_names(net), tree, name, ())
    if jnp.ndim(x) < 1:
        raise ValueError("apply: x needs a batch axis, (n, *input_shape); got a scalar")
    for name, value in (("examples", examples), ("mask", mask), ("lengths", lengths)):
        if value is not None and np.shape(value) != jnp.shape(x)[:1]:
            raise ValueError(
                f"apply: {name} must have shape ({jnp.shape(x)[0]},), one per example, "
                f"got {np.shape(value)}"
            )
    if lengths is not None:
        lengths = jnp.asarray(lengths)
        check_integer(lengths, "apply: lengths")
    context = Context(train, key, examples, mask, lengths, extends, params)
    return _apply(net, params, state, jnp.asarray(x), context)


def _apply(
    layer: Layer, params: Params, state: State, x: Array, context: Context
) -> tuple[Any, State]:
    if layer.name is None:
        return _apply_own(layer, params, state, x, context)
    context = context.enter(layer.name)
    own, statistics = params.get(layer.name, {}), state.get(layer.name, {})
    if isinstance(layer, Serial | Parallel | Split | Repeat | Tied):
        _check_names(level_names(layer), own, "params", context.path)
        _check_names(level_names(layer), statistics, "state", context.path)
    y, new = _apply_own(layer, own, statistics, x, context)
    return y, ({layer.name: new} if new else {})


def _apply_own(
    layer: Layer, params: Params, state: State, x: Array, context: Context
) -> tuple[Any, State]:
    new: State = {}
    match layer:
        case Serial(children):
            for child in children:
                x, updated = _apply(child, params, state, x, context)
                new |= updated
            return x, new
        case Parallel(branches, combine) | Split(branches, combine):
            if isinstance(layer, Split):
                split_shape(x.shape[1:], len(branches), context.path)
                parts = jnp.split(x, len(branches), axis=-1)
            else:
                parts = [x] * len(branches)
            ys = []
            for branch, part in zip(branches, parts, strict=True):
                y, updated = _apply(branch, params, state, part, context)
                ys.append(y)
                new |= updated
            combined_shape(combine, [y.shape[1:] for y in ys], context.path)
            return _combine(combine, ys), new
        case Repeat(child, times):
            return _apply_repeat(child, times, params, state, x, context)
        case Tied(name, child, to):
            with where_raised(context.path, layer, x.shape[1:]):
                own = look_up(context.root, to, name)
            y, updated = _apply_own(child, own, {}, x, context)
            if updated:
                raise ValueError(f"Tied {name!r}: a layer with running statistics cannot be tied")
            return y, {}
        case Padded(child, padding):
            if context.lengths is None:
                context = dataclasses.replace(context, lengths=_lengths(x, padding))
            return _apply(child, params, state, x, context)
        case _:
            if layer.name is None:
                params, state = {}, {}  # those of the level it stands in are not its own
            with where_raised(context.path, layer, x.shape[1:]):
                _check_arrays(layer, params, state, x, context)
                return layer.apply(params, state, x, context)


def _lengths(tokens: Array, padding: int) -> Array:
    """The number of tokens up to the last that is not padding: (n, t) -> (n,)."""
    if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(
            f"Padded: needs a batch of tokens, (n, t) integers, got {tokens.dtype} {tokens.shape}"
        )
    places = jnp.arange(1, tokens.shape[1] + 1, dtype=jnp.int32)[None]
    return jnp.where(tokens != padding, places, 0).max(axis=1)


def _combine(combine: str, ys: list[Array]) -> Array:
    if combine == "concat":
        return jnp.concatenate(ys, axis=-1)
    return functools.reduce(jnp.add if combine == "add" else jnp.multiply, ys)


def _apply_repeat(
    layer: Layer, times: int, params: Params, state: State, x: Array, context: Context
) -> tuple[Array, State]:
    own = sibling_names(layer)  # an unnamed repetition shares its level with other layers
    params, state = ({k: tree[k] for k in own if k in tree} for tree in (params, state))
    for path, leaf in array_paths((params, state)).items():
        if jnp.shape(leaf)[:1] != (times,):
            raise ValueError(
                f"Repeat at {path_text(context.path)!r}: {path} must be stacked over {times} "
                f"repetitions on its first axis, got shape {jnp.shape(leaf)}"
            )

    shape_of(Repeat(layer, 1), context.path, x.shape[1:])  # the block must keep the shape

    def body(x: Array, step: Any) -> tuple[Array, State]:
        i, params, state = step
        return _apply(layer, params, state, x, context.enter(i))

    return jax.lax.scan(body, x, (jnp.arange(times), params, state))


def _check_names(known: list[str], tree: Mapping[str, Any], what: str, path: Any) -> None:
    """A level may hold nothing but the layers of the network: nothing is ignored silently."""
    unknown = sorted(set(tree) - set(known))
    if unknown:
        raise ValueError(
            f"apply: {what} has {unknown[0]!r} at {path_text(path) or 'the top level'!r}, where "
            f"the network has {sorted(known)}"
        )


def _check_arrays(layer: Layer, params: Params, state: State, x: Array, context: Context) -> None:
    """The declared arrays must be there, in the declared shapes."""
    shape = x.shape[1:]
    layer.output_shape(shape)
    if context.extends:
        state = _check_carry(layer, params, state, x)
    groups = (
        ("parameters", layer.parameters(shape), params),
        ("statistics", layer.statistics(shape), state),
    )
    for what, declared, given in groups:
        if not declared and type(layer).init is not Layer.init:
            continue  # it makes its own arrays, as a Flax module does
        if set(declared) != set(given):
            raise ValueError(f"{what} must be {sorted(declared)}, got {sorted(given)}")
        for name, parameter in declared.items():
            if jnp.shape(given[name]) != parameter.shape:
                raise ValueError(
                    f"{name} must have shape {parameter.shape} for input shape {shape}, "
                    f"got {jnp.shape(given[name])}"
                )


def _check_carry(layer: Layer, params: Params, state: State, x: Array) -> State:
    """The statistics alone, when the carry beside them fits, or nothing is to be remembered."""
    shape = x.shape[1:]
    with jax.numpy_dtype_promotion("standard"):
        kind = jnp.result_type(x.dtype, *(leaf.dtype for leaf in jax.tree.leaves(params)))
    known = layer.carry(shape, 1, kind)  # caches of any length
    for name, wanted in known.items():
        dtype = getattr(state[name], "dtype", type(state[name]).__name__)
        if jnp.shape(state[name])[:1] != x.shape[:1]:
            raise ValueError(
                f"extend: the carry {name} must have the batch size {x.shape[0]} on its first "
                f"axis, got shape {jnp.shape(state[name])}"
            )
        if dtype != wanted.dtype:
            raise TypeError(
                f"extend: the carry {name} must be {wanted.dtype}, got {dtype}; initial_carry "
                f"takes dtype=..., that of the parameters"
            )
    if not known and layer.windows(shape) != ():
        raise ValueError(
            "extend: this layer mixes positions and has no carry, so a sequence cannot be "
            "continued through it"
        )
    return {name: value for name, value in state.items() if name not in known}
