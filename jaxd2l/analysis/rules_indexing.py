"""Rules for the primitives that take positions as operands: slices, gather and scatter."""

import math
from collections.abc import Sequence

import jax
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
    if not math.prod(window):  # nothing is written
        pixels = seen_only(operands)[0].pixels
        return operand if isinstance(operand, Seen) else Seen.nothing(pixels, shape)
    parts = [spread_over(start, shape) for start in seen_only(starts)]
    inside, known = np.ones((1,) * len(shape), bool), True
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


class _Slices:
    """The geometry that gather and scatter share: which part of an array each index vector names.

    Attributes:
      shape, window: of the array, and of a slice of it.
      outer, inner: where the axes of the indices and those of the slices are in the sliced array.
      kept: the axes of the array that a slice keeps, in the order of `inner`.
      through: those of them that a slice has in full.
      batching: (axis of the array, axis of the indices) that go together.
      columns: the axis of the array that each component of an index vector belongs to.
      drop: whether slices that reach outside are left out; otherwise they are moved inside.
    """

    def __init__(
        self,
        shape: Sequence[int],
        window: Sequence[int],
        rank: int,
        inner: Sequence[int],
        lost: Sequence[int],
        batching: tuple[Sequence[int], Sequence[int]],
        columns: Sequence[int],
        drop: bool,
    ) -> None:
        self.shape, self.window = tuple(shape), tuple(window)
        self.inner = list(inner)
        self.outer = [place for place in range(rank) if place not in self.inner]
        gone = {*lost, *batching[0]}
        self.kept = [axis for axis in range(len(shape)) if axis not in gone]
        self.through = [axis for axis in self.kept if window[axis] == shape[axis]]
        self.batching = list(zip(*batching, strict=True))
        self.columns, self.drop = columns, drop

    def place(self, axis: int) -> int | None:
        """Where an axis of the array that passes through unchanged is in the sliced array."""
        if axis in self.through:
            return self.inner[self.kept.index(axis)]
        return next((self.outer[along] for a, along in self.batching if a == axis), None)

    def positions(
        self, indices: np.ndarray, stored: Sequence[int]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """For each axis of the array the positions of all slices' elements, which broadcast to
        (*batch, *slice), and which slices count; of axes that pass through only what is `stored`.
        """
        batch, rank = indices.shape[:-1], indices.ndim - 1 + len(self.kept)
        inside = np.ones(batch, bool)
        starts = [np.zeros(batch, np.int64) for _ in self.shape]
        for column, axis in enumerate(self.columns):
            start, last = (
                indices[..., column].astype(np.int64),
                self.shape[axis] - self.window[axis],
            )
            inside &= (start >= 0) & (start <= last)
            starts[axis] = np.clip(start, 0, max(last, 0))
        for axis, along in self.batching:
            own = np.arange(self.shape[axis]).reshape((-1,) + (1,) * (len(batch) - 1 - along))
            starts[axis] = np.broadcast_to(own, batch)
        where = []
        for axis, first in enumerate(starts):
            start = first.reshape(batch + (1,) * len(self.kept))
            if axis in self.through:
                start = np.zeros((1,) * rank, np.int64)
            if axis in self.kept:
                count = stored[axis] if axis in self.through else self.window[axis]
                place = len(batch) + self.kept.index(axis)
                start = start + np.arange(count).reshape((-1,) + (1,) * (rank - 1 - place))
            where.append(start)
        counted = inside if self.drop else np.ones(batch, bool)
        return where, counted.reshape(batch + (1,) * len(self.kept))


def _moved(seen: Seen, places: Sequence[int | None], shape: tuple[int, ...]) -> Seen:
    """An array of `shape` whose axis i is the axis `places[i]` of this one; where that is None, all
    see the same. Axes without a place are widened to their hull.
    """
    if math.prod(shape) == 0 or math.prod(seen.shape) == 0:
        return Seen.nothing(seen.pixels, shape)
    used = [place for place in places if place is not None]
    for axis in reversed(range(len(seen.shape))):
        if axis not in used:
            seen = seen.hull(axis).without(axis)
    left = sorted(used)
    seen = transposed(seen, [left.index(place) for place in used])
    for axis, place in enumerate(places):
        if place is None:
            seen = seen.inserted(axis, shape[axis])
    return seen


@rule("gather")
def _gather(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    operand, indices = operands
    numbers, shape = eqn.params["dimension_numbers"], out_shape(eqn)
    slices = _Slices(
        shape_of(eqn.invars[0]),
        eqn.params["slice_sizes"],
        len(shape),
        numbers.offset_dims,
        numbers.collapsed_slice_dims,
        (numbers.operand_batching_dims, numbers.start_indices_batching_dims),
        numbers.start_index_map,
        "FILL" in str(eqn.params["mode"]),
    )
    parts = []
    if isinstance(indices, Seen):
        own = [slices.outer.index(p) if p in slices.outer else None for p in range(len(shape))]
        parts.append(_moved(indices, own, shape))
    if isinstance(operand, Seen):
        value = _value(indices)
        stored = [operand.lo.shape[axis] for axis in slices.through]
        if value is None or math.prod(value.shape[:-1]) * math.prod(stored) > MOST:
            back = [slices.place(axis) for axis in range(len(slices.shape))]
            places = [back.index(p) if p in back else None for p in range(len(shape))]
            parts.append(_moved(operand, places, shape))
        elif math.prod(shape):
            parts.append(_gathered(operand, value, slices))
        else:
            parts.append(Seen.nothing(operand.pixels, shape))
    return union(parts)


def _gathered(operand: Seen, indices: np.ndarray, slices: _Slices) -> Seen:
    for axis in range(len(slices.shape)):
        if axis not in slices.through:
            operand = operand.listed(axis)
    where, inside = slices.positions(indices, operand.lo.shape)
    batch = indices.shape[:-1]
    lo, hi = operand.lo[tuple(where)], operand.hi[tuple(where)]  # (*batch or ones, *slice)
    full = np.broadcast_shapes(lo.shape, inside.shape)
    lo = np.where(inside, np.broadcast_to(lo, full), NONE)
    hi = np.where(inside, np.broadcast_to(hi, full), -NONE)
    steps = [operand.steps[axis] if axis in slices.through else None for axis in slices.kept]
    seen = operand.with_(
        (*batch, *(slices.window[axis] for axis in slices.kept)),
        lo,
        hi,
        (*(None for _ in batch), *steps),
    )
    order = np.argsort([*slices.outer, *slices.inner]).tolist()
    seen = transposed(seen, order)
    for axis in range(len(order)):
        seen = seen.tidy(axis)
    return seen


@rule("scatter", *(f"scatter-{kind}" for kind in ("add", "sub", "mul", "min", "max")))
def _scatter(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    operand, indices, updates = operands[:3]
    if any(isinstance(const, jax.core.Tracer) for const in eqn.params["update_consts"]):
        raise NotConcrete("the function that is applied closes over traced values")
    numbers, shape = eqn.params["dimension_numbers"], out_shape(eqn)
    pixels, sizes = seen_only(operands)[0].pixels, shape_of(eqn.invars[2])
    lost = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(shape)) if axis not in lost]
    window = [1] * len(shape)
    for axis, place in zip(kept, numbers.update_window_dims, strict=True):
        window[axis] = sizes[place]
    slices = _Slices(
        shape,
        window,
        len(sizes),
        numbers.update_window_dims,
        numbers.inserted_window_dims,
        (numbers.operand_batching_dims, numbers.scatter_indices_batching_dims),
        numbers.scatter_dims_to_operand_dims,
        not str(eqn.params["mode"]).endswith("CLIP"),
    )
    base = operand if isinstance(operand, Seen) else Seen.nothing(pixels, shape)
    value = _value(indices)
    elements, arriving = math.prod(shape), math.prod(sizes)
    if value is not None and elements and elements <= MOST and arriving <= MOST:
        new = updates if isinstance(updates, Seen) else Seen.nothing(pixels, sizes)
        replaced = eqn.primitive.name == "scatter" and eqn.params["update_jaxpr"] is None
        return _scattered(base, value, new, slices, replaced)
    parts = [base]
    places = [slices.place(axis) for axis in range(len(shape))]
    if isinstance(updates, Seen):
        parts.append(_moved(updates, places, shape))
    if isinstance(indices, Seen):
        own = [slices.outer.index(p) if p in slices.outer else None for p in places]
        parts.append(_moved(indices, own, shape))
    return union(parts)


def _scattered(base: Seen, indices: np.ndarray, new: Seen, slices: _Slices, replaced: bool) -> Seen:
    """What is at the target as well as what arrives there, unless it is replaced."""
    batch = indices.ndim - 1
    new = transposed(new, [*slices.outer, *slices.inner])  # (*batch, *slice)
    for axis in range(batch):
        new = new.listed(axis)
    for axis in range(len(slices.shape)):
        place = batch + slices.kept.index(axis) if axis in slices.kept else None
        if axis not in slices.through:
            base = base.listed(axis)
            new = new if place is None else new.listed(place)
        elif place is not None:
            base, new = aligned(base, new, axis, place)
    stored = [
        max(base.lo.shape[axis], new.lo.shape[batch + slices.kept.index(axis)])
        if axis in slices.through
        else size
        for axis, size in enumerate(slices.shape)
    ]
    where, inside = slices.positions(indices, stored)
    full = np.broadcast_shapes(*(w.shape for w in where), inside.shape)
    chosen = np.broadcast_to(inside, full)
    target = tuple(np.broadcast_to(w, full)[chosen] for w in where)
    lo, hi = (np.array(np.broadcast_to(a, stored)) for a in (base.lo, base.hi))
    if replaced:
        lo[target], hi[target] = NONE, -NONE
    np.minimum.at(lo, target, np.broadcast_to(new.lo, full)[chosen])
    np.maximum.at(hi, target, np.broadcast_to(new.hi, full)[chosen])
    steps = [s if axis in slices.through else None for axis, s in enumerate(base.steps)]
    result = base.with_(slices.shape, lo, hi, tuple(steps))
    for axis in range(len(slices.shape)):
        result = result.tidy(axis)
    return result
