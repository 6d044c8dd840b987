"""Output sizes against lax, PyTorch and brute force; the arguments that geometry refuses."""

import ast
import runpy
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxd2l import geometry
from jaxd2l.geometry import (
    ReceptiveField,
    Window,
    conv_macs,
    conv_output_size,
    conv_parameters,
    conv_transpose_output_size,
    dense_parameters,
    feature_sizes,
    iterations_per_epoch,
    last_batch_size,
    pool_cost,
    pool_output_size,
    queue_times,
    receptive_field,
    recurrent_parameters,
    same_padding,
)
from jaxd2l.testing import stacks, windows

GOLDEN = Path(__file__).parent / "golden"


def sizes_or_zero(function, *args):
    try:
        return function(*args)
    except ValueError:
        return 0


@settings(max_examples=150)
@given(stacks(max_windows=1, extra=40))
def test_sizes_are_those_of_lax(drawn):
    """C104: the floor formula, with dilation and unequal padding."""
    [w], n = drawn
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
@given(stacks(windows(transposed=True), max_windows=1, extra=12))
def test_transposed_sizes_are_those_of_lax(drawn):
    """C105: with explicit padding k-1-p on a dilated input."""
    [w], n = drawn
    k, (low, high) = w.effective_kernel, w.sides
    args = n, w.kernel, w.stride, w.padding, w.output_padding, w.dilation
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
@given(st.integers(1, 30), windows(), st.booleans())
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
@given(stacks(windows(transposed=True), max_windows=1, extra=20))
def test_transposed_is_the_inverse_of_the_size(drawn):
    """A convolution with the same window takes the transposed size back to n."""
    [w], n = drawn
    out = w.output_size(n)
    back = Window(w.kernel, w.stride, w.padding, w.dilation)
    if w.output_padding < w.stride:
        assert back.output_size(out) == n


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
    for path in Path(geometry.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level <= 1, path.name
                names = [] if node.level else [node.module]  # a sibling: from .sizes import Window
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names, (path.name, name)


def test_windows_are_frozen_and_hashable():
    assert len({Window(3, 2, 1), Window(3, 2, (1, 1)), Window(3)}) == 2
    with pytest.raises(AttributeError):
        Window(3).stride = 2
    fields = [receptive_field([Window(3, 2)] * n) for n in range(4)]
    assert all(a.size < b.size for a, b in pairwise(fields))
