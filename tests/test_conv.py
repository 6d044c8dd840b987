"""conv and conv_transpose: PyTorch's values, the closed forms, the claims of the notes, errors."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads

from jaxd2l import geometry
from jaxd2l.geometry import Window, receptive_field
from jaxd2l.ops.conv import conv, conv_transpose
from jaxd2l.ops.conv_primitive import swap_channels
from jaxd2l.ops.windows import make_windows, paddings, per_axis
from jaxd2l.testing import windows

GOLDEN = np.load(Path(__file__).parent / "golden" / "conv.npz", allow_pickle=False)
CASES = json.loads(str(GOLDEN["cases"]))


def draw(seed, *shapes, dtype=np.float32):
    rs = np.random.RandomState(seed)
    return [jnp.asarray(rs.randn(*shape).astype(dtype)) for shape in shapes]


# --- PyTorch ---------------------------------------------------------------------------------


def channels_last(a):
    return np.moveaxis(a, 1, -1)


def our_kernel(weight, kind, groups):
    """The layout mapping of the docstrings, for any number of axes."""
    if kind == "conv":  # (out, c/g, *k)
        return np.moveaxis(weight, (0, 1), (-1, -2))
    c, out, *k = weight.shape  # (c, out/g, *k)
    split = weight.reshape(groups, c // groups, out, *k)
    return np.moveaxis(split, (1, 0, 2), (-3, -2, -1)).reshape(*k, c // groups, groups * out)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['kind']}-{c['seed']}")
def test_values_and_gradients_are_pytorchs(case, strict_promotion):
    kind, options = case["kind"], dict(case["options"])
    c, out, k = case["c"], case["out"], case["k"]
    groups = options.get("groups", 1)
    rs = np.random.RandomState(case["seed"])
    x = rs.randn(2, c, *case["size"]).astype(np.float32)
    shape = (out, c // groups) if kind == "conv" else (c, out // groups)
    weight, bias = rs.randn(*shape, *k).astype(np.float32), rs.randn(out).astype(np.float32)

    def golden(name):
        return GOLDEN[f"{case['seed']}_{name}"]

    cotangent = rs.randn(*golden("y").shape).astype(np.float32)
    function = conv if kind == "conv" else conv_transpose

    @jax.jit
    def run(x, kernel, bias):
        def f(x, kernel, bias):
            return function(x, kernel, bias if case["bias"] else None, **options)

        y, back = jax.vjp(f, x, kernel, bias)
        return y, *back(jnp.asarray(channels_last(cotangent)))

    y, dx, dw, db = run(channels_last(x), our_kernel(weight, kind, groups), bias)
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(y, channels_last(golden("y")), **close)
    np.testing.assert_allclose(dx, channels_last(golden("dx")), **close)
    np.testing.assert_allclose(dw, our_kernel(golden("dw"), kind, groups), **close)
    if case["bias"]:
        np.testing.assert_allclose(db, golden("db"), **close)


# --- an oracle by definition -----------------------------------------------------------------


def by_definition(x, kernel, windows, groups):
    """One output at a time, one tap at a time, in NumPy."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    n, c, out = x.shape[0], x.shape[-1], kernel.shape[-1]
    sizes = [w.output_size(s) for w, s in zip(windows, x.shape[1:-1], strict=True)]
    y = np.zeros((n, *sizes, out))
    for place in np.ndindex(*sizes):
        for tap in np.ndindex(*kernel.shape[:-2]):
            at = tuple(
                i * w.stride + j * w.dilation - w.sides[0]
                for i, j, w in zip(place, tap, windows, strict=True)
            )
            if any(not 0 <= a < s for a, s in zip(at, x.shape[1:-1], strict=True)):
                continue
            for o in range(out):
                group = o // (out // groups)
                seen = x[(slice(None), *at)][:, group * (c // groups) : (group + 1) * (c // groups)]
                y[(slice(None), *place, o)] += seen @ kernel[tap][:, o]
    return y


@given(st.lists(windows(max_kernel=3), min_size=1, max_size=2), st.sampled_from([1, 2]))
def test_conv_is_its_definition_and_has_the_size_of_geometry(drawn, groups):
    x, kernel = draw(0, (2, *(7, 8)[: len(drawn)], 2), (*(w.kernel for w in drawn), 2 // groups, 2))
    arguments = {
        name: tuple(getattr(w, name) for w in drawn) for name in ("stride", "padding", "dilation")
    }
    y = conv(x, kernel, **arguments, groups=groups)
    np.testing.assert_allclose(y, by_definition(x, kernel, drawn, groups), rtol=1e-4, atol=1e-5)


@given(st.integers(1, 40), windows(9, 5, 5), st.integers(0, 4))
def test_sizes_are_the_formulas_for_every_argument(n, window, extra):
    """C104, C105: shapes only, so nothing is compiled; lax is the judge for conv."""
    k, s, d, (low, high) = window.kernel, window.stride, window.dilation, window.sides
    kernel = jax.ShapeDtypeStruct((k, 1, 1), jnp.float32)
    x = jax.ShapeDtypeStruct((1, n, 1), jnp.float32)
    arguments = {"stride": s, "padding": ((low, high),), "dilation": d}
    span = (k - 1) * d + 1
    if span <= n + low + high:
        got = jax.eval_shape(lambda x, w: conv(x, w, **arguments), x, kernel).shape[1]
        judge = jax.eval_shape(
            lambda x, w: lax.conv_general_dilated(
                x, w, (s,), ((low, high),), None, (d,), ("NWC", "WIO", "NWC")
            ),
            x,
            kernel,
        )
        assert got == judge.shape[1] == (n + low + high - span) // s + 1
    else:
        with pytest.raises(ValueError, match="larger than the padded input"):
            jax.eval_shape(lambda x, w: conv(x, w, **arguments), x, kernel)
    wanted = (n - 1) * s - low - high + span + extra
    if extra < max(s, d) and wanted >= 1:
        got = jax.eval_shape(
            lambda x, w: conv_transpose(x, w, output_padding=extra, **arguments), x, kernel
        )
        assert got.shape[1] == wanted


def test_laxs_valid_transposed_convolution_differs_where_the_kernel_is_below_the_stride():
    """C105."""
    x, kernel = jnp.ones((1, 4, 1)), jnp.ones((2, 1, 1))
    assert conv_transpose(x, kernel, stride=3).shape[1] == (4 - 1) * 3 + 2
    theirs = lax.conv_transpose(x, kernel, (3,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))
    assert theirs.shape[1] == 4 * 3


# --- transposes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "size", "extra"),
    [
        ({"stride": 1}, (6, 5), 0),
        ({"stride": 2, "padding": 1}, (7, 5), (0, 1)),
        ({"stride": (2, 3), "padding": ((1, 0), 2), "groups": 2}, (8, 9), (0, 2)),
        ({"stride": 2, "dilation": 2, "groups": 4}, (8, 6), 1),
        ({"padding": "same"}, (5, 4), 0),
        ({"padding": "full", "dilation": 2}, (5, 4), 0),
    ],
)
def test_conv_transpose_is_the_adjoint(arguments, size, extra, x64):
    """<Kx, y> = <x, K'y>, and K' is what jax's own transposition of conv computes (L9)."""
    groups = arguments.get("groups", 1)
    x, kernel = draw(1, (2, *size, 4), (3, 2, 4 // groups, 8), dtype=np.float64)
    forward, back = jax.vjp(lambda x: conv(x, kernel, **arguments), x)
    (y,) = draw(2, forward.shape, dtype=np.float64)
    returned = conv_transpose(y, swap_channels(kernel, groups), output_padding=extra, **arguments)
    assert returned.shape == x.shape
    np.testing.assert_allclose((forward * y).sum(), (x * returned).sum(), rtol=1e-10)
    np.testing.assert_allclose(returned, back(y)[0], atol=1e-12)


def test_check_grads(x64):
    x, kernel, bias = draw(3, (2, 5, 2), (2, 2, 3), (3,), dtype=np.float64)
    for function in (conv, conv_transpose):
        f = jax.jit(lambda *a, function=function: jnp.sin(function(*a, stride=2, padding=1)))
        check_grads(f, (x, kernel, bias), order=1)


def test_strict_promotion_jit_and_vmap(strict_promotion):
    x, kernel, bias = draw(4, (3, 2, 6, 5, 2), (3, 2, 2, 4), (4,))
    for function in (conv, conv_transpose):
        one = jax.jit(lambda x, function=function: function(x, kernel, bias, stride=2))
        each = jnp.stack([one(a) for a in x])
        np.testing.assert_allclose(jax.vmap(one)(x), each, rtol=1e-5, atol=1e-6)
        assert (
            function(
                x[0].astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), bias.astype(jnp.bfloat16)
            ).dtype
            == jnp.bfloat16
        )


# --- arguments -------------------------------------------------------------------------------


def test_window_arguments():
    assert per_axis(2, 2, "stride") == (2, 2)
    assert per_axis([1, 2], 2, "stride") == (1, 2)
    assert paddings(1, (3, 3), (1, 1)) == ((1, 1), (1, 1))
    assert paddings((1, 2), (3, 3), (1, 1)) == ((1, 1), (2, 2))  # per axis, not (low, high)
    assert paddings(((1, 2), (1, 2)), (3, 3), (1, 1)) == ((1, 2), (1, 2))
    assert paddings([(1, 2), 0], (3, 3), (1, 1)) == ((1, 2), (0, 0))
    assert paddings("valid", (3,), (1,)) == ((0, 0),)
    assert paddings("full", (3, 2), (2, 1)) == ((4, 4), (1, 1))
    assert paddings("same", (4,), (3,)) == ((4, 5),)
    assert make_windows(2, 3, (1, 2), "same") == (Window(3, 1, (1, 1)), Window(3, 2, (1, 1)))
    assert make_windows(1, 3, 2, 1, 1, True, 1) == (Window(3, 2, (1, 1), 1, True, 1),)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: per_axis((1, 2, 3), 2, "stride"), ValueError, r"stride .* one per axis \(2 axes"),
        (lambda: per_axis(0, 2, "stride"), ValueError, "stride must be at least 1, got 0"),
        (lambda: per_axis(1.5, 2, "stride"), TypeError, "stride must be an integer, got 1.5"),
        (lambda: per_axis("2", 1, "stride"), TypeError, "stride must be an integer"),
        (lambda: paddings("SAME", (3,), (1,)), ValueError, "'same', 'valid' or 'full'"),
        (lambda: paddings(-1, (3,), (1,)), ValueError, "padding must be at least 0, got -1"),
        (lambda: paddings((1,), (3, 3), (1, 1)), ValueError, "one entry per axis"),
        (lambda: paddings(((1, 2, 3),), (3,), (1,)), ValueError, r"an int or \(low, high\)"),
        (lambda: paddings((1.0,), (3,), (1,)), TypeError, "padding must be an integer"),
    ],
)
def test_bad_window_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


X, K = jnp.zeros((2, 5, 6, 4)), jnp.zeros((3, 3, 4, 8))


@pytest.mark.parametrize("function", [conv, conv_transpose])
@pytest.mark.parametrize(
    ("x", "kernel", "bias", "options", "error", "message"),
    [
        (X[..., :3], K, None, {}, ValueError, r"\(2, 5, 6, 3\) has 3 channels.*\(3, 3, 4, 8\)"),
        (X, K, None, {"groups": 2}, ValueError, "groups = 2 takes 8"),
        (X, K[:, :, :2], None, {"groups": 3}, ValueError, "groups = 3 must divide .* 4 .* 8"),
        (X, K, None, {"groups": 0}, ValueError, "groups must be at least 1, got 0"),
        (X, K[0], None, {}, ValueError, r"x \(2, 5, 6, 4\) and kernel \(3, 4, 8\)"),
        (X, K[0, 0], None, {}, ValueError, r"one to three spatial axes.*\(4, 8\)"),
        (X, K, jnp.zeros(4), {}, ValueError, r"bias must have shape \(8,\).*got \(4,\)"),
        (X, K, jnp.zeros((1, 8)), {}, ValueError, r"bias must have shape \(8,\)"),
        (X, K.astype(jnp.bfloat16), None, {}, TypeError, "x and kernel .* float32 and bfloat16"),
        (X, K, jnp.zeros(8, jnp.float16), {}, TypeError, "x and bias .* float32 and float16"),
        (X.astype(int), K.astype(int), None, {}, TypeError, "must be floating point, got int32"),
        (X, K, None, {"stride": 0}, ValueError, "stride must be at least 1"),
        (X, K, None, {"padding": -1}, ValueError, "padding must be at least 0"),
    ],
)
def test_bad_arrays(function, x, kernel, bias, options, error, message):
    with pytest.raises(error, match=message) as caught:
        function(x, kernel, bias, **options)
    if not options or "groups" in options:
        assert str(caught.value).startswith(function.__name__)


def test_windows_that_do_not_fit():
    with pytest.raises(ValueError, match=r"conv: spatial axis 1: kernel 3 is larger.*\(1, 4, 2, 4"):
        conv(jnp.zeros((1, 4, 2, 4)), K)
    with pytest.raises(ValueError, match=r"conv_transpose: spatial axis 0: padding .* crops"):
        conv_transpose(jnp.zeros((1, 1, 1, 4)), K, padding=3)
    with pytest.raises(ValueError, match="output_padding must be below max"):
        conv_transpose(X, K, output_padding=1)


# --- the shape assertion ---------------------------------------------------------------------


@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_a_shape_that_geometry_does_not_predict_is_noticed(function, monkeypatch):
    right = Window.output_size
    monkeypatch.setattr(geometry.Window, "output_size", lambda self, n: right(self, n) + 1)
    with pytest.raises(AssertionError, match=f"{function.__name__}: geometry predicts"):
        function(X, K)
    with pytest.raises(AssertionError, match=f"{function.__name__}: geometry predicts"):
        jax.eval_shape(lambda x: function(x, K), X)


def test_the_assertion_leaves_no_trace():
    def names(function):
        return [e.primitive.name for e in jax.make_jaxpr(function)(X, K).jaxpr.eqns]

    assert names(conv) == ["conv"]
    assert names(conv_transpose) == ["rev", "conv"]


# --- what the notes say ----------------------------------------------------------------------


def test_several_input_channels_are_summed():
    """L7, E63 ("the kernel of all results"): the sum. Printed in D2L 7.4."""
    x = jnp.stack([jnp.arange(9.0).reshape(3, 3), jnp.arange(1.0, 10.0).reshape(3, 3)], -1)[None]
    k = jnp.stack([jnp.arange(4.0).reshape(2, 2), jnp.arange(1.0, 5.0).reshape(2, 2)], -1)
    y = conv(x, k[..., None])
    assert y[0, :, :, 0].tolist() == [[56.0, 72.0], [104.0, 120.0]]
    apart = sum(conv(x[..., c : c + 1], k[..., c : c + 1, None]) for c in range(2))
    np.testing.assert_array_equal(y, apart)
    three = conv(x, jnp.stack([k, k + 1, k + 2], -1))
    assert jnp.moveaxis(three[0], -1, 0).tolist() == [
        [[56.0, 72.0], [104.0, 120.0]],
        [[76.0, 100.0], [148.0, 172.0]],
        [[96.0, 128.0], [192.0, 224.0]],
    ]


def test_the_kernel_needs_an_axis_for_the_input_channels():
    """L3, E23: weights of shape (channels, 1) + kernel_size work for one input channel only."""
    assert conv(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2))).shape == (1, 2, 2, 2)
    with pytest.raises(ValueError, match="3 channels"):
        conv(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 1, 2)))


def test_padding_and_stride_of_d2l():
    """L6: D2L 7.3."""
    x = jnp.ones((1, 8, 8, 1))
    assert conv(x, jnp.ones((3, 3, 1, 1)), padding=1).shape == (1, 8, 8, 1)
    assert conv(x, jnp.ones((5, 3, 1, 1)), padding=(2, 1)).shape == (1, 8, 8, 1)
    assert conv(x, jnp.ones((3, 3, 1, 1)), padding=1, stride=2).shape == (1, 4, 4, 1)
    assert conv(x, jnp.ones((3, 5, 1, 1)), padding=(0, 1), stride=(3, 4)).shape == (1, 2, 2, 1)


def test_transposed_convolution_of_d2l():
    """L9: D2L 14.10."""
    x, k = jnp.arange(4.0).reshape(1, 2, 2, 1), jnp.arange(4.0).reshape(2, 2, 1, 1)
    assert conv_transpose(x, k, padding=1)[0, :, :, 0].tolist() == [[4.0]]
    assert conv_transpose(x, k, stride=2)[0, :, :, 0].tolist() == [
        [0.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 2.0, 3.0],
        [0.0, 2.0, 0.0, 3.0],
        [4.0, 6.0, 6.0, 9.0],
    ]


def test_a_one_by_one_convolution_is_a_dense_layer_at_each_pixel():
    """L8, C112."""
    x, k = draw(5, (2, 4, 5, 3), (1, 1, 3, 6))
    np.testing.assert_allclose(
        conv(x, k), jnp.einsum("nhwc,co->nhwo", x, k[0, 0]), rtol=1e-5, atol=1e-6
    )


def test_a_kernel_as_large_as_the_input_is_a_dense_layer():
    """L22, C175."""
    x, k = draw(6, (2, 4, 5, 3), (4, 5, 3, 6))
    y = conv(x, k)
    assert y.shape == (2, 1, 1, 6)
    np.testing.assert_allclose(
        y.reshape(2, 6), x.reshape(2, -1) @ k.reshape(-1, 6), rtol=1e-4, atol=1e-5
    )


def test_convolution_shares_weights_and_sees_locally_and_a_dense_layer_does_not():
    """E52: "no different from a fully connected layer" is false: count and support differ."""
    x, k = draw(7, (1, 6, 6, 1), (3, 3, 1, 1))
    jacobian = jax.jacobian(lambda x: conv(x, k, padding=1).ravel())(x).reshape(36, 36)
    assert k.size == 9
    assert int((jacobian[14] != 0).sum()) == 9  # of 36 inputs
    assert len(np.unique(np.asarray(jacobian[jacobian != 0]))) == 9  # 256 entries, 9 numbers


def test_stacked_convolutions_are_one_convolution():
    """C20: exact without padding; with zeros around, the border differs."""
    x, a, b = draw(8, (1, 9, 9, 2), (3, 3, 2, 4), (3, 3, 4, 3))
    # the composed kernel: a's taps as images, through b reversed
    images = jnp.moveaxis(a, 2, 0)  # (c, kh, kw, middle)
    composed = jnp.moveaxis(conv(images, b[::-1, ::-1], padding="full"), 0, 2)
    assert composed.shape == (5, 5, 2, 3)
    np.testing.assert_allclose(conv(conv(x, a), b), conv(x, composed), rtol=1e-3, atol=1e-4)
    two, one = conv(conv(x, a, padding=1), b, padding=1), conv(x, composed, padding=2)
    differ = abs(two - one).max(-1)[0] > 1e-2
    assert not differ[1:-1, 1:-1].any()
    assert bool(differ[0].any())
    assert bool(differ[:, -1].any())
    # and a ReLU in between breaks it everywhere
    bent = conv(jax.nn.relu(conv(x, a)), b)
    assert float(abs(bent - conv(x, composed)).max()) > 1


def test_scalar_layers_compose():
    """C20: f(x) = 2x + 3 three times is 8x + 21."""
    x = jnp.asarray([0.0, 1.0, -2.0]).reshape(3, 1, 1)
    y = x
    for _ in range(3):
        y = conv(y, jnp.full((1, 1, 1), 2.0), jnp.full((1,), 3.0))
    np.testing.assert_array_equal(y, 8 * x + 21)


def test_the_gradient_reaches_what_the_receptive_field_says():
    """C107, with ones for kernels so that nothing cancels."""
    windows = [Window(5, 1, 2), Window(2, 2), Window(3, 2, 1), Window(3, 1, 0, 2)]
    field = receptive_field(windows)

    def net(x):
        for w in windows:
            x = conv(
                x,
                jnp.ones((w.kernel, 1, 1)),
                stride=w.stride,
                padding=(w.sides,),
                dilation=w.dilation,
            )
        return x[0, :, 0]

    x = jnp.ones((1, 64, 1))
    reached = jax.jacobian(net)(x)[:, 0, :, 0]
    for unit in range(2, reached.shape[0] - 2):
        seen = np.flatnonzero(reached[unit])
        assert (seen[0], seen[-1]) == field.interval(unit)


def test_convolution_is_equivariant_to_shifts():
    """C113, with circular padding; with zeros around only the border differs."""
    x, k = draw(9, (1, 8, 8, 2), (3, 3, 2, 3))

    def circular(x):
        return conv(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap"), k)

    moved = jnp.roll(x, (2, -3), (1, 2))
    np.testing.assert_allclose(
        circular(moved), jnp.roll(circular(x), (2, -3), (1, 2)), rtol=1e-5, atol=1e-5
    )
    zeros = conv(moved, k, padding=1) - jnp.roll(conv(x, k, padding=1), (2, -3), (1, 2))
    assert float(abs(zeros).max()) > 0.1


def test_depthwise_separable_and_factorised_forms():
    """L18-L20: groups = channels, then 1x1; parameters divided by g; 1xk then kx1 is a product."""
    x, depth, point = draw(10, (2, 6, 6, 4), (3, 3, 1, 4), (1, 1, 4, 8))
    y = conv(conv(x, depth, padding=1, groups=4), point)
    each = [conv(x[..., c : c + 1], depth[..., c : c + 1], padding=1) for c in range(4)]
    np.testing.assert_allclose(y, conv(jnp.concatenate(each, -1), point), rtol=1e-4, atol=1e-5)
    assert jnp.zeros((3, 3, 4 // 2, 8)).size * 2 == jnp.zeros((3, 3, 4, 8)).size
    row, column = draw(11, (1, 3, 1, 1), (3, 1, 1, 1))
    single = x[..., :1]
    np.testing.assert_allclose(
        conv(conv(single, row), column), conv(single, row * column), rtol=1e-4, atol=1e-5
    )


def test_groups_with_a_shuffle_mix_channels():
    """L19: without the shuffle, two group convolutions never mix the groups."""
    x, a, b = draw(12, (1, 3, 3, 4), (1, 1, 2, 4), (1, 1, 2, 4))

    def net(x, shuffle):
        y = conv(x, a, groups=2)
        if shuffle:
            y = y.reshape(1, 3, 3, 2, 2).swapaxes(-1, -2).reshape(1, 3, 3, 4)
        return conv(y, b, groups=2)[0, 0, 0]

    plain = jax.jacobian(lambda x: net(x, False))(x)[:, 0, 0, 0]
    mixed = jax.jacobian(lambda x: net(x, True))(x)[:, 0, 0, 0]
    assert not plain[:2, 2:].any()
    assert not plain[2:, :2].any()
    assert bool((mixed != 0).all())


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_one_two_and_three_dimensions(rank):
    """L30: a kernel constant along further axes of extent one is the lower-dimensional one."""
    x, k = draw(13, (2, 6, 2), (3, 2, 4))
    higher = conv(x.reshape(2, 6, *(1,) * (rank - 1), 2), k.reshape(3, *(1,) * (rank - 1), 2, 4))
    np.testing.assert_allclose(higher.reshape(2, 4, 4), conv(x, k), rtol=1e-5, atol=1e-6)
