"""The receptive field of any JAX function, read off its jaxpr."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.analysis.interpreter import Value, follow
from jaxd2l.analysis.known import Known, constant
from jaxd2l.analysis.seen import Seen
from jaxd2l.geometry import ReceptiveField, as_int


def receptive_field(
    f: Callable[[jax.Array], Any],
    input_shape: Sequence[int],
    axes: Sequence[int] | None = None,
    *,
    dtype: Any = jnp.float32,
) -> Any:
    """What each output unit of any JAX function of one array sees of its input, axis by axis.

    `f` is traced, not run, and its jaxpr is followed from the input on.

    Example:
      >>> from jax import lax
      >>> def f(x):                                           # (n, h, w, c)
      ...     return lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
      >>> rows, columns = receptive_field(f, (1, 9, 9, 1))
      >>> rows.size, rows.jump, rows.start
      (3, 2, -1)
    """
    shape = tuple(as_int(n, "input_shape: each size", 0) for n in input_shape)
    spatial = _axes(axes, len(shape))
    closed, out = jax.make_jaxpr(f, return_shape=True)(jax.ShapeDtypeStruct(shape, dtype))
    value = tuple(Seen.of_input(shape, axis) for axis in spatial)
    results = follow(closed.jaxpr, [constant(c) for c in closed.consts], [value])
    fields = [_fields(result, spatial, shape) for result in results]
    return jax.tree.unflatten(jax.tree.structure(out), fields)


def _axes(axes: Sequence[int] | None, rank: int) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(1, rank - 1))
    return tuple(axis % rank for axis in axes)


def _fields(
    value: Value, axes: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[ReceptiveField, ...]:
    if isinstance(value, Known):
        return tuple(ReceptiveField((None,), 0) for _ in axes)
    return tuple(_field(seen, axis) for seen, axis in zip(value, axes, strict=True))


def _field(seen: Seen, axis: int) -> ReceptiveField:
    varying = [a for a in range(len(seen.shape)) if not seen.same_along(a)]
    if not varying:
        lo, hi = seen.lo.item(), seen.hi.item()
        return ReceptiveField(((lo, hi) if lo <= hi else None,), 0)
    return seen.field(axis if axis in varying else varying[0])
