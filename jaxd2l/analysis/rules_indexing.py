"""Rules for the primitives that take positions as operands: slices, gather and scatter."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from jaxd2l.analysis.known import Known, NotConcrete
from jaxd2l.analysis.rules import Operand, out_shape, rule, seen_only, shape_of, spread_over
from jaxd2l.analysis.seen import MOST, NONE, Seen
from jaxd2l.analysis.seen_ops import aligned, masked, transposed, union


def _value(operand: Operand) -> np.ndarray | None:
    """The value of an operand, None where it depends on the input or exists at run time only."""
    if isinstance(operand, Known):
        try:
            return operand.array()
        except NotConcrete:
            pass
    return None


@rule("dynamic_slice")
def _dynamic_slice(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    operand, *starts = operands
    shape, sizes = out_shape(eqn), shape_of(eqn.invars[0])
    parts = [spread_over(start, shape) for start in seen_only(starts)]
    if isinstance(operand, Seen):
        for axis, (count, size) in enumerate(zip(shape, sizes, strict=True)):
            if count == size:
                continue
            start = _value(starts[axis])
            if start is None:
                operand = operand.hull(axis).resized(axis, count)
            else:
                operand = operand.window(axis, count, int(np.clip(start, 0, size - count)))
        parts.append(operand)
    return union(parts)


@rule("dynamic_update_slice")
def _dynamic_update_slice(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    operand, update, *starts = operands
    shape, window = out_shape(eqn), shape_of(eqn.invars[1])
    parts = [spread_over(start, shape) for start in seen_only(starts)]
    inside = np.ones((1,) * len(shape), bool)
    known = math.prod(window) > 0
    for axis, (count, size) in enumerate(zip(window, shape, strict=True)):
        if count == size:
            continue
        value = _value(starts[axis])
        if value is None:
            known = False
            if isinstance(update, Seen):
                update = update.hull(axis).resized(axis, size)
            continue
        start = int(np.clip(value, 0, size - count))
        place = np.arange(size)
        here = (place >= start) & (place < start + count)
        inside = inside & here.reshape((-1,) + (1,) * (len(shape) - 1 - axis))
        if isinstance(update, Seen):
            update = update.listed(axis).window(axis, size, -start)
    if isinstance(update, Seen):
        parts.append(update)
    if isinstance(operand, Seen):
        parts.append(masked(operand, ~inside) if known else operand)
    return union(parts)


def _grid(
    indices: np.ndarray,
    sizes: Sequence[int],
    window: Sequence[int],
    index_map: Sequence[int],
    batching: Sequence[tuple[int, int]],
    drop: bool,
) -> tuple[list[np.ndarray], np.ndarray]:
    """The first position of each slice along every axis, each of the batch's shape, and which
    slices lie inside.

    Args:
      indices: (*batch, k) start indices along the axes `index_map`.
      sizes, window: of the operand, and of a slice.
      batching: pairs (axis of the operand, axis of the batch) that go together.
      drop: whether slices that reach outside are left out; otherwise they are moved inside.
    """
    batch = indices.shape[:-1]
    inside = np.ones(batch, bool)
    starts = [np.zeros(batch, np.int64) for _ in sizes]
    for column, axis in enumerate(index_map):
        start, last = indices[..., column].astype(np.int64), sizes[axis] - window[axis]
        inside &= (start >= 0) & (start <= last)
        starts[axis] = np.clip(start, 0, max(last, 0))
    for axis, along in batching:
        starts[axis] = np.arange(sizes[axis]).reshape((-1,) + (1,) * (len(batch) - 1 - along))
        starts[axis] = np.broadcast_to(starts[axis], batch)
    return starts, (inside if drop else np.ones(batch, bool))


def _drops(mode: Any) -> bool:
    return "FILL" in str(mode)


@rule("gather")
def _gather(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    operand, indices = operands
    numbers, window = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape, sizes = out_shape(eqn), shape_of(eqn.invars[0])
    offset = list(numbers.offset_dims)
    lost = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(sizes)) if axis not in lost]  # in the order of offset
    batch_places = [place for place in range(len(shape)) if place not in offset]
    parts = []
    if isinstance(indices, Seen):
        last = len(indices.shape) - 1
        seen = indices.hull(last)
        seen = seen.without(last) if seen.shape[last] else _emptied(seen, last)
        for place in sorted(offset):
            seen = seen.inserted(place, shape[place])
        parts.append(seen)
    if not isinstance(operand, Seen):
        return union(parts)
    if math.prod(shape) == 0:
        return Seen.nothing(operand.pixels, shape)
    value = _value(indices)
    through = [axis for axis in range(len(sizes)) if window[axis] == sizes[axis]]
    for axis in range(len(sizes)):
        if axis not in through:
            operand = operand.hull(axis) if value is None else operand.listed(axis)
    stored = math.prod(operand.lo.shape[axis] for axis in through)
    if value is not None and math.prod(value.shape[:-1]) * stored > MOST:
        value = None
        for axis in range(len(sizes)):
            operand = operand if axis in through else operand.hull(axis)
    batch = shape_of(eqn.invars[1])[:-1]
    if value is None:
        seen = operand
        for axis in reversed(range(len(sizes))):
            if axis in lost:
                seen = seen.hull(axis).without(axis)
        for place, axis in enumerate(kept):
            if axis not in through:
                seen = seen.resized(place, window[axis])
        for place in batch_places:
            seen = seen.inserted(place, shape[place])
        return union([*parts, seen])
    batching = list(
        zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    )
    starts, inside = _grid(
        value, sizes, window, numbers.start_index_map, batching, _drops(eqn.params["mode"])
    )
    rank = len(batch) + len(kept)
    where = []
    for axis in range(len(sizes)):
        start = starts[axis].reshape(batch + (1,) * len(kept))
        if axis in through:
            start = np.zeros((1,) * rank, np.int64)
        if axis in kept:
            count = operand.lo.shape[axis] if axis in through else window[axis]
            place = len(batch) + kept.index(axis)
            start = start + np.arange(count).reshape((-1,) + (1,) * (rank - 1 - place))
        where.append(start)
    lo, hi = operand.lo[tuple(where)], operand.hi[tuple(where)]
    full = (*batch, *lo.shape[len(batch) :])
    inside = inside.reshape(batch + (1,) * len(kept))
    lo = np.where(inside, np.broadcast_to(lo, full), NONE)
    hi = np.where(inside, np.broadcast_to(hi, full), -NONE)
    seen = operand.with_(
        (*batch, *(window[axis] for axis in kept)),
        lo,
        hi,
        (None,) * len(batch) + tuple(operand.steps[a] if a in through else None for a in kept),
    )
    order = [0] * rank
    for source, place in enumerate([*batch_places, *offset]):
        order[place] = source
    seen = transposed(seen, order)
    for axis in range(rank):
        seen = seen.tidy(axis)
    return union([*parts, seen])


def _emptied(seen: Seen, axis: int) -> Seen:
    return Seen.nothing(seen.pixels, seen.shape[:axis] + seen.shape[axis + 1 :])


@rule("scatter", *(f"scatter_{kind}" for kind in ("add", "sub", "mul", "min", "max", "apply")))
@rule("scatter-add", "scatter-mul", "scatter-min", "scatter-max", "scatter-sub")
def _scatter(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    operand, indices, updates = operands[:3]
    numbers, shape = eqn.params["dimension_numbers"], out_shape(eqn)
    pixels = seen_only(operands)[0].pixels
    if math.prod(shape) == 0:
        return Seen.nothing(pixels, shape)
    value = _value(indices)
    update_shape = shape_of(eqn.invars[2])
    places = list(numbers.update_window_dims)
    lost = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(shape)) if axis not in lost]
    window = [1] * len(shape)
    for axis, place in zip(kept, places, strict=True):
        window[axis] = update_shape[place]
    through = [axis for axis in kept if window[axis] == shape[axis]]
    base = operand if isinstance(operand, Seen) else Seen.nothing(pixels, shape)
    if value is None or math.prod(shape) > MOST or math.prod(update_shape) > MOST:
        everything = [spread_over(seen, shape) for seen in seen_only([indices, updates])]
        return union([base, *everything])
    outer = [place for place in range(len(update_shape)) if place not in places]
    new = updates if isinstance(updates, Seen) else Seen.nothing(pixels, update_shape)
    new = transposed(new, [*outer, *places])  # (*batch, *window)
    for axis in range(len(outer)):
        new = new.listed(axis)
    for axis in range(len(shape)):
        if axis in through:
            place = len(outer) + kept.index(axis)
            base, new = _alike(base, axis, new, place)
        else:
            base = base.listed(axis)
            if axis in kept:
                new = new.listed(len(outer) + kept.index(axis))
    batching = list(
        zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
    )
    batch = value.shape[:-1]
    index_map = numbers.scatter_dims_to_operand_dims
    starts, inside = _grid(
        value, shape, window, index_map, batching, not str(eqn.params["mode"]).endswith("CLIP")
    )
    rank = len(batch) + len(kept)
    where = []
    for axis in range(len(shape)):
        start = starts[axis].reshape(batch + (1,) * len(kept))
        if axis in kept:
            place = len(batch) + kept.index(axis)
            count = new.lo.shape[place] if axis in through else window[axis]
            start = start + np.arange(count).reshape((-1,) + (1,) * (rank - 1 - place))
        where.append(start)
    full = tuple(np.broadcast_shapes(*(w.shape for w in where), batch + (1,) * len(kept)))
    chosen = np.broadcast_to(inside.reshape(batch + (1,) * len(kept)), full)
    target = tuple(np.broadcast_to(w, full)[chosen] for w in where)
    stored = tuple(
        max(base.lo.shape[a], new.lo.shape[len(batch) + kept.index(a)]) if a in through else n
        for a, n in enumerate(shape)
    )
    lo = np.array(np.broadcast_to(base.lo, stored))
    hi = np.array(np.broadcast_to(base.hi, stored))
    if eqn.primitive.name == "scatter":
        lo[target], hi[target] = NONE, -NONE
    np.minimum.at(lo, target, np.broadcast_to(new.lo, full)[chosen])
    np.maximum.at(hi, target, np.broadcast_to(new.hi, full)[chosen])
    result = base.with_(
        shape, lo, hi, tuple(base.steps[a] if a in through else None for a in range(len(shape)))
    )
    for axis in range(len(shape)):
        result = result.tidy(axis)
    return result


def _alike(a: Seen, axis: int, b: Seen, place: int) -> tuple[Seen, Seen]:
    """Both with the same entries along an axis of each of them."""
    rank = max(len(a.shape), len(b.shape))
    one = _only(a, axis, rank)
    two = _only(b, place, rank)
    first, second, _ = aligned(one, two, rank - 1)
    return _stored_as(a, axis, first, rank), _stored_as(b, place, second, rank)


def _only(seen: Seen, axis: int, rank: int) -> Seen:
    """A stand-in with just the size, period and step of one axis, as the last of `rank`."""
    zeros = np.zeros((1,) * (rank - 1) + (seen.lo.shape[axis],), np.int64)
    shape = (1,) * (rank - 1) + (seen.shape[axis],)
    return Seen(seen.pixels, shape, zeros, zeros, (0,) * (rank - 1) + (seen.steps[axis],))


def _stored_as(seen: Seen, axis: int, like: Seen, rank: int) -> Seen:
    if like.steps[rank - 1] is None:
        return seen.listed(axis)
    return seen.repeated(axis, like.lo.shape[rank - 1] // seen.lo.shape[axis])
