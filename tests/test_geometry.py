"""Sizes, receptive fields and counts against lax, PyTorch, brute force and gradient support."""

import ast
import math
import runpy
import sys
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from jaxd2l import geometry
from jaxd2l.geometry import (
    ReceptiveField,
    Window,
    conv_macs,
    conv_output_size,
    conv_parameters,
    conv_transpose_macs,
    conv_transpose_output_size,
    dense_parameters,
    feature_sizes,
    iterations_per_epoch,
    last_batch_size,
    pool_cost,
    pool_output_size,
    queue_times,
    receptive_field,
    receptive_field_top_down,
    recurrent_parameters,
    same_padding,
)

GOLDEN = Path(__file__).parent / "golden"

pads = st.tuples(st.integers(0, 3), st.integers(0, 3))
ordinary = st.builds(Window, st.integers(1, 5), st.integers(1, 3), pads, st.integers(1, 3))


@st.composite
def transposed(draw, gaps=True):
    kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 3)) if gaps else 1
    extra = draw(st.integers(0, max(stride, dilation) - 1))
    kernel = kernel if gaps else max(kernel, stride)
    return Window(kernel, stride, draw(pads), dilation, True, extra)


def sizes_or_zero(function, *args):
    try:
        return function(*args)
    except ValueError:
        return 0


# Output sizes


@settings(max_examples=150)
@given(st.integers(1, 40), ordinary)
def test_sizes_are_those_of_lax(n, w):
    """C104: the floor formula, with dilation and unequal padding."""
    assume(n + sum(w.sides) >= w.effective_kernel)
    x, kernel = jax.ShapeDtypeStruct((1, n, 1), "float32"), jnp.zeros((w.kernel, 1, 1))
    conv = jax.eval_shape(
        lambda x: lax.conv_general_dilated(
            x, kernel, (w.stride,), [w.sides], None, (w.dilation,), ("NWC", "WIO", "NWC")
        ),
        x,
    )
    assert conv_output_size(n, w.kernel, w.stride, w.padding, w.dilation) == conv.shape[1]
    pool = jax.eval_shape(
        lambda x: lax.reduce_window(
            x, 0.0, lax.add, (1, w.kernel, 1), (1, w.stride, 1), [(0, 0), w.sides, (0, 0)],
            window_dilation=(1, w.dilation, 1),
        ),
        x,
    )  # fmt: skip
    assert pool_output_size(n, w.kernel, w.stride, w.padding, w.dilation) == pool.shape[1]


@settings(max_examples=100)
@given(st.integers(1, 12), transposed())
def test_transposed_sizes_are_those_of_lax(n, w):
    """C105: with explicit padding k-1-p on a dilated input."""
    k, (low, high) = w.effective_kernel, w.sides
    args = n, w.kernel, w.stride, w.padding, w.output_padding, w.dilation
    if not sizes_or_zero(conv_transpose_output_size, *args):
        return
    out = jax.eval_shape(
        lambda x: lax.conv_general_dilated(
            x,
            jnp.zeros((w.kernel, 1, 1)),
            (1,),
            [(k - 1 - low, k - 1 - high + w.output_padding)],
            (w.stride,),
            (w.dilation,),
            ("NWC", "WIO", "NWC"),
        ),
        jax.ShapeDtypeStruct((1, n, 1), "float32"),
    )
    assert conv_transpose_output_size(*args) == out.shape[1]


def test_lax_conv_transpose_valid_differs_for_kernels_below_the_stride():
    """C105: lax pads such outputs to n*s; PyTorch's and ours are (n-1)*s + k."""
    x, kernel = jnp.zeros((1, 5, 1)), jnp.zeros((2, 1, 1))
    out = jax.eval_shape(
        lambda x: lax.conv_transpose(
            x, kernel, (3,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
        ),
        x,
    )
    assert out.shape[1] == 15
    assert conv_transpose_output_size(5, 2, 3) == 14


@settings(max_examples=150)
@given(st.integers(1, 30), ordinary, st.booleans())
def test_sizes_count_window_positions(n, w, ceil_mode):
    """Floor: windows that fit. Ceil: one more for what is left, if it starts before the padding."""
    low, high = w.sides
    end, k = n + low + high, w.effective_kernel
    starts = [i for i in range(0, end, w.stride) if i + k <= end]
    if ceil_mode and (starts[-1] + k if starts else k - w.stride) < end:
        extra = starts[-1] + w.stride if starts else 0
        starts += [extra] if extra < n + low else []
    assert sizes_or_zero(w.output_size, n, ceil_mode) == len(starts)


def test_sizes_are_those_of_pytorch():
    """C106: both roundings, the clip and output_padding, and the same refusals."""
    make = runpy.run_path(str(GOLDEN / "make_geometry.py"))
    with np.load(GOLDEN / "geometry.npz", allow_pickle=False) as golden:
        pools, transposes = golden["pool"].tolist(), golden["transpose"].tolist()
    ours = [sizes_or_zero(pool_output_size, *a[:5], bool(a[5])) for a in make["pool_grid"]()]
    assert ours == pools
    ours = [sizes_or_zero(conv_transpose_output_size, *a) for a in make["transpose_grid"]()]
    assert ours == transposes
    assert 0 < sum(map(bool, pools)) < len(pools)


def test_pool_rounding_depends_on_the_mode():
    """C106, E12: pools round down by default and up only in Caffe's mode, which clips."""
    assert pool_output_size(112, 3, 2) == 55
    assert pool_output_size(112, 3, 2, ceil_mode=True) == 56
    assert pool_output_size(10, 2, 4, ceil_mode=True) == 3  # ceil(8/4) + 1, whole
    assert pool_output_size(9, 2, 5, ceil_mode=True) == 2  # ceil(7/5) + 1 = 3 would start at 10
    assert pool_output_size(6, 2, 2, padding=1, ceil_mode=True) == 4
    assert pool_output_size(2, 3, 2, ceil_mode=True) == 1  # hangs over, as in PyTorch
    assert pool_output_size(8, 2) == 4


@given(st.integers(1, 50), st.integers(1, 9), st.integers(1, 4))
def test_same_padding_keeps_the_size(n, k, d):
    """C110, F57: (k-1)/2 on both sides for odd kernels only; even ones need unequal sides."""
    low, high = same_padding(k, d)
    assert conv_output_size(n, k, 1, (low, high), d) == n
    assert (low == high) == ((k - 1) * d % 2 == 0)
    assert 0 <= high - low <= 1
    for s in (2, 3):
        assert conv_output_size(n, k, s, (low, high), d) == -(-n // s)


def test_no_symmetric_padding_keeps_the_size_of_an_even_kernel():
    """C110, E13."""
    for k in (2, 4, 6):
        assert all(conv_output_size(20, k, 1, p) != 20 for p in range(k))
    assert same_padding(2) == (0, 1)
    assert same_padding(3, dilation=2) == (2, 2)


@settings(max_examples=100)
@given(st.integers(1, 20), transposed())
def test_transposed_is_the_inverse_of_the_size(n, w):
    """A convolution with the same window takes the transposed size back to n."""
    out = sizes_or_zero(w.output_size, n)
    assume(out)
    back = Window(w.kernel, w.stride, w.padding, w.dilation)
    if w.output_padding < w.stride:
        assert back.output_size(out) == n


# Receptive fields, against index sets that are followed down window by window


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
@given(st.lists(st.one_of(ordinary, transposed()), max_size=4))
def test_field_of_mixed_stacks(windows):
    """Any mixture, with holes and dilated transposed windows: exact for every unit."""
    assume(math.prod(w.stride for w in windows if w.transposed) <= 27)
    field = check_field(windows)
    assert receptive_field_top_down(windows) >= field.size


@settings(max_examples=150)
@given(
    st.lists(ordinary, max_size=2),
    st.lists(transposed(gaps=False), max_size=3),
    st.lists(ordinary.filter(lambda w: w.stride == 1 and w.dilation == 1), max_size=2),
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
@given(
    st.lists(st.one_of(ordinary, transposed()), max_size=2),
    st.lists(st.one_of(ordinary, transposed()), max_size=2),
)
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
    for windows, n, size in ((alexnet, 227, 163), (mixed, 60, None)):
        field = receptive_field(windows)
        if size:
            assert field.size == size
        rows = jax.jit(jax.jacrev(lambda x, windows=windows: run(windows, x)))(jnp.ones((1, n, 1)))
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


# Counts


def count_conv(size, kernel, c_in, c_out, stride, padding, dilation, groups, bias):
    """Multiplications and additions of the plain loops."""
    positions = [
        len([i for i in range(0, n + sum(p), s) if i + (k - 1) * d < n + sum(p)])
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    ]
    multiplications = additions = 0
    for _ in product(range(c_out), *map(range, positions)):
        terms = 0
        for _ in product(range(c_in // groups), *map(range, kernel)):
            multiplications += 1
            terms += 1
        additions += terms - 1 + bias
    return multiplications, additions


@given(st.data(), st.integers(1, 2), st.integers(1, 2), st.booleans())
def test_conv_counts_are_those_of_the_loops(data, axes, groups, bias):
    def draw(low, high):
        return tuple(data.draw(st.integers(low, high)) for _ in range(axes))

    size, kernel, stride, dilation = draw(5, 8), draw(1, 3), draw(1, 3), draw(1, 2)
    padding = tuple(data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in size)
    c_in, c_out = 2 * groups, groups
    ours = conv_macs(size, kernel, c_in, c_out, stride, padding, dilation, groups, bias)
    assert ours == count_conv(
        size, kernel, c_in, c_out, stride, padding, dilation, groups, int(bias)
    )
    if axes == 1:
        flat = (a[0] for a in (stride, padding, dilation))
        assert conv_macs(size[0], kernel[0], c_in, c_out, *flat, groups, bias) == ours


@given(st.data(), st.integers(1, 2), st.booleans())
def test_transposed_counts_are_those_of_the_scatter(data, axes, bias):
    windows = [data.draw(transposed()) for _ in range(axes)]
    sizes = [data.draw(st.integers(1, 4)) for _ in range(axes)]
    outs = [sizes_or_zero(w.output_size, n) for w, n in zip(windows, sizes, strict=True)]
    assume(all(outs))
    terms = {}
    for place in product(*map(range, sizes)):
        for taps in product(*(range(w.kernel) for w in windows)):
            out = tuple(
                j * w.stride - w.sides[0] + w.dilation * t
                for j, t, w in zip(place, taps, windows, strict=True)
            )
            if all(0 <= i < n for i, n in zip(out, outs, strict=True)):
                terms[out] = terms.get(out, 0) + 4 // 2
    multiplications = 6 * sum(terms.values())
    additions = 6 * sum(m - 1 + bias for m in terms.values())
    names = ("kernel", "stride", "padding", "dilation", "output_padding")
    args = {name: tuple(getattr(w, name) for w in windows) for name in names}
    ours = conv_transpose_macs(sizes, in_channels=4, out_channels=6, groups=2, bias=bias, **args)
    assert ours == (multiplications, additions)


def test_conv_counts_of_the_exercise():
    """F8: ci 3, co 8, 32 x 32, k 3, p 1: 221184 products; 212992 additions, 221184 with bias."""
    assert conv_macs((32, 32), (3, 3), 3, 8, padding=1, bias=False) == (221184, 212992)
    assert conv_macs((32, 32), (3, 3), 3, 8, padding=1) == (221184, 221184)


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.booleans())
def test_pool_cost_counts_the_loops(n, k, s, c, ceil_mode):
    assume(n >= k)
    reads = operations = divisions = 0
    for _ in range(c * pool_output_size(n, k, s, ceil_mode=ceil_mode) ** 2):
        reads += k * k
        operations += k * k - 1
        divisions += 1
    cost = pool_cost((n, n), (k, k), c, s, ceil_mode=ceil_mode)
    assert cost == (reads, operations, 0)
    average = pool_cost((n, n), (k, k), c, s, ceil_mode=ceil_mode, average=True)
    assert average == (reads, operations, divisions)


def test_pool_cost_of_the_notes_lacks_the_window_area():
    """C143, E25: c*((h - p_h + p_h + s_h)/s_h)*(...) counts outputs, of a padding p_h in all."""
    h, p, s = 10, 3, 2
    notes = (h - p + p + s) / s
    assert notes == 6 == (h - p + p + s) // s == pool_output_size(h, p, s, (1, 2))
    assert pool_output_size(h, p, s, p) == 7  # a padding of p on each side
    cost = pool_cost((h, h), (p, p), 1, s, ((1, 2), (1, 2)))
    assert cost.reads == notes * notes * p * p
    assert cost.operations == notes * notes * (p * p - 1)
    assert (h - p + p + 3) / 3 != (h - p + p + 3) // 3  # and it needs a floor


@pytest.mark.parametrize(("kind", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
@pytest.mark.parametrize("biases", [0, 1, 2])
def test_recurrent_parameters_count_the_arrays(kind, gates, biases):
    d, h = 8, 32
    shapes = [(d, h), (h, h), *[(h,)] * biases] * gates
    assert recurrent_parameters(kind, d, h, biases) == sum(map(math.prod, shapes))


def test_parameters_of_the_notes():
    """F7: 5248 and 3936 for d = 8, h = 32; groups divide the kernel."""
    assert recurrent_parameters("lstm", 8, 32) == 5248
    assert recurrent_parameters("gru", 8, 32) == 3936
    assert conv_parameters((3, 3), 64, 128) == 64 * 3 * 3 * 128 + 128
    assert conv_parameters((3, 3), 64, 128, groups=4, bias=False) == 16 * 9 * 128
    assert conv_parameters(3, 2, 5) == 35
    assert dense_parameters(120, 84, bias=False) == 120 * 84


@given(st.integers(0, 200), st.integers(1, 20), st.booleans())
def test_iterations_count_the_batches(examples, batch, drop_last):
    """F24, E72: samples = iterations * batch only if the batch divides the samples."""
    batches = [min(batch, examples - i) for i in range(0, examples, batch)]
    if drop_last:
        batches = [b for b in batches if b == batch]
    assert iterations_per_epoch(examples, batch, drop_last) == len(batches)
    assert last_batch_size(examples, batch, drop_last) == (batches or [0])[-1]
    whole = iterations_per_epoch(examples, batch) * batch == examples
    assert whole == (examples % batch == 0)


@given(st.integers(1, 50), *[st.fractions(0, 5, max_denominator=4)] * 3)
def test_queue_times_are_those_of_the_events(tasks, issue, compute, fetch):
    """F44: the frontend issues in a row; the backend starts a task when both are ready."""
    issued = done = Fraction(0)
    for _ in range(tasks):
        issued += issue
        done = max(issued, done) + compute
    times = queue_times(tasks, issue, compute, fetch)
    assert times == (tasks * (issue + compute + fetch), done + fetch)
    if compute >= issue:
        assert times.asynchronous == issue + tasks * compute + fetch
    if tasks * compute > (tasks - 1) * issue:  # the assumption of the notes: within one t1
        notes = issue + tasks * compute + fetch
        assert 0 <= times.asynchronous - notes <= issue


# Arguments


def test_numpy_integers_are_integers():
    assert Window(np.int64(3), np.uint8(2), np.int32(1)) == Window(3, 2, 1)
    assert type(conv_output_size(np.int64(9), 3)) is int
    assert type(last_batch_size(np.int64(9), np.int64(4), True)) is int
    assert Window(3, padding=[1, 2]) == Window(3, padding=(1, 2))


def test_feature_sizes_say_which_window_failed():
    with pytest.raises(ValueError, match="larger than the padded input") as caught:
        feature_sizes(8, [Window(3, 2), Window(5)])
    assert caught.value.__notes__ == [f"at window 1: {Window(5)}"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: conv_output_size(4, 7, 1, 1),
            ValueError,
            r"kernel 7 is larger .* 6 = 1 \+ 4 \+ 1",
        ),
        (lambda: conv_output_size(4, 3, dilation=3), ValueError, r"kernel 7 \(3 dilated by 3\)"),
        (lambda: pool_output_size(1, 3, 2, ceil_mode=True), ValueError, "kernel 3 is larger"),
        (lambda: conv_output_size(4, 2, 0), ValueError, "stride must be at least 1, got 0"),
        (lambda: conv_output_size(4, 0), ValueError, "kernel must be at least 1, got 0"),
        (lambda: conv_output_size(0, 1), ValueError, "size must be at least 1, got 0"),
        (lambda: conv_output_size(4, 2, padding=-1), ValueError, "padding must be .* 0, got -1"),
        (lambda: Window(2, padding=(0, -2)), ValueError, r"padding \(high\) .* got -2"),
        (lambda: Window(2, padding=(1, 2, 3)), ValueError, r"integer or \(low, high\), got \(1, 2"),
        (lambda: conv_output_size(4, 2, dilation=0), ValueError, "dilation must be .* 1, got 0"),
        (lambda: conv_output_size(4, 2.0), TypeError, "kernel must be an integer, got 2.0"),
        (lambda: conv_output_size(4, True), TypeError, "kernel must be an integer, got True"),
        (lambda: Window(2, stride=np.True_), TypeError, "stride must be an integer"),
        (lambda: conv_output_size("4", 2), TypeError, "size must be an integer, got '4'"),
        (lambda: Window(2, transposed=1), TypeError, "transposed must be True or False, got 1"),
        (lambda: Window(2, output_padding=1), ValueError, "belongs to a transposed window, got 1"),
        (lambda: Window(2, 2, transposed=True, output_padding=2), ValueError, "= 2, got 2"),
        (lambda: conv_transpose_output_size(1, 3, 1, 2), ValueError, "crops the whole .* give -1"),
        (
            lambda: Window(2, transposed=True).output_size(3, True),
            ValueError,
            "ceil_mode does not apply",
        ),
        (
            lambda: ReceptiveField().union(receptive_field([Window(1, 2)])),
            ValueError,
            "different jumps cannot be joined: 1 and 2",
        ),
        (lambda: conv_parameters((3, 3), 4, 6, 4), ValueError, "divide out_channels, got groups 4"),
        (lambda: conv_parameters((3, 3), 3, 6, 2), ValueError, "divide in_channels, got groups 2"),
        (lambda: conv_parameters((3, 3), 0, 6), ValueError, "in_channels must be .* got 0"),
        (
            lambda: conv_macs((8, 8), (3,), 1, 1),
            ValueError,
            r"kernel must be .* 2 of them, got \(3",
        ),
        (lambda: conv_macs((8, 8), 3, 1, 1, padding=(1,)), ValueError, r"2 entries .* got \(1,\)"),
        (lambda: conv_macs((8, 2), (3, 3), 1, 1), ValueError, "kernel 3 is larger"),
        (lambda: pool_cost((8, 8), 2, 0), ValueError, "channels must be at least 1, got 0"),
        (lambda: dense_parameters(0, 1), ValueError, "in_features must be at least 1, got 0"),
        (lambda: recurrent_parameters("elman", 1, 1), ValueError, "kind must be .* got 'elman'"),
        (lambda: recurrent_parameters("gru", 1, 1, -1), ValueError, "biases must be .* got -1"),
        (lambda: iterations_per_epoch(10, 0), ValueError, "batch_size must be at least 1, got 0"),
        (lambda: last_batch_size(-1, 2), ValueError, "examples must be at least 0, got -1"),
        (lambda: geometry.kernel_stack_ratio([]), ValueError, "at least one kernel size"),
        (lambda: geometry.ngram_table_size(0, 2), ValueError, "vocabulary must be .* got 0"),
        (lambda: geometry.ngram_count_limit(5, 0), ValueError, "order must be at least 1, got 0"),
        (lambda: geometry.input_size_rule(-1), ValueError, "halvings must be at least 0, got -1"),
        (lambda: queue_times(5, 1, -2, 0), ValueError, "compute must be at least 0, got -2"),
        (lambda: queue_times(5, 1, 2, Fraction(-1, 2)), ValueError, "fetch must be .* got -1/2"),
        (lambda: queue_times(5, 0.5, 2, 1), TypeError, "issue must be an integer"),
        (lambda: geometry.bottleneck_ratio(3, 4, 0, 4), ValueError, "out_channels must be"),
    ],
)
def test_nonsense_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_geometry_imports_only_the_standard_library():
    tree = ast.parse(Path(geometry.__file__).read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
        )
    }
    assert names <= sys.stdlib_module_names


def test_windows_are_frozen_and_hashable():
    assert len({Window(3, 2, 1), Window(3, 2, (1, 1)), Window(3)}) == 2
    with pytest.raises(AttributeError):
        Window(3).stride = 2
    fields = [receptive_field([Window(3, 2)] * n) for n in range(4)]
    assert all(a.size < b.size for a, b in pairwise(fields))
