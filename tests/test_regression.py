"""Closed forms: least squares and ridge against NumPy and scikit-learn, and what they spend."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from jaxd2l.data import k_folds
from jaxd2l.ops.linear import dense
from jaxd2l.ops.regression import effective_parameters, linear_regression, ridge_regression

draw = np.random.RandomState(0)
X, Y = draw.randn(12, 3) * [1, 1, 0.02] + 2, draw.randn(12, 2)
WIDE, FEW = draw.randn(4, 6), draw.randn(4)
FAST = {"xla_backend_optimization_level": 0}  # to compile
LINEAR = jax.jit(linear_regression, compiler_options=FAST)
RIDGE = jax.jit(ridge_regression, compiler_options=FAST)


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
        fit = jax.tree.map(np.asarray, LINEAR(x, y))
        np.testing.assert_allclose(fit.kernel, kernel, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(fit.bias, bias, rtol=1e-9)
        wanted = LinearRegression().fit(x, y).predict(x)
        np.testing.assert_allclose(x @ fit.kernel + fit.bias, wanted, rtol=1e-9)
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
    strengths = np.array([1e-2, 1e-4, 1e-6, 1e-8])
    many = jax.jit(jax.vmap(ridge_regression, (None, None, 0)), compiler_options=FAST)
    kernels = np.asarray(many(WIDE, FEW, strengths).kernel)
    away = np.abs(kernels - kernel).max(1)
    np.testing.assert_allclose(away[:-1] / away[1:], 100, rtol=0.05)  # proportional to strength
    sizes = np.linalg.norm(kernels, axis=1)
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
    """In both modes, against differences; as wide as there are rows, so that the rank is short."""

    def both(x, y, c):
        linear, ridge = linear_regression(x, y), ridge_regression(x, y, c)
        return jnp.concatenate([linear.kernel, linear.bias[None], ridge.kernel, ridge.bias[None]])

    at = (X[:3], Y[:3, 0], np.array(0.5))
    reverse = jax.jit(jax.jacrev(both, (0, 1, 2)), compiler_options=FAST)(*at)
    forward = jax.jit(jax.jacfwd(both, (0, 1, 2)), compiler_options=FAST)(*at)
    program = jax.jit(both, compiler_options=FAST)
    for number, argument in enumerate(at):
        np.testing.assert_allclose(reverse[number], forward[number], rtol=1e-8, atol=1e-8)
        way = np.array(np.random.RandomState(number).randn(*np.shape(argument)))
        ends = [program(*at[:number], argument + t * way, *at[number + 1 :]) for t in (1e-5, -1e-5)]
        wanted = np.subtract(*ends) / 2e-5
        found = np.tensordot(forward[number], way, np.ndim(way))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtypes_stay_and_nothing_is_promoted(strict_promotion, dtype):
    x, y = jnp.asarray(X[:6], dtype), jnp.asarray(Y[:6], dtype)
    for fit in (LINEAR(x, y), RIDGE(x, y, 0.1)):
        assert fit.kernel.dtype == fit.bias.dtype == dtype
    wanted, _ = smallest(np.asarray(x, np.float64), np.asarray(y, np.float64))
    tolerance = 1e-4 if dtype == jnp.float32 else 1e-2
    np.testing.assert_allclose(np.asarray(LINEAR(x, y).kernel, float), wanted, rtol=tolerance)


def test_effective_parameters(x64):
    y = jnp.asarray(Y[:, 0])

    def fitted(y, strength):
        fit = linear_regression(X, y) if strength is None else ridge_regression(X, y, strength)
        return X @ fit.kernel + fit.bias

    @functools.partial(jax.jit, compiler_options=FAST)
    def spent(y):
        each = [effective_parameters(lambda y, c=c: fitted(y, c), y) for c in (None, 0.1, 10.0)]
        return jnp.stack(each)

    s2 = np.linalg.svd(X - X.mean(0), compute_uv=False) ** 2
    wanted = [4, *(1 + (s2 / (s2 + c)).sum() for c in (0.1, 10.0))]
    np.testing.assert_allclose(spent(y), wanted, rtol=1e-10)
    with pytest.raises(ValueError, match="one prediction for each of the 12 targets"):
        effective_parameters(jnp.sum, y)
    with pytest.raises(ValueError, match=r"y must have shape \(n,\)"):
        effective_parameters(lambda y: y, X)


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


def test_the_mean_error_over_folds_is_unbiased_for_the_smaller_training_part(x64):
    # C83: for normal inputs the error of a fit on m examples is known in closed form
    n, d, k = 20, 4, 5
    folds = k_folds(n, k)
    train, valid = (np.stack(part) for part in zip(*folds, strict=True))
    assert np.bincount(valid.ravel()).tolist() == [1] * n  # every example validates once

    def one(x, y):
        fit = linear_regression(x[train[0]], y[train[0]])
        return jnp.square(x[valid[0]] @ fit.kernel + fit.bias - y[valid[0]]).mean()

    def mean_error(x, y):
        shifts = jnp.arange(k) * (n // k)  # the folds are the first one, of rows that move round
        return jax.vmap(lambda s: one(jnp.roll(x, -s, 0), jnp.roll(y, -s)))(shifts).mean()

    draw = np.random.RandomState(1)
    x = draw.randn(1500, n, d)
    y = x @ np.ones(d) + draw.randn(1500, n)
    found = np.asarray(jax.jit(jax.vmap(mean_error), compiler_options=FAST)(x, y))

    def known(m):
        return (1 + 1 / m) * (m - 2) / (m - d - 2)

    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - known(n - n // k)) < 3 * error
    assert found.mean() - known(n) > 5 * error  # too dark for the model trained on all
