"""Activations: PyTorch parity, transforms, dtypes, and what the notes claim about them."""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxd2l.ops import activations as act
from jaxd2l.ops.initializers import HeNormal, XavierUniform
from jaxd2l.ops.linear import dense

GOLDEN = Path(__file__).parent / "golden" / "activations.npz"
EXTREMES = [-100.0, -50.0, -20.0, -5.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 5.0, 20.0, 50.0, 100.0]
POINTS = np.concatenate([EXTREMES, 3 * np.random.RandomState(0).randn(27)])

ELEMENTWISE = {
    "elu": act.elu,
    "elu_alpha_half": lambda x: act.elu(x, 0.5),
    "gelu": act.gelu,
    "gelu_approximate": lambda x: act.gelu(x, approximate=True),
    "identity": act.identity,
    "leaky_relu": act.leaky_relu,
    "leaky_relu_slope_0.2": lambda x: act.leaky_relu(x, 0.2),
    "relu": act.relu,
    "relu6": act.relu6,
    "selu": act.selu,
    "sigmoid": act.sigmoid,
    "softplus": act.softplus,
    "swish": act.swish,
    "tanh": act.tanh,
}

# Every function of one array (n, 6); the smooth ones are checked to second order anywhere, the
# others away from their kinks.
ALL = {
    **ELEMENTWISE,
    "maxout": lambda x: act.maxout(x, 3),
    "prelu": lambda x: act.prelu(x, jnp.linspace(0.1, 0.6, 6, dtype=x.dtype)),
    "rbf": lambda x: act.rbf(x, jnp.eye(6, dtype=x.dtype), jnp.arange(1, 7).astype(x.dtype)),
    "rbf_single": lambda x: act.rbf(x, jnp.ones(6, x.dtype), 2.0),
    "swish_beta": lambda x: act.swish(x, jnp.linspace(0.5, 2.0, 6, dtype=x.dtype)),
    "swish_1.5": lambda x: act.swish(x, 1.5),
    "gumbel_softmax": lambda x: act.gumbel_softmax(jax.random.key(3), x, 0.7),
}

small = st.floats(-30, 30, allow_nan=False, allow_subnormal=False, width=32)


def golden():
    return np.load(GOLDEN, allow_pickle=False)


@cache
def measured(dtype):
    """Values and derivatives of every elementwise function at the points, compiled together."""
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(POINTS, dtype)
        together = jax.jit(
            lambda x: {
                name: (f(x), jax.vjp(f, x)[1](jnp.ones_like(x))[0])
                for name, f in ELEMENTWISE.items()
            }
        )
        return jax.tree.map(np.asarray, together(x))


def numpy_gelu(x):
    from math import erf

    return np.array([v * 0.5 * (1 + erf(v / np.sqrt(2))) for v in x])


NUMPY = {
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "gelu": numpy_gelu,
    "identity": lambda x: x,
    "leaky_relu": lambda x: np.maximum(x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "selu": lambda x: (
        1.0507009873554804 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(np.minimum(x, 0)) - 1))
    ),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "tanh": lambda x: (1 - np.exp(-2 * x)) / (1 + np.exp(-2 * x)),
}


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_values_and_derivatives_equal_pytorch(name):
    want, (y, slope) = golden(), measured("float64")[name]
    assert y.dtype == slope.dtype == np.float64
    np.testing.assert_allclose(y, want[name], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(slope, want[f"{name}_grad"], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_float32_and_bfloat16_stay_near_float64(name):
    want, (y, slope) = golden(), measured("float32")[name]
    assert y.dtype == slope.dtype == jnp.float32
    np.testing.assert_allclose(y, want[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope, want[f"{name}_grad"], rtol=1e-5, atol=2e-6)
    half, half_slope = measured("bfloat16")[name]
    assert half.dtype == half_slope.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(half), want[name], rtol=0.03, atol=0.03)


@pytest.mark.parametrize("name", sorted(NUMPY))
def test_named_activation_equals_its_formula_in_numpy(name):
    x = np.linspace(-20, 20, 81, dtype=np.float32)
    np.testing.assert_allclose(
        act.ACTIVATIONS[name](jnp.asarray(x)), NUMPY[name](np.float64(x)), rtol=1e-5, atol=1e-6
    )


def test_the_table_of_names():
    assert sorted(act.ACTIVATIONS) == sorted([*NUMPY, "softmax", "log_softmax"])
    with pytest.raises(TypeError):
        act.ACTIVATIONS["mine"] = act.relu


def test_prelu_equals_pytorch(x64):
    draw, want = np.random.RandomState(1), golden()
    x, slope, weights = map(jnp.asarray, (draw.randn(4, 3), draw.rand(3), draw.randn(4, 3)))
    np.testing.assert_allclose(act.prelu(x, slope), want["prelu"], rtol=1e-14)
    gx, gs = jax.grad(lambda x, a: (act.prelu(x, a) * weights).sum(), (0, 1))(x, slope)
    np.testing.assert_allclose(gx, want["prelu_x"], rtol=1e-14)
    np.testing.assert_allclose(gs, want["prelu_slope"], rtol=1e-13)
    one = jnp.asarray(0.25)
    np.testing.assert_allclose(act.prelu(x, one), act.leaky_relu(x, 0.25), rtol=1e-14)


def test_derivatives_in_both_modes(x64):
    """All at once: one program is compiled where each alone would take several."""
    x = jnp.asarray(np.random.RandomState(4).permutation(np.linspace(-2.1, 2.3, 12)).reshape(2, 6))

    @jax.jit
    def everything(x, temperature):
        cold = act.gumbel_softmax(jax.random.key(0), x, temperature)
        return jnp.concatenate([f(x).ravel() for f in ALL.values()] + [cold.ravel()])

    check_grads(everything, (x, jnp.asarray(0.7)), order=1, modes=("fwd", "rev"))


def test_second_derivatives_of_what_is_not_jax_nn(x64):
    x = jnp.asarray(np.random.RandomState(4).permutation(np.linspace(-2.1, 2.3, 6)).reshape(2, 3))
    arguments = (x, jnp.linspace(0.5, 2.0, 3), jnp.asarray(np.eye(3)))

    @jax.jit
    def everything(x, positive, centres):
        results = [
            act.leaky_relu(x),
            act.maxout(x, 3),
            act.prelu(x, positive),
            act.swish(x, positive),
            act.rbf(x, centres, positive),
        ]
        return jnp.concatenate([y.ravel() for y in results])

    check_grads(everything, arguments, order=2, modes=("fwd", "rev"))


def test_jit_vmap_and_dtype_under_strict_promotion(strict_promotion):
    @jax.jit
    def together(x):
        return {name: (f(x), jax.vmap(f)(x)) for name, f in ALL.items()}

    for dtype, tol in ((jnp.float32, 1e-6), (jnp.bfloat16, 0.02)):
        x = jnp.asarray(np.random.RandomState(6).randn(3, 6), dtype)
        for name, (y, mapped) in together(x).items():
            assert y.dtype == dtype, name
            if dtype == jnp.float32:
                np.testing.assert_allclose(ALL[name](x), y, rtol=tol, atol=tol, err_msg=name)
            if name != "gumbel_softmax":  # its noise depends on the shape of the logits
                np.testing.assert_allclose(
                    np.float32(mapped), np.float32(y), rtol=tol, atol=tol, err_msg=name
                )


@pytest.mark.parametrize("name", sorted(set(ALL) - {"identity"}))
def test_integers_are_refused(name):
    with pytest.raises(TypeError, match=r": (x|logits) must be floating point, got int32"):
        ALL[name](jnp.ones((2, 6), jnp.int32))


# ---- Formulas and claims -----------------------------------------------------------------------


@given(small)
def test_identities_of_sigmoid_tanh_and_softplus(x):
    x = jnp.float32(x)
    s, t = act.sigmoid(x), act.tanh(x)
    np.testing.assert_allclose(t, 2 * act.sigmoid(2 * x) - 1, atol=1e-6)
    np.testing.assert_allclose(act.softplus(x) - act.softplus(-x), x, atol=1e-5, rtol=1e-6)
    assert max(0.0, float(x)) <= float(act.softplus(x)) <= max(0.0, float(x)) + np.log(2) + 1e-6
    np.testing.assert_allclose(s, 1 / (1 + np.exp(-np.float64(x))), rtol=1e-5)


@given(small)
def test_derivatives_have_the_forms_and_bounds_of_the_notes(x):
    s, t, ds, dt, dsoftplus, drelu, dleaky = map(np.asarray, values_and_derivatives(jnp.float32(x)))
    np.testing.assert_allclose(ds, s * (1 - s), atol=1e-7)
    np.testing.assert_allclose(dt, 1 - t * t, atol=1e-6)
    np.testing.assert_allclose(dsoftplus, s, rtol=1e-5, atol=1e-12)
    assert 0 <= ds <= 0.25
    assert 0 <= dt <= 1
    assert drelu == float(x > 0)
    assert dleaky == (1.0 if x > 0 else np.float32(0.01))


@jax.jit
def values_and_derivatives(x):
    differentiated = (act.sigmoid, act.tanh, act.softplus, act.relu, act.leaky_relu)
    return act.sigmoid(x), act.tanh(x), *(jax.grad(f)(x) for f in differentiated)


def test_the_bounds_on_the_derivatives_are_reached_at_zero():
    assert jax.grad(act.sigmoid)(0.0) == 0.25
    assert jax.grad(act.tanh)(0.0) == 1.0


def test_derivatives_at_the_kink():
    at_zero = {name: measured("float64")[name][1][EXTREMES.index(0.0)] for name in ELEMENTWISE}
    assert at_zero["relu"] == at_zero["relu6"] == jax.grad(act.relu6)(6.0) == 0.0
    assert at_zero["leaky_relu"] == pytest.approx(0.01)
    assert at_zero["elu"] == 1.0
    assert at_zero["selu"] == pytest.approx(1.0507009873554804 * 1.6732632423543772)


def test_sigmoid_reaches_0_and_1_in_floating_point():
    """The notes say it never does: true on paper, false in floating point."""
    assert act.sigmoid(jnp.float32(16.5)) < 1
    assert act.sigmoid(jnp.float32(16.75)) == 1
    assert act.sigmoid(jnp.float32(-80)) > 0
    assert act.sigmoid(jnp.float32(-104)) == 0
    with jax.enable_x64(True):
        assert act.sigmoid(jnp.float64(36.5)) < 1
        assert act.sigmoid(jnp.float64(36.75)) == 1
        assert act.sigmoid(jnp.float64(-700)) > 0


def test_the_printed_tanh_formula_overflows_and_ours_does_not():
    def printed(x):
        return (1 - jnp.exp(-2 * x)) / (1 + jnp.exp(-2 * x))

    x = jnp.linspace(-40, 40, 81)
    np.testing.assert_allclose(printed(x), act.tanh(x), atol=1e-6)
    assert jnp.isnan(printed(jnp.float32(-45.0)))
    assert act.tanh(jnp.float32(-45.0)) == -1


def test_values_and_derivatives_stay_finite_far_out():
    x = jnp.asarray([-1e10, -1e4, -1e3, 1e3, 1e4, 1e10])

    @jax.jit
    def together(x):
        return {name: (f(x), jax.vmap(jax.grad(f))(x)) for name, f in ELEMENTWISE.items()}

    for name, results in together(x).items():
        assert np.isfinite(results).all(), name


def stack_gradients(activation, init, depth=20, width=64):
    """|dL/dW_first| / |dL/dW_last| of a deep stack."""
    keys = jax.random.split(jax.random.key(0), depth + 2)
    kernels = [init(k, (width, width)) for k in keys[:depth]]
    x, direction = jax.random.normal(keys[-1], (16, width)), jax.random.normal(keys[-2], (width,))

    @jax.jit
    @jax.grad
    def gradients(kernels):
        h = x
        for kernel in kernels:
            h = activation(dense(h, kernel))
        return (h @ direction).mean()

    g = gradients(kernels)
    return float(jnp.linalg.norm(g[0]) / jnp.linalg.norm(g[-1]))


def test_gradients_vanish_through_sigmoids_only():
    assert stack_gradients(act.sigmoid, XavierUniform()) < 1e-10
    assert 1e-2 < stack_gradients(act.tanh, XavierUniform()) < 1e2
    assert 1e-2 < stack_gradients(act.relu, HeNormal()) < 1e2


def test_half_of_the_relu_outputs_are_zero():
    x = jax.random.normal(jax.random.key(1), (100_000,))
    assert float((act.relu(x) == 0).mean()) == pytest.approx(0.5, abs=0.01)
    assert float((act.sigmoid(x) == 0).mean()) == 0


def test_relu_derivative_is_one_on_the_active_half_only():
    """The notes doubt why ReLU helps: 'the gradient stays 1' holds for x > 0, not for the rest."""
    x = jax.random.normal(jax.random.key(2), (10_000,))
    slopes = jax.vmap(jax.grad(act.relu))(x)
    assert set(np.unique(slopes).tolist()) == {0.0, 1.0}
    assert float(slopes.mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("name", "r2"), [("sigmoid", 0.984), ("tanh", 0.930)])
def test_sigmoid_is_almost_linear_on_normalised_inputs(name, r2):
    z = np.random.RandomState(0).randn(100_000).astype(np.float32)
    correlation = np.corrcoef(z, act.ACTIVATIONS[name](jnp.asarray(z)))[0, 1]
    assert correlation**2 == pytest.approx(r2, abs=0.003)


def test_selu_keeps_mean_0_and_variance_1():
    z = np.random.RandomState(0).randn(400_000)
    y = np.asarray(act.selu(jnp.asarray(z, jnp.float32)))
    assert y.mean() == pytest.approx(0, abs=0.01)
    assert y.var() == pytest.approx(1, abs=0.01)


def test_maxout_takes_neighbouring_features():
    x = np.random.RandomState(0).randn(2, 3, 8).astype(np.float32)
    want = [[[max(row[4 * u : 4 * u + 4]) for u in range(2)] for row in block] for block in x]
    np.testing.assert_array_equal(act.maxout(jnp.asarray(x), 4), np.array(want))
    np.testing.assert_array_equal(act.maxout(jnp.asarray(x), 1), x)


@pytest.mark.parametrize(("second", "other"), [(0.0, act.relu), (0.01, act.leaky_relu)])
def test_maxout_contains_relu_and_leaky_relu(second, other):
    rng = np.random.RandomState(1)
    x, w = jnp.asarray(rng.randn(5, 4), jnp.float32), jnp.asarray(rng.randn(4, 3), jnp.float32)
    both = jnp.stack([w, second * w], axis=-1).reshape(4, 6)  # twice the parameters
    np.testing.assert_allclose(act.maxout(dense(x, both), 2), other(dense(x, w)), atol=1e-6)


def test_rbf_against_loops():
    rng = np.random.RandomState(2)
    x, centres, sigma = rng.randn(2, 3, 4), rng.randn(5, 4), rng.rand(5) + 0.5
    want = np.zeros((2, 3, 5))
    for i, j, k in np.ndindex(want.shape):
        distance = np.sqrt(((x[i, j] - centres[k]) ** 2).sum())
        want[i, j, k] = np.exp(-(distance**2) / (2 * sigma[k] ** 2))
    got = act.rbf(jnp.asarray(x, jnp.float32), *map(jnp.float32, (centres, sigma)))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    one = act.rbf(jnp.asarray(x, jnp.float32), jnp.float32(centres[0]), jnp.float32(sigma[0]))
    np.testing.assert_allclose(one, want[..., 0], rtol=1e-5)
    assert act.rbf(jnp.ones(4), jnp.ones(4)).shape == ()


def test_gumbel_noise_samples_the_softmax():
    p = np.array([0.1, 0.2, 0.3, 0.4])
    n = 40_000
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(p, jnp.float32)), (n, 4))
    y = act.gumbel_softmax(jax.random.key(0), logits, 1.0)
    counts = np.bincount(np.asarray(y.argmax(-1)), minlength=4)
    chi_squared = ((counts - n * p) ** 2 / (n * p)).sum()
    assert chi_squared < 16.3  # 3 degrees of freedom, 0.999
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)


def test_gumbel_softmax_tends_to_one_hot_and_to_uniform():
    logits = jax.random.normal(jax.random.key(1), (200, 4))
    cold = act.gumbel_softmax(jax.random.key(0), logits, 1e-3)
    warm = act.gumbel_softmax(jax.random.key(0), logits, 1e4)
    assert float((cold.max(-1) > 0.99).mean()) > 0.98
    np.testing.assert_allclose(warm, 0.25, atol=1e-3)
    np.testing.assert_array_equal(cold.argmax(-1), warm.argmax(-1))  # the same sample
    columns = act.gumbel_softmax(jax.random.key(0), logits, 1.0, axis=0)
    np.testing.assert_allclose(columns.sum(0), 1, atol=1e-4)


def test_half_precision_gumbel_noise_is_rounded_float32_noise():
    logits = jnp.zeros((50, 8), jnp.bfloat16)
    half = act.gumbel_softmax(jax.random.key(0), logits, 1.0)
    full = act.gumbel_softmax(jax.random.key(0), logits.astype(jnp.float32), 1.0)
    np.testing.assert_allclose(half.astype(jnp.float32), full, atol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: act.prelu(x, jnp.ones(2)),
            r"prelu: slope must be a scalar .* of \(2, 6\), got shape \(2,\)",
        ),
        (
            lambda x: act.swish(x, jnp.ones((2, 6))),
            r"swish: beta must be a scalar .* of \(2, 6\), got shape \(2, 6\)",
        ),
        (
            lambda x: act.maxout(x, 4),
            r"maxout: pieces must be at least 1 and divide the 6 features of x, got 4",
        ),
        (lambda x: act.maxout(x, 0), r"maxout: pieces .* got 0"),
        (lambda x: act.maxout(x[0, 0], 1), r"maxout: x must have shape .* got \(\)"),
        (
            lambda x: act.rbf(x, jnp.ones((2, 5))),
            r"rbf: centres must have shape \(k, d\) or \(d,\) .* got \(2, 5\) and \(2, 6\)",
        ),
        (lambda x: act.rbf(x, jnp.ones((3, 6)), jnp.ones(2)), r"rbf: sigma must be a scalar"),
        (
            lambda x: act.gumbel_softmax(jax.random.key(0), x, 0.0),
            r"gumbel_softmax: temperature must be above 0, got 0\.0",
        ),
    ],
)
def test_errors_say_what_was_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((2, 6)))
