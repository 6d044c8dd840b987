"""Receptive fields against index sets followed down by hand, and against gradient support."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from jaxd2l.geometry import (
    ReceptiveField,
    Window,
    conv_parameters,
    dense_parameters,
    receptive_field,
    receptive_field_top_down,
)
from jaxd2l.testing import windows

ordinary, either = windows(), windows() | windows(transposed=True)
without_gaps = windows(max_dilation=1, transposed=True).filter(lambda w: w.kernel >= w.stride)


def support(windows, unit):
    """The set of input pixels that `unit` of the last map depends on, by definition."""
    seen = {unit}
    for w in reversed(windows):
        low, k, s, d = w.sides[0], w.kernel, w.stride, w.dilation
        if w.transposed:
            near = range((min(seen, default=0) - 40) // s, (max(seen, default=0) + 40) // s + 1)
            seen = {j for j in near for t in range(k) if j * s - low + d * t in seen}
        else:
            seen = {i * s - low + d * t for i in seen for t in range(k)}
    return seen


def hull(pixels):
    return (min(pixels), max(pixels)) if pixels else None


def check_field(windows):
    field = receptive_field(windows)
    hulls = {i: hull(support(windows, i)) for i in range(-9, 60)}
    for unit, seen in hulls.items():
        assert field.interval(unit) == seen
        middle = None if seen is None else Fraction(sum(seen), 2)
        assert field.centre(unit) == middle
    assert field.size == max((s[1] - s[0] + 1 for s in hulls.values() if s), default=0)
    assert field.start == (None if hulls[0] is None else hulls[0][0])
    assert field.padding == (None if hulls[0] is None else -hulls[0][0])
    jump = Fraction(1)
    for w in windows:
        jump = jump / w.stride if w.transposed else jump * w.stride
    assert field.jump == jump
    assert isinstance(field.jump, int) == (jump.denominator == 1)
    return field


@settings(max_examples=150)
@given(st.lists(ordinary, max_size=4))
def test_field_of_convolutions_and_pools(windows):
    field = check_field(windows)
    assert len(field.intervals) == 1
    assert receptive_field_top_down(windows) == field.size
    start, jump = 0, 1
    for w in windows:
        start, jump = start - w.sides[0] * jump, jump * w.stride
    assert (field.start, field.jump) == (start, jump)


@settings(max_examples=150)
@given(st.lists(either, max_size=4))
def test_field_of_mixed_stacks(windows):
    """Any mixture, with holes and dilated transposed windows: exact for every unit."""
    assume(math.prod(w.stride for w in windows if w.transposed) <= 27)
    field = check_field(windows)
    assert receptive_field_top_down(windows) >= field.size


@settings(max_examples=150)
@given(
    st.lists(ordinary, max_size=2),
    st.lists(without_gaps, max_size=3),
    st.lists(windows(max_stride=1, max_dilation=1), max_size=2),
)
def test_both_recursions_agree_on_decoders(down, up, last):
    windows = [*down, *up, *last]
    assert receptive_field_top_down(windows) == check_field(windows).size


def test_field_after_a_transposed_window():
    up = Window(4, 2, 1, transposed=True)
    field = receptive_field([up])
    assert field.jump == Fraction(1, 2)
    assert [field.interval(i) for i in range(4)] == [(-1, 0), (0, 1), (0, 1), (1, 2)]
    assert [field.centre(i) for i in range(2)] == [Fraction(-1, 2), Fraction(1, 2)]
    uneven = receptive_field([Window(3, 2, transposed=True)])
    assert [uneven.interval(i) for i in range(3)] == [(-1, 0), (0, 0), (0, 1)]
    assert uneven.size == 2
    holes = receptive_field([Window(1, 2, transposed=True)])
    assert [holes.interval(i) for i in range(3)] == [(0, 0), None, (1, 1)]
    nothing = holes.then(Window(1, 2, (1, 0)))
    assert (nothing.size, nothing.start, nothing.padding, nothing.centre(0)) == (
        0,
        None,
        None,
        None,
    )
    # A strided window that meets only the poorer alignment: the top-down size is a bound only.
    meets = [Window(3, 2, 1, transposed=True), Window(1, 2)]
    assert receptive_field(meets) == ReceptiveField()
    assert receptive_field_top_down(meets) == 2


def test_equal_fields_are_equal():
    """The period is kept as short as it can be, so composition in another way compares equal."""
    assert receptive_field([]) == ReceptiveField() == receptive_field([Window(1)])
    up_down = receptive_field([Window(2, 2, transposed=True), Window(2, 2)])
    assert up_down == ReceptiveField()
    assert hash(up_down) == hash(ReceptiveField())
    nearest = receptive_field([Window(2, 2), Window(2, 2, transposed=True)])
    assert (nearest.intervals, nearest.jump) == (((0, 1), (0, 1)), 1)


@settings(max_examples=60)
@given(st.lists(either, max_size=2), st.lists(either, max_size=2))
def test_union_is_the_hull_of_the_branches(left, right):
    a, b = receptive_field(left), receptive_field(right)
    if a.jump != b.jump:
        with pytest.raises(ValueError, match="different jumps cannot be joined"):
            a.union(b)
        return
    joined = a.union(b)
    for unit in range(-6, 30):
        assert joined.interval(unit) == hull(support(left, unit) | support(right, unit))
    assert joined == b.union(a)
    assert joined.jump == a.jump
    after = Window(3, 2, (1, 0), 2)
    assert joined.then(after) == a.then(after).union(b.then(after))


def test_union_of_unlike_periods():
    twos, threes = ([Window(s, s), Window(s, s, transposed=True)] for s in (2, 3))
    joined = receptive_field(twos).union(receptive_field(threes))
    assert (len(joined.intervals), joined.shift, joined.jump) == (6, 6, 1)
    for unit in range(-7, 13):
        assert joined.interval(unit) == hull(support(twos, unit) | support(threes, unit))


intervals = st.none() | st.builds(
    lambda lo, size: (lo, lo + size), st.integers(-6, 6), st.integers(0, 5)
)
tables = st.lists(intervals, min_size=1, max_size=4).map(tuple)
regular = st.builds(ReceptiveField, tables, st.integers(-4, 4))
lists = st.builds(ReceptiveField, tables, st.none())


def behind(seen, inner):
    """The pixels that the units of an interval see through a map that sees `inner`."""
    units = range(seen[0], seen[1] + 1) if seen else ()
    found = [inner.interval(unit) for unit in units]
    return hull({pixel for pair in found if pair for pixel in pair})


@settings(max_examples=300)
@given((st.tuples(regular, regular)) | st.tuples(lists, regular | lists))
def test_after_is_the_hull_of_what_the_units_see(pair):
    outer, inner = pair
    field = outer.after(inner)
    for unit in range(-9, 25):
        assert field.interval(unit) == behind(outer.interval(unit), inner)
    if outer.shift is None:
        assert (field.shift, len(field.intervals)) == (None, len(outer.intervals))
    else:
        assert field.jump == outer.jump * inner.jump


@settings(max_examples=150)
@given(st.lists(either, max_size=3), either)
def test_after_agrees_with_then(before, window):
    inner, alone = receptive_field(before), ReceptiveField().then(window)
    composed, exact = alone.after(inner), inner.then(window)
    if window.dilation == 1 or len(inner.intervals) == 1:
        assert composed == exact
        return
    for unit in range(-6, 30):  # it may be larger: the gaps of the kernel count
        seen, part = composed.interval(unit), exact.interval(unit)
        assert part is None or (seen[0] <= part[0] and part[1] <= seen[1])


def test_after_by_hand():
    conv = ReceptiveField().then(Window(3, padding=1))
    assert conv.after(ReceptiveField.whole(9)) == ReceptiveField.whole(9)
    assert ReceptiveField.whole(9).after(conv) == ReceptiveField(((-1, 9),), 0)
    backwards = ReceptiveField(((8, 8),), -1)
    assert backwards.after(backwards) == ReceptiveField()
    assert backwards.after(conv) == conv.after(backwards) == ReceptiveField(((7, 9),), -1)
    circular = ReceptiveField(((2, 2), (0, 0), (1, 1), (2, 2), (0, 0)), None)
    assert conv.listed(5).after(circular) == ReceptiveField(
        ((0, 2), (0, 2), (0, 2), (0, 2), (0, 2)), None
    )
    assert circular.after(conv).interval(0) == (1, 3)
    nothing = ReceptiveField((None,), 0)
    assert conv.after(nothing) == nothing.after(conv) == nothing


@given(regular | lists, regular | lists, st.integers(1, 12))
def test_lists_of_units(a, b, units):
    left, right = a.listed(units), b.listed(units)
    assert (left.jump, len(left.intervals)) == (None, units)
    joined = left.union(right)
    for unit in range(units):
        seen = [s for s in (a.interval(unit), b.interval(unit)) if s]
        assert left.interval(unit) == a.interval(unit)
        assert joined.interval(unit) == hull({pixel for s in seen for pixel in s})
    assert left.interval(units) is left.interval(-1) is None


def test_what_has_no_pattern_is_not_continued():
    three, two = (ReceptiveField(((0, 0),) * n, None) for n in (3, 2))
    with pytest.raises(ValueError, match="the 3 units of this field follow no pattern"):
        ReceptiveField().after(three)
    with pytest.raises(ValueError, match="the 3 units of this field follow no pattern"):
        three.then(Window(3))
    for a, b in ((three, two), (three, ReceptiveField())):
        with pytest.raises(ValueError, match="the 3 units of this field follow no pattern"):
            a.union(b)
    with pytest.raises(TypeError, match="expected a ReceptiveField, got Window"):
        ReceptiveField().after(Window(3))
    with pytest.raises(ValueError, match="units must be at least 1, got 0"):
        ReceptiveField().listed(0)


def test_field_is_the_support_of_the_gradient():
    """C107: the pixels with a non-zero gradient under kernels of ones; AlexNet and a mixture."""

    def run(windows, x):
        for w in windows:
            k, (low, high) = w.effective_kernel, w.sides
            crop = (k - 1 - low, k - 1 - high + w.output_padding)
            x = lax.conv_general_dilated(
                x,
                jnp.ones((w.kernel, 1, 1)),
                (1,) if w.transposed else (w.stride,),
                [crop if w.transposed else w.sides],
                (w.stride,) if w.transposed else None,
                (w.dilation,),
                ("NWC", "WIO", "NWC"),
            )
        return x[0, :, 0]

    alexnet = [Window(11, 4), Window(3, 2), Window(5, 1, 2), Window(3, 2)] + [Window(3, 1, 1)] * 3
    mixed = [Window(5, 2, 1), Window(3, 1, 2, 2), Window(4, 3, 1, transposed=True), Window(3, 1, 1)]
    for stack, n, size in ((alexnet, 227, 163), (mixed, 60, None)):
        field = receptive_field(stack)
        if size:
            assert field.size == size
        rows = jax.jit(jax.jacrev(lambda x, stack=stack: run(stack, x)))(jnp.ones((1, n, 1)))
        rows = np.asarray(rows)[:, 0, :, 0]
        for unit, row in enumerate(rows):
            pixels = np.flatnonzero(row)
            lo, hi = field.interval(unit)
            assert (pixels[0], pixels[-1]) == (max(lo, 0), min(hi, n - 1))


def test_field_grows_linearly_without_stride():
    """C108 is false for stride 1 (linear), true for stride or dilation above 1 (exponential)."""
    fields = [receptive_field([Window(3)] * n).size for n in range(9)]
    assert fields == [1 + 2 * n for n in range(9)]
    strided = [receptive_field([Window(3, 2)] * n).size for n in range(9)]
    assert strided == [2 ** (n + 1) - 1 for n in range(9)]
    dilated = [receptive_field([Window(3, dilation=2**i) for i in range(n)]).size for n in range(9)]
    assert dilated == strided


def test_a_one_by_one_window_changes_no_field():
    """F42: a 1x1 convolution is a dense layer per pixel."""
    field = receptive_field([Window(7, 2, 3), Window(3, 2, 1, transposed=True)])
    assert field.then(Window(1)) == field
    assert conv_parameters((1, 1), 64, 10) == dense_parameters(64, 10)


def test_large_windows_cost_nothing():
    """Only the ends of what a window reads are looked at."""
    windows = [Window(10**9), Window(10**9, 2, transposed=True), Window(10**9)]
    assert receptive_field(windows).size == 2 * 10**9 - 1 == receptive_field_top_down(windows)


def test_what_is_not_a_window_is_refused():
    with pytest.raises(
        TypeError, match=r"expected a Window\(kernel, stride, padding\), got \(3, 1"
    ):
        receptive_field([(3, 1)])
