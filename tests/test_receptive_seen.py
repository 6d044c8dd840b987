"""Interval arithmetic with stored periods, against the same on full tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxd2l.analysis.seen import NONE, Seen
from jaxd2l.analysis.seen_ops import joined, masked, reshaped, transposed, union

PIXELS = 64  # no interval of these tests reaches outside


def table(seen):
    """`lo` and `hi` of every element, with what lies outside the image cut off."""
    for axis in range(len(seen.shape)):
        seen = seen.listed(axis)
    lo = np.maximum(np.broadcast_to(seen.lo, seen.shape), 0)
    hi = np.minimum(np.broadcast_to(seen.hi, seen.shape), PIXELS - 1)
    return np.where(lo > hi, NONE, lo), np.where(lo > hi, -NONE, hi)


def check(seen, lo, hi):
    assert seen.lo.shape == seen.hi.shape
    assert len(seen.steps) == len(seen.shape) == seen.lo.ndim
    for size, stored, step in zip(seen.shape, seen.lo.shape, seen.steps, strict=True):
        assert step is not None or stored == size
    got = table(seen)
    np.testing.assert_array_equal(got[0], lo)
    np.testing.assert_array_equal(got[1], hi)


@st.composite
def arrays(draw, shape=None):
    """A `Seen` of rank 2 or 3 with period, step, table or nothing along its axes."""
    shape = shape or tuple(draw(st.lists(st.integers(1, 6), min_size=2, max_size=3)))
    seen = Seen.of_input((PIXELS, *shape[1:]), 0).window(
        0,
        shape[0],
        draw(st.integers(16, 19)),
        draw(st.sampled_from([1, 1, 2, 3, -1])),
        draw(st.integers(1, 2)),
    )
    for axis in range(1, len(shape)):
        choice = draw(st.sampled_from(["same", "affine", "table", "holes"]))
        n = shape[axis]
        if choice == "affine":
            moved = [move(seen, 2 * i).without(axis).inserted(axis) for i in range(n)]
            seen = joined(moved, axis)
        elif choice == "table":
            some = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
            seen = joined([move(seen, i).without(axis).inserted(axis) for i in some], axis)
        elif choice == "holes":
            keep = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
            seen = masked(seen, keep.reshape((-1,) + (1,) * (len(shape) - 1 - axis)))
    return seen


def move(seen, by):
    empty = seen.lo > seen.hi
    lo, hi = np.where(empty, NONE, seen.lo + by), np.where(empty, -NONE, seen.hi + by)
    return Seen(seen.pixels, seen.shape, lo, hi, seen.steps)


@given(arrays(), st.data())
def test_one_axis_at_a_time(seen, data):
    axis = data.draw(st.integers(0, len(seen.shape) - 1))
    lo, hi = table(seen)
    n = seen.shape[axis]
    check(seen, lo, hi)
    check(seen.listed(axis), lo, hi)
    check(seen.listed(axis).tidy(axis), lo, hi)
    wide = np.broadcast_to
    check(
        seen.hull(axis),
        wide(lo.min(axis, keepdims=True), lo.shape),
        wide(hi.max(axis, keepdims=True), hi.shape),
    )
    check(
        seen.accumulated(axis, False),
        np.minimum.accumulate(lo, axis),
        np.maximum.accumulate(hi, axis),
    )
    check(
        seen.accumulated(axis, True),
        np.flip(np.minimum.accumulate(np.flip(lo, axis), axis), axis),
        np.flip(np.maximum.accumulate(np.flip(hi, axis), axis), axis),
    )
    i = data.draw(st.integers(0, n - 1))
    check(seen.without(axis, i), lo.take(i, axis), hi.take(i, axis))
    check(
        seen.inserted(axis, 3),
        np.stack([lo] * 3, axis),
        np.stack([hi] * 3, axis),
    )
    check(seen.window(axis, n, n - 1, -1), np.flip(lo, axis), np.flip(hi, axis))


@given(arrays(), st.data())
def test_windows_within_the_array(seen, data):
    axis = data.draw(st.integers(0, len(seen.shape) - 1))
    lo, hi = table(seen)
    n = seen.shape[axis]
    taps = data.draw(st.integers(1, n))
    spacing = data.draw(st.integers(1, max((n - 1) // max(taps - 1, 1), 1)))
    last = n - 1 - (taps - 1) * spacing
    stride = data.draw(st.integers(1, 3))
    start = data.draw(st.integers(0, last))
    count = (last - start) // stride + 1
    parts = [start + t * spacing + stride * np.arange(count) for t in range(taps)]
    check(
        seen.window(axis, count, start, stride, taps, spacing),
        np.min([lo.take(p, axis) for p in parts], 0),
        np.max([hi.take(p, axis) for p in parts], 0),
    )


@given(arrays(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_a_spread_axis_has_holes(seen, spread, taps, stride):
    lo, hi = table(seen)
    n = seen.shape[0]
    if seen.same_along(0):  # holes in what all see alike do not matter
        return
    places = (n - 1) * spread + 1
    wide_lo = np.full((places, *lo.shape[1:]), NONE)
    wide_hi = np.full((places, *lo.shape[1:]), -NONE)
    wide_lo[::spread], wide_hi[::spread] = lo, hi
    count = max((places - taps) // stride + 1, 0)
    rows = [t + stride * np.arange(count) for t in range(taps)]
    check(
        seen.window(0, count, 0, stride, taps, 1, spread),
        np.min([wide_lo[r] for r in rows], 0),
        np.max([wide_hi[r] for r in rows], 0),
    )


@given(arrays(), st.data())
def test_transpose_and_reshape(seen, data):
    lo, hi = table(seen)
    order = data.draw(st.permutations(range(len(seen.shape))))
    check(transposed(seen, order), lo.transpose(order), hi.transpose(order))
    shape = []
    rest = lo.size
    while rest > 1 and len(shape) < 4:
        divisors = [d for d in range(1, rest + 1) if rest % d == 0]
        shape.append(data.draw(st.sampled_from(divisors)))
        rest //= shape[-1]
    shape = (*shape, rest)
    there = reshaped(seen, shape)
    check(there, lo.reshape(shape), hi.reshape(shape))
    check(reshaped(there, seen.shape), lo, hi)


@settings(max_examples=60)
@given(st.data())
def test_two_arrays(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=3)))
    a, b = data.draw(arrays(shape)), data.draw(arrays(shape))
    (a_lo, a_hi), (b_lo, b_hi) = table(a), table(b)
    check(union([a, b]), np.minimum(a_lo, b_lo), np.maximum(a_hi, b_hi))
    keep = np.array(
        data.draw(st.lists(st.booleans(), min_size=a_lo.size, max_size=a_lo.size))
    ).reshape(shape)
    check(masked(a, keep), np.where(keep, a_lo, NONE), np.where(keep, a_hi, -NONE))


@settings(max_examples=60)
@given(st.data())
def test_concatenation(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=3)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts = []
    for _ in range(data.draw(st.integers(2, 3))):
        size = (*shape[:axis], data.draw(st.integers(1, 4)), *shape[axis + 1 :])
        parts.append(data.draw(arrays(size)))
    if sum(not part.is_nothing for part in parts) < 2:
        return  # beside something, nothing is padding: another test
    tables = [table(part) for part in parts]
    check(
        joined(parts, axis),
        np.concatenate([t[0] for t in tables], axis),
        np.concatenate([t[1] for t in tables], axis),
    )


def test_nothing_beside_something_is_padding():
    seen = Seen.of_input((PIXELS, 2), 0)
    nothing = Seen.nothing(PIXELS, (3, 2))
    both = joined([nothing, seen], 0)
    assert both.field(0).interval(0) == (-3, -3)
    assert both.field(0).interval(3) == (0, 0)
    assert both.shape == (PIXELS + 3, 2)


@pytest.mark.parametrize("period", [1, 2, 3, 5])
@pytest.mark.parametrize("border", [0, 1, 2])
def test_the_rule_behind_a_table_is_found_whatever_the_borders_do(period, border):
    """A resize treats its borders in its own way; what is outside the image does not matter."""
    size, step = 24, 3
    some = np.random.default_rng(period).integers(0, 4, period)
    i = np.arange(size)
    lo = some[i % period] + step * (i // period) - 1
    hi = lo + 2
    pixels = int(hi.max()) + 1
    clipped = lo.copy(), hi.copy()
    for edge in [*range(border), *range(size - border, size)]:
        clipped[0][edge] = max(lo[edge], 0)
        clipped[1][edge] = min(hi[edge], pixels - 1)
    seen = Seen(pixels, (size,), *clipped, (None,)).tidy(0)
    assert seen.steps == (step,)
    assert seen.lo.tolist() == lo[:period].tolist()
    broken = clipped[1].copy()
    broken[size // 2 + 1] += 1
    assert Seen(pixels, (size,), clipped[0], broken, (None,)).tidy(0).steps == (None,)
