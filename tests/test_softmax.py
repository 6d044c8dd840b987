"""Softmax, log-softmax, log-sum-exp: stability, parity, and the claims of the notes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads

from jaxd2l.ops import softmax as ops

softmax = jax.jit(ops.softmax, static_argnames="axis")
log_softmax = jax.jit(ops.log_softmax, static_argnames="axis")
logsumexp = jax.jit(ops.logsumexp, static_argnames=("axis", "keepdims"))


GOLDEN = Path(__file__).parent / "golden" / "activations.npz"
logits5 = hnp.arrays(np.float32, 5, elements=st.floats(-200, 200, width=32))


def naive_softmax(x):
    return jnp.exp(x) / jnp.exp(x).sum()


def golden_inputs():
    draw = np.random.RandomState(2)
    logits, weights = 10 * draw.randn(4, 5), draw.randn(4, 5)
    logits[0] = [1000.0, 2000.0, 3000.0, 4000.0, 5000.0]
    return jnp.asarray(logits), jnp.asarray(weights)


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("softmax", softmax),
        ("softmax_axis0", lambda x: softmax(x, axis=0)),
        ("log_softmax", log_softmax),
        ("logsumexp", logsumexp),
    ],
)
def test_values_and_gradients_equal_pytorch(name, f, x64):
    x, weights = golden_inputs()
    want = np.load(GOLDEN, allow_pickle=False)
    if name == "logsumexp":
        weights = weights[:, 0]
    np.testing.assert_allclose(f(x), want[name], rtol=1e-12, atol=1e-300)
    got = jax.grad(lambda x: (f(x) * weights).sum())(x)
    np.testing.assert_allclose(got, want[f"{name}_grad"], rtol=1e-10, atol=1e-14)


MASK = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], bool)
OPS = {
    "softmax": ops.softmax,
    "softmax_first_axis": lambda x: ops.softmax(x, axis=0),
    "softmax_where": lambda x: ops.softmax(x, where=jnp.asarray(MASK)),
    "softmax_where_one_row": lambda x: ops.softmax(x, where=jnp.asarray(MASK[:1])),
    "log_softmax": ops.log_softmax,
    "logsumexp": ops.logsumexp,
    "logsumexp_all": lambda x: ops.logsumexp(x, axis=None),
    "logsumexp_keepdims": lambda x: ops.logsumexp(x, axis=(0, 1), keepdims=True),
}


def together(x):
    return {name: f(x) for name, f in OPS.items()}


def test_derivatives_of_first_and_second_order(x64):
    x = jnp.asarray(np.random.RandomState(0).randn(3, 4))
    names = ("softmax_where", "log_softmax", "logsumexp")

    @jax.jit
    def everything(x):
        return jnp.concatenate([y.ravel() for y in together(x).values()])

    @jax.jit
    def some(x):
        return jnp.concatenate([OPS[name](x).ravel() for name in names])

    check_grads(everything, (x,), order=1, modes=("fwd", "rev"))
    check_grads(some, (x,), order=2, modes=("fwd", "rev"))


def test_jit_and_dtype_under_strict_promotion(strict_promotion):
    for dtype, tol in ((jnp.float32, 1e-6), (jnp.bfloat16, 0.03)):
        x = jnp.asarray(np.random.RandomState(0).randn(3, 4), dtype)
        compiled = jax.jit(together)(x)
        for name, y in together(x).items():
            assert y.dtype == compiled[name].dtype == dtype, name
            np.testing.assert_allclose(
                np.float32(compiled[name]), np.float32(y), rtol=tol, atol=tol, err_msg=name
            )


def test_vmap_equals_the_batch():
    x = jnp.asarray(np.random.RandomState(0).randn(3, 4), jnp.float32)
    np.testing.assert_allclose(jax.vmap(softmax)(x), softmax(x), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(log_softmax)(x), log_softmax(x), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(logsumexp)(x), logsumexp(x), rtol=1e-6)
    masked = jax.vmap(lambda x, m: softmax(x, where=m))(x, jnp.asarray(MASK))
    np.testing.assert_allclose(masked, softmax(x, where=jnp.asarray(MASK)), rtol=1e-6)


def test_shapes_of_logsumexp():
    x = jnp.asarray(np.random.RandomState(0).randn(2, 3, 4), jnp.float32)
    for axis in (-1, 0, (0, 2), None):
        want = np.log(np.exp(np.float64(x)).sum(axis=axis))
        got = logsumexp(x, axis=axis)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5)
    assert logsumexp(x, axis=(0, 2), keepdims=True).shape == (1, 3, 1)


# ---- Masks -------------------------------------------------------------------------------------


def test_masked_entries_get_nothing_and_give_nothing():
    x = jnp.asarray([[1.0, jnp.nan, 2.0, 900.0], [1.0, 2.0, jnp.inf, 4.0], [5.0, 0.0, 1.0, 2.0]])
    mask = jnp.asarray([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], bool)
    p, pull = jax.vjp(lambda x: softmax(x, where=mask), x)
    first = np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum()
    want = [[first[0], 0, first[1], 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    np.testing.assert_allclose(p, want, rtol=1e-6)
    (g,) = pull(jnp.asarray(np.random.RandomState(0).randn(3, 4), jnp.float32))
    assert jnp.isfinite(g).all()
    assert (np.asarray(g)[~np.asarray(mask)] == 0).all()
    assert np.abs(g[0, 0]) > 0.01


@given(logits5, hnp.arrays(bool, 5))
def test_masked_softmax_is_the_softmax_of_the_valid_entries(x, mask):
    p = np.asarray(softmax(jnp.asarray(x), where=jnp.asarray(mask)))
    assert (p[~mask] == 0).all()
    if mask.any():
        e = np.exp(np.float64(x[mask]) - x[mask].max())
        np.testing.assert_allclose(p[mask], e / e.sum(), rtol=1e-4, atol=1e-30)


def test_errors_about_masks_and_types():
    x = jnp.ones((2, 3))
    with pytest.raises(TypeError, match=r"softmax: where must be boolean .* got float32"):
        softmax(x, where=x)
    with pytest.raises(
        ValueError, match=r"where must broadcast to the shape of x, \(2, 3\), got \(2,\)"
    ):
        softmax(x, where=jnp.ones(2, bool))
    for f in (ops.softmax, ops.log_softmax, ops.logsumexp):
        with pytest.raises(TypeError, match=rf"{f.__name__}: x must be floating point, got int32"):
            f(jnp.ones(3, int))


# ---- Claims of the notes -----------------------------------------------------------------------


def test_the_printed_softmax_values():
    got = softmax(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    np.testing.assert_allclose(got, [0.0117, 0.0317, 0.0861, 0.2341, 0.6364], atol=5e-5)


def test_the_naive_softmax_overflows_and_ours_does_not():
    x = jnp.array([1000.0, 2000.0, 3000.0, 4000.0, 5000.0])
    assert jnp.isnan(naive_softmax(x)).any()
    np.testing.assert_array_equal(softmax(x), [0, 0, 0, 0, 1])
    assert jnp.isnan(naive_softmax(jnp.full(3, -1000.0))).all()  # underflow: 0 / 0
    np.testing.assert_allclose(softmax(jnp.full(3, -1000.0)), 1 / 3, rtol=1e-6)


@given(logits5, st.floats(-100, 100), st.floats(0.25, 8))
def test_a_shift_changes_nothing_also_with_a_temperature(x, shift, temperature):
    x = jnp.asarray(x)
    np.testing.assert_allclose(softmax(x + shift), softmax(x), atol=1e-4)
    np.testing.assert_allclose(
        softmax((x + shift) / temperature), softmax(x / temperature), atol=2e-4
    )


@given(logits5)
def test_probabilities_are_not_negative_and_sum_to_1(x):
    p = softmax(jnp.asarray(x))
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(), 1, atol=1e-5)
    np.testing.assert_allclose(np.exp(log_softmax(jnp.asarray(x))), p, rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(
        log_softmax(jnp.asarray(x)), jnp.asarray(x) - logsumexp(jnp.asarray(x)), atol=1e-4
    )


def test_a_probability_can_be_exactly_0():
    """The notes say softmax never yields 0: true on paper, false in floating point."""
    x = jnp.array([0.0, 1000.0])
    assert softmax(x)[0] == 0
    np.testing.assert_array_equal(log_softmax(x), [-1000, 0])
    assert jnp.log(softmax(x))[0] == -jnp.inf  # -inf, not NaN ...
    assert jnp.isnan(jax.grad(lambda x: jnp.log(softmax(x))[0])(x)).any()  # ... until it is learned
    np.testing.assert_allclose(jax.grad(lambda x: log_softmax(x)[0])(x), [1, -1])


def test_the_constant_in_log_p_plus_1e_5_is_a_wrong_answer_for_small_p():
    x = jnp.array([0.0, 30.0])
    wrong = -jnp.log(softmax(x)[0] + 1e-5)
    assert float(wrong) == pytest.approx(11.51, abs=0.01)
    assert float(-log_softmax(x)[0]) == pytest.approx(30.0, abs=1e-4)
    assert abs(float(jax.grad(lambda x: -jnp.log(softmax(x)[0] + 1e-5))(x)[1])) < 1e-6
    assert float(jax.grad(lambda x: -log_softmax(x)[0])(x)[1]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("dtype", "finite", "infinite"),
    [(np.float16, 11.0, 11.1), (np.float32, 88.7, 88.75), (np.float64, 709.75, 709.8)],
)
def test_where_exp_overflows(dtype, finite, infinite, x64):
    assert jnp.isfinite(jnp.exp(jnp.asarray(finite, dtype)))
    assert jnp.isinf(jnp.exp(jnp.asarray(infinite, dtype)))


def test_exp_50_does_not_overflow_except_in_half_precision():
    """The notes hint that exp(50) overflows: it is 5.18e21."""
    assert float(jnp.exp(jnp.float32(50))) == pytest.approx(5.1847e21, rel=1e-4)
    assert jnp.isinf(jnp.exp(jnp.float16(50)))
    assert softmax(jnp.array([50.0, 0.0], jnp.float16))[0] == 1


def test_logs_of_zero_are_minus_infinity_not_nan():
    assert logsumexp(jnp.full(3, -jnp.inf)) == -jnp.inf
    np.testing.assert_array_equal(jax.grad(logsumexp)(jnp.full(3, -jnp.inf)), [0, 0, 0])
    x = jnp.array([[-jnp.inf, 1.0], [-jnp.inf, -jnp.inf]])
    np.testing.assert_array_equal(logsumexp(x), [1, -jnp.inf])
    np.testing.assert_array_equal(jax.grad(lambda x: logsumexp(x)[0])(x), [[0, 1], [0, 0]])
    assert logsumexp(jnp.array([1.0, jnp.inf])) == jnp.inf


@given(logits5)
def test_the_jacobian_of_softmax(x):
    p = np.asarray(softmax(jnp.asarray(x)))
    want = np.diag(p) - np.outer(p, p)  # p_i (delta_ij - p_j)
    np.testing.assert_allclose(jacobian(jnp.asarray(x)), want, atol=1e-6)


jacobian = jax.jit(jax.jacobian(softmax))


@given(logits5, hnp.arrays(np.float32, 5, elements=st.floats(0, 2, width=32)))
def test_the_gradient_of_cross_entropy_is_p_times_the_sum_of_y_minus_y(x, y):
    g = cross_entropy_gradient(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(g, softmax(jnp.asarray(x)) * y.sum() - y, atol=1e-5)


cross_entropy_gradient = jax.jit(jax.grad(lambda x, y: -jnp.sum(y * log_softmax(x))))


def test_the_gradient_of_cross_entropy_by_finite_differences(x64):
    x, label = jnp.asarray(np.random.RandomState(0).randn(5)), 2
    step = 1e-6

    def loss(x):
        return -log_softmax(x)[label]

    numeric = [(loss(x.at[j].add(step)) - loss(x.at[j].add(-step))) / (2 * step) for j in range(5)]
    want = softmax(x) - jax.nn.one_hot(label, 5)
    np.testing.assert_allclose(numeric, want, atol=1e-8)
    np.testing.assert_allclose(jax.grad(loss)(x), want, atol=1e-12)
