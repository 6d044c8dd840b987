"""What arrays see that are made of others: unions, masks, concatenation, transposition, reshape."""

import math
from collections.abc import Sequence

import numpy as np

from jaxd2l.analysis.seen import MOST, NONE, Seen, Steps


def union(seens: Sequence[Seen]) -> Seen:
    """Each element sees what the elements of all these arrays, of one shape, see."""
    result = seens[0]
    for other in seens[1:]:
        result = _both(result, other)
    return result


def _both(a: Seen, b: Seen) -> Seen:
    if a is b or a.is_whole or b.is_nothing:
        return a
    if b.is_whole or a.is_nothing:
        return b
    if math.prod(_period(a, b, axis, axis) or size for axis, size in enumerate(a.shape)) > MOST:
        for axis in range(len(a.shape)):
            a, b = a.hull(axis), b.hull(axis)
    listed = []
    for axis in range(len(a.shape)):
        if _period(a, b, axis, axis) is None:
            listed.append(axis)
        a, b = aligned(a, b, axis)
    lo, hi = np.minimum(a.lo, b.lo), np.maximum(a.hi, b.hi)
    result = a.with_(a.shape, lo, hi, a.steps)
    for axis in listed:
        result = result.tidy(axis)
    return result


def _period(a: Seen, b: Seen, axis: int, other: int) -> int | None:
    """The period that suits axis `axis` of a and axis `other` of b; None if they have no common
    rule.
    """
    s, t = a.steps[axis], b.steps[other]
    p, q = a.lo.shape[axis], b.lo.shape[other]
    return math.lcm(p, q) if s is not None and t is not None and s * q == t * p else None


def aligned(a: Seen, b: Seen, axis: int, other: int | None = None) -> tuple[Seen, Seen]:
    """Both with as many entries along `axis`, which in b may be another one."""
    other = axis if other is None else other
    both = _period(a, b, axis, other)
    if both is None:
        return a.listed(axis), b.listed(other)
    p, q = a.lo.shape[axis], b.lo.shape[other]
    return a.repeated(axis, both // p), b.repeated(other, both // q)


def masked(seen: Seen, keep: np.ndarray) -> Seen:
    """The elements where `keep` is False see nothing; `keep` broadcasts to the shape."""
    if keep.all():
        return seen
    axes = [axis for axis, size in enumerate(keep.shape) if size > 1]
    for axis in axes:
        seen = seen.listed(axis)
    lo, hi = np.where(keep, seen.lo, NONE), np.where(keep, seen.hi, -NONE)
    result = seen.with_(seen.shape, lo, hi, seen.steps)
    for axis in axes:
        result = result.tidy(axis)
    return result


def transposed(seen: Seen, order: Sequence[int]) -> Seen:
    """The axes in another order."""
    order = tuple(order)
    return Seen(
        seen.pixels,
        tuple(seen.shape[axis] for axis in order),
        seen.lo.transpose(order),
        seen.hi.transpose(order),
        tuple(seen.steps[axis] for axis in order),
    )


def joined(seens: Sequence[Seen], axis: int) -> Seen:
    """Concatenation along `axis`. Beside something, what sees nothing is padding."""
    total = sum(seen.shape[axis] for seen in seens)
    seeing = [i for i, seen in enumerate(seens) if seen.shape[axis] and not seen.is_nothing]
    if not seeing:
        return Seen.nothing(seens[0].pixels, seens[0]._sized(axis, total))
    if len(seeing) == 1 and seens[seeing[0]].steps[axis] != 0:
        before = sum(seen.shape[axis] for seen in seens[: seeing[0]])
        return seens[seeing[0]].window(axis, total, start=-before)
    parts = [seen.listed(axis) for seen in seens if seen.shape[axis]]
    for other in range(len(parts[0].shape)):
        if other == axis:
            continue
        longest = parts[0]
        for part in parts[1:]:
            longest, _ = aligned(longest, part, other)
        parts = [aligned(part, longest, other)[0] for part in parts]
        if any(part.steps[other] is None for part in parts):
            parts = [part.listed(other) for part in parts]
    sizes = np.broadcast_shapes(*((*p.lo.shape[:axis], 1, *p.lo.shape[axis + 1 :]) for p in parts))
    if math.prod(sizes) * total > MOST:
        hulls = [seen.hull(axis).resized(axis, total) for seen in seens if seen.shape[axis]]
        return union(hulls)

    def stacked(arrays: list[np.ndarray]) -> np.ndarray:
        full = [
            np.broadcast_to(a, (*sizes[:axis], a.shape[axis], *sizes[axis + 1 :])) for a in arrays
        ]
        return np.concatenate(full, axis)

    result = parts[0].with_(
        parts[0]._sized(axis, total),
        stacked([part.lo for part in parts]),
        stacked([part.hi for part in parts]),
        parts[0].steps,
    )
    for other in range(len(result.shape)):
        if result.steps[other] is None:
            result = result.tidy(other)
    return result


# --- reshape --------------------------------------------------------------------------------------


def reshaped(seen: Seen, shape: tuple[int, ...]) -> Seen:
    """The same elements in row-major order under another shape."""
    if math.prod(shape) == 0:
        return Seen.nothing(seen.pixels, shape)
    before, after = _common(seen.shape, shape)
    for axis in reversed(range(before, len(seen.shape) - after)):  # axes of size 1 come and go
        if seen.shape[axis] == 1:
            seen = seen.without(axis)
    end = len(shape) - after
    wanted = [*shape[:before], *(size for size in shape[before:end] if size != 1), *shape[end:]]
    axis = before
    while axis < len(wanted) - after:
        size = seen.shape[axis]
        if size == wanted[axis]:
            axis += 1
            continue
        while size % wanted[axis] or size < wanted[axis]:
            seen = _merged(seen, axis)
            size = seen.shape[axis]
        if size == wanted[axis]:
            axis += 1
            continue
        tail, rest = axis + 1, size // wanted[axis]
        inner = 1
        while inner < rest and tail < len(wanted) - after and rest % (inner * wanted[tail]) == 0:
            inner *= wanted[tail]
            tail += 1
        if inner == rest:
            seen = _split(seen, axis, rest)
            axis += 1
        else:  # what is left over belongs together with the next axis
            seen = _merged(seen, axis)
    for place in range(before, end):
        if shape[place] == 1:
            seen = seen.inserted(place)
    return seen


def _common(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, int]:
    """How many axes at the beginning and at the end of two shapes are the same."""
    least = min(len(old), len(new))
    before = next((i for i in range(least) if old[i] != new[i]), least)
    rest = least - before
    after = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    return before, after


def _merged(seen: Seen, axis: int) -> Seen:
    """This axis and the next as one."""
    outer, inner = seen.shape[axis], seen.shape[axis + 1]
    shape = (*seen.shape[:axis], outer * inner, *seen.shape[axis + 2 :])
    if seen.same_along(axis) and seen.same_along(axis + 1):
        lo, hi = seen.lo.squeeze(axis + 1), seen.hi.squeeze(axis + 1)
        return Seen(seen.pixels, shape, lo, hi, (*seen.steps[:axis], 0, *seen.steps[axis + 2 :]))
    s, t = seen.steps[axis], seen.steps[axis + 1]
    periods = seen.lo.shape[axis : axis + 2]
    if periods == (1, 1) and s is not None and t is not None and s == t * inner:
        lo, hi, step = seen.lo.squeeze(axis + 1), seen.hi.squeeze(axis + 1), t
        steps = (*seen.steps[:axis], step, *seen.steps[axis + 2 :])
        return Seen(seen.pixels, shape, lo, hi, steps)
    if seen.lo.size // periods[1] * inner > MOST:
        return _merged(seen.hull(axis).hull(axis + 1), axis)
    seen = seen.listed(axis + 1)
    stored = (*seen.lo.shape[:axis], periods[0] * inner, *seen.lo.shape[axis + 2 :])
    steps = (*seen.steps[:axis], s, *seen.steps[axis + 2 :])
    result = Seen(seen.pixels, shape, seen.lo.reshape(stored), seen.hi.reshape(stored), steps)
    return result.tidy(axis)


def _split(seen: Seen, axis: int, inner: int) -> Seen:
    """One axis as two, the second of size `inner`."""
    outer = seen.shape[axis] // inner
    shape = (*seen.shape[:axis], outer, inner, *seen.shape[axis + 1 :])
    step, period = seen.steps[axis], seen.lo.shape[axis]

    def stored(a: np.ndarray, first: int, second: int) -> np.ndarray:
        return a.reshape(*a.shape[:axis], first, second, *a.shape[axis + 1 :])

    steps: Steps
    if step is not None and inner % period == 0 and (inner > period or period == 1):
        first, second = 1, period  # the inner axis holds whole periods
        steps = (step * (inner // period), step)
    elif step is not None and period % inner == 0:
        first, second = period // inner, inner
        steps = (step, None)
    else:
        seen = seen.listed(axis)
        first, second = outer, inner
        steps = (None, None)
    result = Seen(
        seen.pixels,
        shape,
        stored(seen.lo, first, second),
        stored(seen.hi, first, second),
        (*seen.steps[:axis], *steps, *seen.steps[axis + 1 :]),
    )
    return result.tidy(axis).tidy(axis + 1)
