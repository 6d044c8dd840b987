"""Parameters, operations, batches and times against the plain loops."""

import math
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxd2l.geometry import (
    conv_macs,
    conv_parameters,
    conv_transpose_macs,
    dense_parameters,
    iterations_per_epoch,
    last_batch_size,
    pool_cost,
    pool_output_size,
    queue_times,
    recurrent_parameters,
)
from jaxd2l.testing import stacks, windows


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


@given(
    st.lists(stacks(windows(3, 3, 2, 2), max_windows=1, extra=5), min_size=1, max_size=2),
    st.integers(1, 2),
    st.booleans(),
)
def test_conv_counts_are_those_of_the_loops(drawn, groups, bias):
    axes, size = len(drawn), tuple(n for _, n in drawn)
    kernel, stride, padding, dilation = (
        tuple(getattr(w, name) for [w], _ in drawn)
        for name in ("kernel", "stride", "padding", "dilation")
    )
    c_in, c_out = 2 * groups, groups
    ours = conv_macs(size, kernel, c_in, c_out, stride, padding, dilation, groups, bias)
    assert ours == count_conv(
        size, kernel, c_in, c_out, stride, padding, dilation, groups, int(bias)
    )
    if axes == 1:
        flat = (a[0] for a in (stride, padding, dilation))
        assert conv_macs(size[0], kernel[0], c_in, c_out, *flat, groups, bias) == ours


@given(
    st.lists(stacks(windows(transposed=True), max_windows=1, extra=3), min_size=1, max_size=2),
    st.booleans(),
)
def test_transposed_counts_are_those_of_the_scatter(drawn, bias):
    windows, sizes = [w for [w], _ in drawn], [n for _, n in drawn]
    outs = [w.output_size(n) for w, n in zip(windows, sizes, strict=True)]
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
