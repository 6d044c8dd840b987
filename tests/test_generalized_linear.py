"""Generalised linear models against scikit-learn and SciPy; data without a best fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor

from jaxd2l.ops.generalized_linear import (
    BERNOULLI,
    GAUSSIAN,
    POISSON,
    fit_generalized_linear,
    generalized_linear,
    logit,
)

draw = np.random.RandomState(0)
X = draw.randn(60, 3) * [1, 5, 0.1] + [0, 30, 0]
ETA = X @ [1.0, -0.2, 4.0] + 6
CLASS = (draw.rand(60) < 1 / (1 + np.exp(-ETA))).astype(float)
COUNT = draw.poisson(np.exp(0.5 * ETA)).astype(float)
LINE = np.arange(60.0)[:, None]
FAST = {"xla_backend_optimization_level": 0}  # to compile
PROGRAMS = {
    family: jax.jit(functools.partial(fit_generalized_linear, family=family), compiler_options=FAST)
    for family in (GAUSSIAN, BERNOULLI, POISSON)
}


def fitted(family, x, y, dtype=np.float64):
    """On the host. Fewer than three columns are filled up with zeros: one program for all."""
    x = np.pad(np.asarray(x), ((0, 0), (0, 3 - x.shape[1])))
    return jax.tree.map(np.asarray, PROGRAMS[family](jnp.asarray(x, dtype), jnp.asarray(y, dtype)))


def assert_close(fit, kernel, bias, rtol):
    assert fit.converged
    np.testing.assert_allclose(fit.kernel, kernel, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(fit.bias, bias, rtol=rtol, atol=rtol)


@pytest.mark.smoke
def test_logistic_regression_is_that_of_scikit_learn(x64):
    assert 10 < CLASS.sum() < 50
    fit = fitted(BERNOULLI, X, CLASS)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(X, CLASS)
    assert_close(fit, model.coef_[0], model.intercept_[0], 1e-6)
    assert fit.steps < 12
    p = np.asarray(generalized_linear(jnp.asarray(X), fit.kernel, fit.bias, BERNOULLI))
    np.testing.assert_allclose(p, model.predict_proba(X)[:, 1], rtol=1e-6)
    assert p.mean() == pytest.approx(CLASS.mean(), rel=1e-10)  # as the best bias has it


def test_poisson_regression_is_that_of_scikit_learn(x64):
    fit = fitted(POISSON, X, COUNT)
    model = PoissonRegressor(alpha=0, solver="newton-cholesky", tol=1e-10).fit(X, COUNT)
    assert_close(fit, model.coef_, model.intercept_, 1e-6)
    big = fitted(POISSON, X, 1e6 * COUNT)  # the start is far off, and exp overflows easily
    assert_close(big, model.coef_, model.intercept_ + np.log(1e6), 1e-6)


def test_steps_that_go_too_far_are_halved(x64):
    x = np.random.RandomState(0).randn(60, 1)
    y = np.exp(4 * x[:, 0])  # full steps only would raise the loss at once
    assert_close(fitted(POISSON, x, y), [4, 0, 0], 0, 1e-7)


def test_the_gaussian_one_is_least_squares_in_one_step(x64):
    y = ETA + COUNT
    fit, wanted = fitted(GAUSSIAN, X, y), LinearRegression().fit(X, y)
    assert_close(fit, wanted.coef_, wanted.intercept_, 1e-9)
    assert fit.steps == 2  # the second finds that nothing moves


@pytest.mark.parametrize(("family", "y"), [(BERNOULLI, CLASS), (POISSON, COUNT)])
def test_the_loss_is_at_its_minimum_by_scipy(x64, family, y):
    fit = fitted(family, X, y)
    scale = np.append(1 / X.std(0), 1)  # BFGS would be lost without

    @functools.partial(jax.jit, compiler_options=FAST)
    @jax.value_and_grad
    def loss(w):
        return family.loss((X - X.mean(0)) @ (w * scale)[:3] + w[3], y).sum()

    w = np.append(fit.kernel, fit.bias + X.mean(0) @ fit.kernel) / scale
    found = optimize.minimize(lambda w: [np.asarray(a) for a in loss(w)], w + 0.1, jac=True)
    assert loss(w)[0] == pytest.approx(found.fun, rel=1e-10)
    np.testing.assert_allclose(w, found.x, atol=1e-4)


@pytest.mark.parametrize("family", [GAUSSIAN, BERNOULLI, POISSON])
def test_the_activation_is_the_inverse_of_the_link(x64, family):
    # E40: g(mean) = x w + b, so what is applied to x w + b is the inverse of g
    @functools.partial(jax.jit, compiler_options=FAST)
    def both(eta, y):
        slope = jax.vmap(jax.grad(family.inverse_link))(eta)
        fall = -jax.vmap(jax.grad(family.loss))(eta, y)
        mean = family.inverse_link(eta)
        found = [family.link(mean), family.variance(eta), family.residual(eta, y), y - mean]
        return found, [eta, slope, fall, fall]

    found, wanted = both(np.linspace(-4, 4, 9), np.full(9, 0.25))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


def test_the_residual_of_a_class_keeps_its_digits():
    assert 1 - jax.nn.sigmoid(jnp.float32(30)) == 0
    residual = BERNOULLI.residual(jnp.float32(30), jnp.float32(1))
    assert residual == pytest.approx(np.exp(-30), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_a_plane_separates_the_classes_nothing_converges(x64, dtype):
    above = (LINE[:, 0] >= 30) * 1.0
    touching = np.where(LINE[:, 0] == 30, 0.5, above)  # only on the plane itself both occur
    for y in (above, touching, 0 * above, 0 * above + 1):
        assert not fitted(BERNOULLI, LINE, y, dtype).converged
    mixed = above.copy()
    mixed[[5, 52]] = 1, 0  # no plane any more
    assert fitted(BERNOULLI, LINE, mixed, dtype).converged


def test_where_a_group_counts_nothing_nothing_converges(x64):
    above = (LINE[:, 0] >= 30) * 1.0
    group = fitted(POISSON, above[:, None], above * (1 + LINE[:, 0]))
    assert not group.converged  # the mean of the others is 0, of predictor -infinity
    assert np.exp(group.bias + group.kernel[0]) == pytest.approx(45.5, rel=1e-3)
    assert not fitted(POISSON, LINE, 0 * above).converged
    assert fitted(POISSON, LINE, 1 + above).converged


def test_columns_that_depend_on_each_other_are_no_obstacle(x64):
    twice = np.c_[X[:, 0], X[:, 0], X[:, 1]]
    fit, plain = fitted(BERNOULLI, twice, CLASS), fitted(BERNOULLI, X[:, :2], CLASS)
    assert fit.converged
    np.testing.assert_allclose(
        twice @ fit.kernel + fit.bias, X @ plain.kernel + plain.bias, rtol=1e-6
    )
    np.testing.assert_allclose(fit.kernel[:2], plain.kernel[0] / 2, rtol=1e-6)
    assert plain.kernel[2] == 0  # a column without anything


def test_impossible_targets_and_too_few_steps_do_not_converge(x64):
    assert not fitted(BERNOULLI, X, CLASS * 2).converged
    assert not fitted(POISSON, X, COUNT - 5).converged
    once = functools.partial(fit_generalized_linear, family=GAUSSIAN, max_steps=1)
    assert not jax.jit(once, compiler_options=FAST)(X, ETA).converged


def test_float32_stays_and_bfloat16_too(strict_promotion):
    fit = fitted(BERNOULLI, X, CLASS, np.float32)
    assert fit.kernel.dtype == fit.bias.dtype == np.float32
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(X, CLASS)
    assert_close(fit, model.coef_[0], model.intercept_[0], 2e-3)
    half = fitted(BERNOULLI, X, CLASS, jnp.bfloat16)
    assert half.converged
    assert half.kernel.dtype == jnp.bfloat16


def test_derivatives_are_those_of_the_solution(x64):
    def solution(y, shift):
        fit = fit_generalized_linear(X + shift, y, POISSON)
        return jnp.append(fit.kernel, fit.bias)

    zero = np.zeros(3)
    by_y, by_shift = jax.jit(jax.jacrev(solution, (0, 1)), compiler_options=FAST)(COUNT, zero)
    forward = jax.jit(jax.jacfwd(solution, 1), compiler_options=FAST)(COUNT, zero)
    np.testing.assert_allclose(by_shift, forward, rtol=1e-7, atol=1e-9)
    fit = fitted(POISSON, X, COUNT)
    np.testing.assert_allclose(forward[:3], 0, atol=1e-9)  # a shift of x moves the bias alone
    np.testing.assert_allclose(forward[3], -fit.kernel, rtol=1e-8)
    for i in (0, 7):
        ends = [fitted(POISSON, X, COUNT + t * np.eye(60)[i]) for t in (1e-4, -1e-4)]
        kernels, biases = zip(*[(end.kernel, end.bias) for end in ends], strict=True)
        wanted = np.append(np.subtract(*kernels), np.subtract(*biases)) / 2e-4
        np.testing.assert_allclose(by_y[:, i], wanted, rtol=1e-5, atol=1e-8)


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
