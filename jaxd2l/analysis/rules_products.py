"""Rules for matrix products, whose operands may be constant matrices with zeros."""

import math
from collections.abc import Sequence

import numpy as np
from jax.extend import core

from jaxd2l.analysis.rules import (
    Operand,
    not_zero,
    out_shape,
    reduced,
    rule,
    seen_only,
    shape_of,
    spread_over,
)
from jaxd2l.analysis.seen import NONE, Seen
from jaxd2l.analysis.seen_ops import reshaped, transposed, union


@rule("dot_general")
def _dot(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    contracted, batched = eqn.params["dimension_numbers"]
    batch = len(batched[0])
    sides = []
    for side in (0, 1):
        axes = {*contracted[side], *batched[side]}
        rank = len(shape_of(eqn.invars[side]))
        sides.append([axis for axis in range(rank) if axis not in axes])  # free
    parts = []
    for side, operand in enumerate(operands):
        if not isinstance(operand, Seen):
            continue
        other, free = 1 - side, len(sides[side])
        order = (*batched[side], *sides[side], *contracted[side])
        seen = transposed(operand, order)  # (batch, free, contracted)
        used = _nonzero(operands[other], seen, batch + free, contracted[other], sides[other])
        sizes = [shape_of(eqn.invars[other])[axis] for axis in sides[other]]
        if used is None:
            seen = reduced(seen, range(batch + free, len(order)))
            for size in sizes:
                seen = seen.inserted(len(seen.shape), size)
        else:
            seen = _selected(seen, batch + free, used, sizes)
        if side == 1 and sizes:  # (batch, free of rhs, free of lhs)
            rank = len(seen.shape)
            place = [*range(batch), *range(batch + free, rank), *range(batch, batch + free)]
            seen = transposed(seen, place)
        parts.append(seen)
    return union(parts)


@rule("ragged_dot_general")
def _ragged_dot(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    """Rows of a matrix, each times one of several matrices, as in `lax.ragged_dot`; of its other
    forms every element is taken to see all that the operands see.
    """
    numbers, shape = eqn.params["ragged_dot_dimension_numbers"], out_shape(eqn)
    (contracted, _), (batched, _) = numbers.dot_dimension_numbers
    by_row = (*contracted, *batched, *numbers.lhs_ragged_dimensions) == (1, 0) and len(shape) == 2
    rows = seen_only(operands[:1]) if by_row else []
    others = seen_only(operands[1:] if by_row else operands)
    parts = [reduced(seen, [1]).inserted(1, shape[1]) for seen in rows]
    return union(parts + [spread_over(seen, shape) for seen in others])


def _nonzero(
    other: Operand, seen: Seen, first: int, contracted: Sequence[int], free: Sequence[int]
) -> np.ndarray | None:
    """Which contracted elements (rows) each free element (columns) of a matrix uses, where not all
    are and it makes a difference.
    """
    varying = any(not seen.same_along(axis) for axis in range(first, len(seen.shape)))
    used = not_zero(other) if varying else None
    if used is None:
        return None
    rest = tuple(a for a in range(used.ndim) if a not in contracted and a not in free)
    matrix = np.any(used, rest, keepdims=True).transpose((*contracted, *free, *rest))
    if matrix.all():
        return None
    return matrix.reshape(math.prod(matrix.shape[: len(contracted)]), -1)


def _selected(seen: Seen, first: int, used: np.ndarray, sizes: Sequence[int]) -> Seen:
    """The last axes, from `first` on, replaced by those of `sizes`: column j sees the rows that it
    uses.
    """
    seen = reshaped(seen, (*seen.shape[:first], used.shape[0])).listed(first)
    first_used = used.argmax(0)
    last_used = used.shape[0] - 1 - used[::-1].argmax(0)
    lo = np.full((*seen.lo.shape[:first], used.shape[1]), NONE)
    hi = np.full(lo.shape, -NONE)
    for j in np.flatnonzero(used.any(0)):
        band = slice(first_used[j], last_used[j] + 1)
        rows = used[band, j]
        lo[..., j] = seen.lo[..., band][..., rows].min(-1)
        hi[..., j] = seen.hi[..., band][..., rows].max(-1)
    shape = (*seen.shape[:first], used.shape[1])
    result = seen.with_(shape, lo, hi, seen.steps).tidy(first)
    return reshaped(result, (*seen.shape[:first], *sizes))
