"""The interpreters `initial_carry` and `extend`: a sequence taken up where it was left.

The carry of a network is what its layers hand from one piece of a sequence to the next: hidden
states, memory cells, caches of keys and values. It is an argument and a result, a nested dict by
layer name like the parameters. Generation extends a sequence by one token at a time, truncated
back-propagation through time by one window, and both by this one function.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.geometry import as_int
from jaxd2l.layers.composites import Padded, Parallel, Repeat, Serial, Split, Tied
from jaxd2l.layers.core import Array, Layer, Params, Shape, State
from jaxd2l.layers.run import run
from jaxd2l.layers.shapes import (
    array_paths,
    check_network,
    inner_path,
    shape_of,
    split_shape,
    where_raised,
)

Carry = dict[str, Any]


def initial_carry(
    net: Layer, x: Array, *, length: int | None = None, dtype: Any = jnp.float32
) -> Carry:
    """The carry before the first position: zeros, made from `x` so that they are sharded like it.

    Args:
      net: the network.
      x: (n, t, ...), a batch that `extend` will be given; only its shape matters.
      length: how many positions caches of keys and values must hold; networks without attention
        need none.
      dtype: of hidden states and caches, that of the parameters.

    Raises:
      ValueError: a layer cannot take its input, or needs `length`; a note names the layer.

    Example:
      >>> from jaxd2l import layers
      >>> net = layers.Serial([layers.OneHot(5), layers.LSTM("lstm", 3)])
      >>> carry = initial_carry(net, jnp.zeros((2, 7), jnp.int32))
      >>> jax.tree.map(jnp.shape, carry)
      {'lstm': {'cell': (2, 3), 'hidden': (2, 3)}}
    """
    check_network(net)
    if length is not None:
        length = as_int(length, "initial_carry: length", 1)
    x = jnp.asarray(x)
    if x.ndim < 2:
        raise ValueError(f"initial_carry: x must be a batch (n, t, ...), got shape {x.shape}")
    shape_of(net, (), x.shape[1:])
    declared = _declared(net, (), x.shape[1:], length, jnp.dtype(dtype))
    zero = jnp.zeros_like(x).max(axis=tuple(range(1, x.ndim)), initial=0)  # (n,)

    def zeros(leaf: Any) -> Array:
        times, shape, kind = leaf
        row = zero.astype(kind).reshape(*([1] * len(times)), -1, *([1] * len(shape)))
        return jnp.broadcast_to(row, (*times, zero.shape[0], *shape))

    return jax.tree.map(zeros, declared, is_leaf=lambda leaf: isinstance(leaf, tuple))


def _declared(
    layer: Layer, path: tuple[Any, ...], shape: Shape, length: int | None, dtype: Any
) -> Carry:
    """By layer name, for each leaf: axes of repetitions, shape for one example, dtype."""
    inside = inner_path(path, layer)
    found: Carry = {}
    match layer:
        case Serial(children):
            for child in children:
                found |= _declared(child, inside, shape, length, dtype)
                shape = shape_of(child, inside, shape)
        case Parallel(branches) | Split(branches):
            if isinstance(layer, Split):
                shape = split_shape(shape, len(branches), inside)
            for branch in branches:
                found |= _declared(branch, inside, shape, length, dtype)
        case Repeat(child, times):
            found = jax.tree.map(
                lambda leaf: ((times, *leaf[0]), *leaf[1:]),
                _declared(child, inside, shape, length, dtype),
                is_leaf=lambda leaf: isinstance(leaf, tuple),
            )
        case Padded(child):
            found = _declared(child, inside, shape, length, dtype)
        case Tied(name, child):
            if _declared(child, inside, shape, length, dtype):
                raise ValueError(f"Tied {name!r}: a layer with a carry cannot be tied")
        case _:
            with where_raised(inside, layer, shape):
                own = layer.carry(shape, length, dtype)
            found = {name: ((), leaf.shape, leaf.dtype) for name, leaf in own.items()}
            if found and layer.name is None:
                raise ValueError(f"{layer!r} has a carry, so it needs a name")
    return {layer.name: found} if found and layer.name is not None else found


def extend(
    net: Layer,
    params: Params,
    state: State,
    x: Array,
    carry: Carry,
    *,
    key: Array | None = None,
    train: bool = False,
    examples: Array | None = None,
    mask: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Any, Carry, State]:
    """Run a network on the next piece of each sequence, after what `carry` remembers.

    Cutting a sequence into pieces changes nothing: the outputs are those of `apply` on the whole.
    Every layer must have a carry or treat positions one by one; one that looks ahead (a reversed or
    bidirectional recurrence, attention that is not causal, a convolution) raises. With pieces of
    unequal `lengths` (padded at their end) the carry is that after each example's last real
    position. For truncated back-propagation through time pass `jax.lax.stop_gradient(carry)`.

    Shapes:
      x: (n, t, ...), any t; outputs as of `apply`; carry: as `initial_carry` makes it.

    Args:
      carry: from `initial_carry` or from the call before.
      key, train, examples, mask, lengths: as in `apply`.

    Returns:
      (y, new_carry, new_state).

    Raises:
      ValueError: as `apply`; the carry does not fit the network, or a layer cannot go on.

    Source: D2L 9.7 (truncated back-propagation), 9.5.2 (decoding).

    Example:
      >>> from jaxd2l import apply, init, layers
      >>> net = layers.Serial([layers.OneHot(5), layers.GRU("gru", 3), layers.Dense("output", 5)])
      >>> params, state = init(net, jax.random.key(0), (4,))
      >>> x = jnp.array([[1, 2, 3, 4]])
      >>> whole, _ = apply(net, params, state, x)
      >>> first, carry, _ = extend(net, params, state, x[:, :3], initial_carry(net, x))
      >>> last, carry, _ = extend(net, params, state, x[:, 3:], carry)
      >>> bool(jnp.allclose(whole, jnp.concatenate([first, last], axis=1), atol=1e-6))
      True
    """
    check_network(net)
    x = jnp.asarray(x)
    if not isinstance(carry, Mapping):
        raise TypeError(f"extend: carry must be a dict, as initial_carry makes it, got {carry!r}")
    _check_carry(carry, _declared(net, (), x.shape[1:], 1, jnp.float32))
    both = _merged(state, carry)
    y, new = run(net, params, both, x, key, train, examples, mask, lengths, extends=True)
    statistics, new_carry = _parted(new, carry)
    return y, new_carry, (statistics if train else state)


def _check_carry(carry: Carry, declared: Carry) -> None:
    """The carry must hold what the layers declare, no less and no more."""
    given = set(array_paths(carry))
    known = set(array_paths(jax.tree.map(str, declared, is_leaf=lambda a: isinstance(a, tuple))))
    for path in sorted(known - given):
        raise ValueError(
            f"extend: the carry has no {path!r}, it has {sorted(given)}; initial_carry makes it"
        )
    for path in sorted(given - known):
        raise ValueError(
            f"extend: the carry has {path!r}, where the network has {sorted(known) or 'none'}"
        )


def _merged(state: Any, carry: Any) -> Any:
    """One tree of both: levels are shared, leaves are not."""
    if not (isinstance(state, Mapping) and isinstance(carry, Mapping)):
        return carry
    shared = {name: _merged(state[name], part) for name, part in carry.items() if name in state}
    return {**state, **carry, **shared}


def _parted(tree: Any, carry: Any) -> tuple[Any, Any]:
    """What is not in the carry, and what is."""
    statistics, found = {}, {}
    for name, value in tree.items():
        if name not in carry:
            statistics[name] = value
        elif isinstance(value, Mapping):
            rest, found[name] = _parted(value, carry[name])
            if rest:
                statistics[name] = rest
        else:
            found[name] = value
    return statistics, found
