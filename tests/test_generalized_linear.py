"""Generalised linear models against scikit-learn and SciPy; data without a best fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from sklearn.linear_model import LogisticRegression, PoissonRegressor

from jaxd2l.ops.generalized_linear import (
    BERNOULLI,
    GAUSSIAN,
    POISSON,
    fit_generalized_linear,
    generalized_linear,
    logit,
)
from jaxd2l.ops.regression import linear_regression

draw = np.random.RandomState(0)
X = draw.randn(60, 3) * [1, 5, 0.1] + [0, 30, 0]
ETA = X @ [1.0, -0.2, 4.0] + 6
CLASS = (draw.rand(60) < 1 / (1 + np.exp(-ETA))).astype(float)
COUNT = draw.poisson(np.exp(0.5 * ETA)).astype(float)
FITS = {
    family: jax.jit(lambda x, y, family=family: fit_generalized_linear(x, y, family))
    for family in (GAUSSIAN, BERNOULLI, POISSON)
}


def assert_close(fit, kernel, bias, rtol):
    assert fit.converged
    np.testing.assert_allclose(fit.kernel, kernel, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(fit.bias, bias, rtol=rtol)


@pytest.mark.smoke
def test_logistic_regression_is_that_of_scikit_learn(x64):
    assert 10 < CLASS.sum() < 50
    fit = FITS[BERNOULLI](X, CLASS)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(X, CLASS)
    assert_close(fit, model.coef_[0], model.intercept_[0], 1e-6)
    assert fit.steps < 12
    p = generalized_linear(jnp.asarray(X), fit.kernel, fit.bias, BERNOULLI)
    np.testing.assert_allclose(p, model.predict_proba(X)[:, 1], rtol=1e-6)
    assert jnp.mean(p) == pytest.approx(CLASS.mean(), rel=1e-10)  # as the best bias has it


def test_poisson_regression_is_that_of_scikit_learn(x64):
    fit = FITS[POISSON](X, COUNT)
    model = PoissonRegressor(alpha=0, solver="newton-cholesky", tol=1e-10).fit(X, COUNT)
    assert_close(fit, model.coef_, model.intercept_, 1e-6)
    big = FITS[POISSON](X, 1e6 * COUNT)  # the start is far off, and exp overflows easily
    assert_close(big, model.coef_, model.intercept_ + np.log(1e6), 1e-6)


def test_the_gaussian_one_is_least_squares_in_one_step(x64):
    fit, wanted = FITS[GAUSSIAN](X, ETA + COUNT), linear_regression(X, ETA + COUNT)
    assert_close(fit, wanted.kernel, wanted.bias, 1e-9)
    assert fit.steps == 2  # the second finds that nothing moves


@pytest.mark.parametrize(("family", "y"), [(BERNOULLI, CLASS), (POISSON, COUNT)])
def test_the_loss_is_at_its_minimum_by_scipy(x64, family, y):
    def loss(w):
        return family.loss(jnp.asarray(X) @ w[:3] + w[3], jnp.asarray(y)).sum()

    fit = FITS[family](X, y)
    w = np.append(fit.kernel, fit.bias)
    start, slope = w + 0.01, jax.jit(jax.grad(loss))
    found = optimize.minimize(jax.jit(loss), start, jac=slope, method="BFGS")
    assert loss(w) <= found.fun + 1e-9
    np.testing.assert_allclose(jax.grad(loss)(w), 0, atol=1e-6)


@pytest.mark.parametrize("family", [GAUSSIAN, BERNOULLI, POISSON])
def test_the_activation_is_the_inverse_of_the_link(x64, family):
    # E40: g(mean) = x w + b, so what is applied to x w + b is the inverse of g
    eta = jnp.linspace(-4.0, 4.0, 9)
    np.testing.assert_allclose(family.link(family.inverse_link(eta)), eta, rtol=1e-12, atol=1e-12)
    slope = jax.vmap(jax.grad(family.inverse_link))(eta)
    np.testing.assert_allclose(family.variance(eta), slope, rtol=1e-12)
    y = jnp.full(9, 0.25)
    residual = -jax.vmap(jax.grad(family.loss))(eta, y)
    np.testing.assert_allclose(family.residual(eta, y), residual, rtol=1e-12)
    np.testing.assert_allclose(residual, y - family.inverse_link(eta), rtol=1e-12)


def test_the_residual_of_a_class_keeps_its_digits():
    assert 1 - jax.nn.sigmoid(jnp.float32(30)) == 0
    residual = BERNOULLI.residual(jnp.float32(30), jnp.float32(1))
    assert residual == pytest.approx(np.exp(-30), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_a_plane_separates_the_classes_nothing_converges(x64, dtype):
    line = np.arange(20.0)[:, None]
    above = (line[:, 0] >= 10).astype(float)
    touching = np.where(np.arange(20) == 10, 0.5, above)  # only the plane itself is undecided
    cases = [above, touching, 0 * above, 0 * above + 1]
    x, ys = line.astype(dtype), np.array(cases, dtype)
    fits = jax.jit(jax.vmap(lambda y: fit_generalized_linear(x, y, BERNOULLI)))(ys)
    assert not fits.converged.any()
    none = FITS[POISSON](x, 0 * above.astype(dtype))
    group = FITS[POISSON](above.astype(dtype)[:, None], (above * (1 + line[:, 0])).astype(dtype))
    assert not none.converged
    assert not group.converged
    assert (np.exp(group.bias + group.kernel[0])) == pytest.approx(15.5, rel=1e-3)
    mixed = above.copy()
    mixed[[2, 17]] = 1, 0  # no plane any more
    assert FITS[BERNOULLI](x, mixed.astype(dtype)).converged


def test_columns_that_depend_on_each_other_are_no_obstacle(x64):
    twice = np.c_[X, X[:, 0], np.ones(60)]
    fit, plain = FITS[BERNOULLI](twice, CLASS), FITS[BERNOULLI](X, CLASS)
    assert fit.converged
    np.testing.assert_allclose(twice @ fit.kernel + fit.bias, X @ plain.kernel + plain.bias, 1e-7)
    np.testing.assert_allclose(fit.kernel[0], fit.kernel[3], rtol=1e-6)


def test_impossible_targets_do_not_converge():
    x = X.astype(np.float32)
    assert not FITS[BERNOULLI](x, (CLASS * 2).astype(np.float32)).converged
    assert not FITS[POISSON](x, (COUNT - 5).astype(np.float32)).converged
    few = jax.jit(lambda y: fit_generalized_linear(x, y, POISSON, max_steps=2))
    assert not few(COUNT.astype(np.float32)).converged


def test_float32_stays_and_bfloat16_too(strict_promotion):
    x, y = jnp.asarray(X, jnp.float32), jnp.asarray(CLASS, jnp.float32)
    fit = FITS[BERNOULLI](x, y)
    assert fit.kernel.dtype == fit.bias.dtype == jnp.float32
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(X, CLASS)
    assert_close(fit, model.coef_[0], model.intercept_[0], 2e-3)
    half = FITS[BERNOULLI](x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))
    assert half.converged
    assert half.kernel.dtype == jnp.bfloat16


def test_derivatives_are_those_of_the_solution(x64):
    def fitted(y, shift):
        fit = fit_generalized_linear(jnp.asarray(X) + shift, y, POISSON)
        return jnp.append(fit.kernel, fit.bias)

    y, step = jnp.asarray(COUNT), 1e-4
    reverse = jax.jit(jax.jacrev(fitted, (0, 1)))(y, jnp.zeros(3))
    forward = jax.jit(jax.jacfwd(fitted, 1))(y, jnp.zeros(3))
    np.testing.assert_allclose(reverse[1], forward, rtol=1e-8, atol=1e-10)
    program = jax.jit(fitted)
    for i in (0, 7):
        by = jnp.zeros(60).at[i].set(step)
        wanted = (program(y + by, jnp.zeros(3)) - program(y - by, jnp.zeros(3))) / (2 * step)
        np.testing.assert_allclose(reverse[0][:, i], wanted, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(forward[:3], 0, atol=1e-9)  # a shift of x moves the bias alone
    np.testing.assert_allclose(forward[3], -fitted(y, jnp.zeros(3))[:3], rtol=1e-8)


def test_the_logit():
    p = jnp.array([0.0, 0.25, 1.0])
    np.testing.assert_allclose(logit(p), [-np.inf, np.log(1 / 3), np.inf], rtol=1e-6)
    with pytest.raises(TypeError, match="logit: mean must be floating point"):
        logit(jnp.array([1]))


def test_errors():
    x, y = jnp.ones((4, 2)), jnp.ones(4)
    with pytest.raises(ValueError, match=r"y must have shape \(n,\), got \(4, 1\)"):
        fit_generalized_linear(x, y[:, None], GAUSSIAN)
    with pytest.raises(TypeError, match="y must be floating point, got int32"):
        fit_generalized_linear(x, y.astype(int), POISSON)
    with pytest.raises(ValueError, match="same number of rows"):
        fit_generalized_linear(x[:3], y, GAUSSIAN)
    with pytest.raises(ValueError, match="max_steps"):
        fit_generalized_linear(x, y, GAUSSIAN, max_steps=0)
    with pytest.raises(ValueError, match=r"x must have shape \(..., 3\), got \(4, 2\)"):
        generalized_linear(x, jnp.ones(3), jnp.zeros(()), GAUSSIAN)
