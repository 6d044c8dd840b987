"""Closed forms: least squares and ridge against NumPy and scikit-learn, and what they spend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.linear_model import LinearRegression, Ridge

from jaxd2l.ops.linear import dense
from jaxd2l.ops.regression import effective_parameters, linear_regression, ridge_regression

draw = np.random.RandomState(0)
X, Y = draw.randn(12, 3) + 2, draw.randn(12, 2)
WIDE, FEW = draw.randn(4, 6), draw.randn(4)
LINEAR, RIDGE = jax.jit(linear_regression), jax.jit(ridge_regression)


def smallest(x, y):
    """Least squares with a free bias, by NumPy: the kernel of smallest norm."""
    centred = x - x.mean(0)
    kernel = np.linalg.lstsq(centred, y - y.mean(0), rcond=1e-10)[0]
    return kernel, y.mean(0) - x.mean(0) @ kernel


@pytest.mark.smoke
def test_least_squares_is_that_of_scikit_learn_and_of_the_normal_equations(x64):
    fit, model = LINEAR(X, Y), LinearRegression().fit(X, Y)
    np.testing.assert_allclose(fit.kernel, model.coef_.T, rtol=1e-10)
    np.testing.assert_allclose(fit.bias, model.intercept_, rtol=1e-10)
    ones = np.c_[X, np.ones(12)]
    w = np.linalg.inv(ones.T @ ones) @ ones.T @ Y  # F17
    np.testing.assert_allclose(np.vstack([fit.kernel, fit.bias]), w, rtol=1e-9)
    np.testing.assert_allclose(dense(jnp.asarray(X), *fit), ones @ w, rtol=1e-9)
    gradient = ones.T @ (ones @ w - Y) / 12  # of the mean loss: 0 there, and nowhere else
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_targets_without_columns_give_a_kernel_without_columns(x64):
    fit, both = LINEAR(X, Y[:, 0]), LINEAR(X, Y)
    assert (fit.kernel.shape, fit.bias.shape) == ((3,), ())
    np.testing.assert_allclose(fit.kernel, both.kernel[:, 0], rtol=1e-12)
    np.testing.assert_allclose(fit.bias, both.bias[0], rtol=1e-12)


def test_of_equally_good_fits_the_smallest_is_found(x64):
    for x, y in ((WIDE, FEW), (np.c_[X, X[:, 0], np.ones(12)], Y[:, 0])):
        kernel, bias = smallest(x, y)
        fit = linear_regression(x, y)
        np.testing.assert_allclose(fit.kernel, kernel, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(fit.bias, bias, rtol=1e-9)
        np.testing.assert_allclose(
            x @ fit.kernel + fit.bias, LinearRegression().fit(x, y).predict(x), rtol=1e-9
        )
    np.testing.assert_allclose(fit.kernel[0], fit.kernel[3], rtol=1e-9)  # the copies share
    assert abs(fit.kernel[4]) < 1e-12  # a constant column gets nothing


@pytest.mark.parametrize(("x", "y"), [(X, Y), (WIDE, FEW)], ids=["tall", "wide"])
def test_ridge_is_that_of_scikit_learn(x64, x, y):
    for strength in (1e-6, 0.3, 40.0):
        fit, model = RIDGE(x, y, strength), Ridge(alpha=strength, solver="svd").fit(x, y)
        np.testing.assert_allclose(fit.kernel, model.coef_.T, rtol=1e-8)
        np.testing.assert_allclose(fit.bias, model.intercept_, rtol=1e-8)


def test_ridge_is_the_formula_of_the_notes_and_leaves_the_bias_free(x64):
    x, y = X - X.mean(0), Y - Y.mean(0)
    w = np.linalg.inv(x.T @ x + 0.7 * np.eye(3)) @ x.T @ y  # F17
    np.testing.assert_allclose(RIDGE(X, Y, 0.7).kernel, w, rtol=1e-10)
    far = RIDGE(X, Y + 1000, 1e9)
    np.testing.assert_allclose(far.kernel, 0, atol=1e-6)
    np.testing.assert_allclose(far.bias, Y.mean(0) + 1000, rtol=1e-8)


def test_the_limit_of_weak_ridge_is_the_smallest_fit(x64):
    kernel, _ = smallest(WIDE, FEW)
    strengths = jnp.array([1e-2, 1e-4, 1e-6, 1e-8])
    fits = jax.jit(jax.vmap(ridge_regression, (None, None, 0)))(WIDE, FEW, strengths)
    away = np.abs(fits.kernel - kernel).max(1)
    np.testing.assert_allclose(away[:-1] / away[1:], 100, rtol=0.05)  # proportional to strength
    sizes = np.linalg.norm(fits.kernel, axis=1)
    assert (np.diff(sizes) > 0).all()
    assert sizes[-1] < np.linalg.norm(kernel)


def test_ridge_in_float32_loses_no_digits_to_a_square():
    x = np.c_[X[:, 0], X[:, 0] + 1e-3 * X[:, 1]].astype(np.float32)  # condition number about 3000
    y = (x @ np.float32([1, -1])).astype(np.float32)
    wide = x.astype(np.float64) - x.astype(np.float64).mean(0)
    wanted = np.linalg.solve(wide.T @ wide + 1e-6 * np.eye(2), wide.T @ (y - y.mean(dtype=float)))
    ours = np.asarray(RIDGE(x, y, 1e-6).kernel)
    rows = wide.astype(np.float32)
    square = rows.T @ rows + np.float32(1e-6) * np.eye(2, dtype=np.float32)
    naive = np.linalg.solve(square, rows.T @ (y - y.mean()))
    error, naive_error = (np.abs(w - wanted).max() for w in (ours, naive))
    assert error < 0.02
    assert naive_error > 5 * error


def test_derivatives(x64):
    for x, y in ((jnp.asarray(X[:6]), jnp.asarray(Y[:6, 0])), (jnp.asarray(WIDE), FEW)):
        check_grads(linear_regression, (x, jnp.asarray(y)), 1)
    check_grads(ridge_regression, (jnp.asarray(WIDE), jnp.asarray(FEW), jnp.asarray(0.5)), 1)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtypes_stay_and_nothing_is_promoted(strict_promotion, dtype):
    x, y = jnp.asarray(X[:6], dtype), jnp.asarray(Y[:6], dtype)
    for fit in (LINEAR(x, y), RIDGE(x, y, 0.1)):
        assert fit.kernel.dtype == fit.bias.dtype == dtype
    wanted, _ = smallest(np.asarray(x, np.float64), np.asarray(y, np.float64))
    tolerance = 1e-4 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(np.asarray(LINEAR(x, y).kernel, float), wanted, atol=tolerance)


def test_effective_parameters(x64):
    x, y = jnp.asarray(X), jnp.asarray(Y[:, 0])

    def predictions(fit):
        return x @ fit.kernel + fit.bias

    spent = effective_parameters(lambda y: predictions(linear_regression(x, y)), y)
    assert spent == pytest.approx(4, rel=1e-10)
    s2 = np.linalg.svd(X - X.mean(0), compute_uv=False) ** 2
    for strength in (0.1, 10.0):
        spent = effective_parameters(
            lambda y, c=strength: predictions(ridge_regression(x, y, c)), y
        )
        assert spent == pytest.approx(1 + (s2 / (s2 + strength)).sum(), rel=1e-10)
    with pytest.raises(ValueError, match="one prediction for each of the 12 targets"):
        effective_parameters(jnp.sum, y)
    with pytest.raises(ValueError, match=r"y must have shape \(n,\)"):
        effective_parameters(lambda y: y, x)


def test_errors():
    x, y = X.astype(np.float32), Y.astype(np.float32)
    for fit in (linear_regression, lambda x, y: ridge_regression(x, y, 1.0)):
        with pytest.raises(TypeError, match=r"x must be floating point, got int32"):
            fit(jnp.ones((3, 2), int), y)
        with pytest.raises(ValueError, match=r"x must have shape \(n, d\), got \(12,\)"):
            fit(x[:, 0], y)
        with pytest.raises(ValueError, match="same number of rows, at least one"):
            fit(x[:5], y)
        with pytest.raises(ValueError, match="no empty axis"):
            fit(x[:, :0], y)
    for strength in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="strength must be above 0"):
            ridge_regression(x, y, strength)
    with pytest.raises(ValueError, match=r"one number, got shape \(2,\); use jax.vmap"):
        ridge_regression(x, y, jnp.ones(2))
