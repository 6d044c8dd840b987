"""Minimisers of smooth functions: against closed forms, SciPy and scikit-learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import optim
from jaxd2l.optim import solution

METHODS = {
    "newton": optim.newton,
    "newton_cg": optim.newton_cg,
    "bfgs": optim.bfgs,
    "lbfgs": optim.lbfgs,
    "nonlinear_conjugate_gradient": optim.nonlinear_conjugate_gradient,
}
methods = pytest.mark.parametrize("name", METHODS)

FUNCTIONS = {
    "rosenbrock": lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2,
    "tilted": lambda x: 0.1 * (x[0] + x[1]) ** 2 + 2 * (x[0] - x[1]) ** 2,
    "domain": lambda x: jnp.sum(x - jnp.log(x)),
    "saddle": lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4,
    "linear": lambda x: x[0] + x[1],
    "downward": lambda x: -jnp.sum(x**2),
    "kink": lambda x: jnp.sum(jnp.abs(x)),
}


@functools.cache
def minimiser(name):
    """One program for all of the functions: compiling takes longer than all of the steps."""

    def minimise(number, x0):
        branches = list(FUNCTIONS.values())
        return METHODS[name](lambda p: jax.lax.switch(number, branches, p["a"][0]), {"a": x0})

    return jax.jit(minimise)


def minimise(name, function, x0):
    return minimiser(name)(list(FUNCTIONS).index(function), jnp.asarray([x0]))


def spd(n, condition, seed=0):
    """A symmetric positive definite matrix of that condition number, and a vector."""
    random = np.random.RandomState(seed)
    rotation = np.linalg.qr(random.randn(n, n))[0]
    return rotation * np.geomspace(1, condition, n) @ rotation.T, random.randn(n)


# Every method


@methods
def test_minima_are_found_from_several_starts(name, strict_promotion):
    for start in ([-1.2, 1.0], [0.0, 0.0], [3.0, -3.0]):
        found = minimise(name, "rosenbrock", start)
        assert found.converged
        assert found.x["a"].dtype == found.value.dtype == jnp.float32
        np.testing.assert_allclose(found.x["a"], [[1, 1]], atol=2e-3)
        assert found.residual <= 3.5e-4
        assert 3 < int(found.steps) < 100
        assert found.value < 1e-6
    found = minimise(name, "tilted", [-5.0, -2.0])
    assert found.converged
    np.testing.assert_allclose(found.x["a"], 0, atol=2e-3)


@methods
def test_the_edge_of_a_domain_is_not_crossed(name, strict_promotion):
    found = minimise(name, "domain", [10.0, 0.01])
    assert found.converged
    np.testing.assert_allclose(found.x["a"], 1, atol=1e-3)


@methods
def test_a_start_without_a_value_is_kept_and_said(name, strict_promotion):
    found = minimise(name, "domain", [-1.0, 2.0])
    assert found.x["a"].tolist() == [[-1, 2]]
    assert not found.converged
    assert int(found.steps) == 0


@methods
def test_where_nothing_can_be_found_it_does_not_converge(name, strict_promotion):
    for function in ("linear", "downward", "kink"):
        found = minimise(name, function, [1.0, -0.7])
        assert not found.converged, function
        assert np.isfinite(found.x["a"]).all()


@methods
def test_a_saddle_is_left_but_not_seen_from_its_middle(name, strict_promotion):
    found = minimise(name, "saddle", [1.0, 1e-3])
    assert found.converged
    np.testing.assert_allclose(found.x["a"], [[0, np.sqrt(2)]], atol=1e-3)
    stays = minimise(name, "saddle", [0.0, 0.0])
    assert stays.converged
    assert int(stays.steps) == 0


@pytest.mark.slow
@methods
def test_float64_is_kept_and_exact(name, x64):
    # log-sum-exp of affine functions plus a small square: smooth, convex, no closed form
    from scipy import optimize

    random = np.random.RandomState(0)
    a, b = random.randn(8, 3), random.randn(8)

    def f(x, np=jnp):
        return np.log(np.exp(a @ x + b).sum()) + 0.05 * (x @ x)

    found = jax.jit(lambda x: METHODS[name](f, x))(jnp.ones(3))
    wanted = optimize.minimize(lambda x: f(x, np), np.ones(3), tol=1e-12, method="BFGS")
    assert found.x.dtype == found.value.dtype == jnp.float64
    assert found.converged
    assert found.residual <= 1.5e-8
    np.testing.assert_allclose(found.value, wanted.fun, rtol=1e-12)
    np.testing.assert_allclose(found.x, wanted.x, atol=1e-6)


@pytest.mark.slow
def test_starts_and_limits_can_be_mapped_which_gives_all_points_of_the_way(strict_promotion):
    f, starts = FUNCTIONS["rosenbrock"], jnp.array([[-1.2, 1.0], [0.0, 0.0]])

    def after(k, start):
        return optim.bfgs(f, start, max_steps=k)

    mapped = jax.vmap(jax.vmap(after, (0, None)), (None, 0))
    found = jax.jit(mapped)(jnp.arange(60), starts)
    for row, start in enumerate(starts):
        np.testing.assert_array_equal(found.x[row, 0], start)
        np.testing.assert_array_equal(found.steps[row, :9], np.arange(9))
        assert (np.diff(found.value[row]) <= 1e-6).all()
        assert found.converged[row].tolist() == sorted(found.converged[row].tolist())
        assert found.converged[row, -1]
        alone = minimise("bfgs", "rosenbrock", start)
        assert abs(int(found.steps[row, -1]) - int(alone.steps)) <= 2  # rounding
        np.testing.assert_allclose(found.x[row, 4], found.x[row, 3], atol=1)


def test_half_precision_is_computed_in_float32_and_comes_back():
    mixed = {"a": jnp.zeros(2, jnp.bfloat16), "b": jnp.zeros((), jnp.float32)}
    problem = solution.as_vector(lambda p: p, mixed, "here")
    assert problem.x0.dtype == jnp.float32
    back = problem.tree(jnp.array([1.001, 2.0, 1.001]))
    assert back["a"].dtype == jnp.bfloat16
    assert back["a"].tolist() == [1, 2]
    assert back["b"] == jnp.float32(1.001)


def test_derivatives_are_those_of_the_solution(x64):
    def minimum(t):
        found = optim.newton(
            lambda x: jnp.sum((x - t) ** 4 + (x - 2 * t) ** 2), jnp.zeros(2), tol=1e-12
        )
        return found.x[0], found.value

    # u = x - t solves 4 u^3 + 2 (u - t) = 0, so du/dt = 2 / (12 u^2 + 2)
    u = np.roots([4, 0, 2, -2])
    u = u[np.abs(u.imag) < 1e-9].real[0]
    slope = 1 + 2 / (12 * u**2 + 2)
    envelope = 2 * (-4 * u**3 - 4 * (u - 1))  # the derivative of f at x held fixed

    def both(t):
        found, back = jax.vjp(minimum, t)
        return found[0], back((1.0, 0.0))[0], back((0.0, 1.0))[0]

    np.testing.assert_allclose(jax.jit(both)(1.0), (1 + u, slope, envelope), rtol=1e-8)


@pytest.mark.smoke
def test_errors_say_what_is_wrong():
    f = jnp.sum
    with pytest.raises(TypeError, match=r"bfgs: x0 at 'b' must be floating point, got int32"):
        optim.bfgs(lambda p: p["a"], {"a": 1.0, "b": jnp.arange(2)})
    with pytest.raises(ValueError, match="newton: x0 is not finite; start from finite numbers"):
        optim.newton(f, jnp.array([1.0, jnp.nan]))
    with pytest.raises(ValueError, match=r"lbfgs: x0 has no numbers in it; got \(0,\)"):
        optim.lbfgs(f, jnp.zeros(0))
    with pytest.raises(ValueError, match=r"newton: f must give one number, of shape \(\), got \("):
        optim.newton(lambda x: x, jnp.zeros(2))
    with pytest.raises(TypeError, match=r"what f gives must be floating point, got int32"):
        optim.newton(lambda x: jnp.int32(1), jnp.zeros(2))
    with pytest.raises(ValueError, match="newton_cg: tol must not be below 0, got -1"):
        optim.newton_cg(f, jnp.zeros(2), tol=-1.0)
    with pytest.raises(ValueError, match="bfgs: max_steps must be at least 0, got -3"):
        optim.bfgs(f, jnp.zeros(2), max_steps=-3)
    with pytest.raises(ValueError, match="lbfgs: memory_size must be at least 1, got 0"):
        optim.lbfgs(f, jnp.zeros(2), memory_size=0)
    with pytest.raises(ValueError, match="gauss_newton: damping must not be below 0"):
        optim.gauss_newton(lambda x: x, jnp.zeros(2), damping=-0.1)
    with pytest.raises(TypeError, match="residuals must be floating point, got int32"):
        optim.gauss_newton(lambda x: jnp.int32(x), jnp.zeros(2))
    a = jnp.eye(3)
    with pytest.raises(ValueError, match=r"A must be \(n, n\) and b \(n,\), got \(3, 3\) and"):
        optim.conjugate_gradient(a, jnp.ones(2))
    with pytest.raises(ValueError, match="x0 has 2 numbers, b has 3"):
        optim.conjugate_gradient(a, jnp.ones(3), jnp.ones(2))


# Quadratics


@pytest.mark.smoke
def test_c66_newton_takes_one_step_on_a_quadratic(x64):
    solve = jax.jit(lambda a, b, x: optim.newton(lambda x: x @ a @ x / 2 - b @ x, x, tol=1e-7))
    for seed, condition in enumerate((1, 20, 1e4, 1e6)):
        a, b = spd(5, condition, seed)
        found = solve(a, b, np.random.RandomState(9).randn(5))
        assert int(found.steps) == 1
        assert found.converged
        np.testing.assert_allclose(found.x, np.linalg.solve(a, b), rtol=1e-5, atol=1e-8)


def test_c66_conjugate_gradients_take_n_steps_on_a_quadratic(x64):
    solve = jax.jit(lambda a, b: optim.conjugate_gradient(a, b, tol=1e-6))
    for n in (1, 4, 10):
        a, b = spd(n, 50, seed=n)
        found = solve(a, b)
        assert int(found.steps) == n  # all eigenvalues differ, so fewer would not do
        assert found.converged
        np.testing.assert_allclose(found.x, np.linalg.solve(a, b), rtol=1e-4)
        np.testing.assert_allclose(found.value, -b @ np.linalg.solve(a, b) / 2, rtol=1e-9)
    rotation = np.linalg.qr(np.random.RandomState(0).randn(10, 10))[0]
    a = rotation * np.array([1.0, 1, 1, 4, 4, 4, 4, 9, 9, 9]) @ rotation.T
    assert int(solve(a, np.arange(1.0, 11.0)).steps) == 3  # one for each different eigenvalue


@pytest.mark.slow
def test_conjugate_gradients_keep_their_bound(x64):
    a, b = spd(60, 400)
    wanted = np.linalg.solve(a, b)
    steps = jnp.arange(0, 60, 6)
    found = jax.vmap(
        lambda k: optim.conjugate_gradient(jnp.asarray(a), jnp.asarray(b), max_steps=k, tol=0.0)
    )(steps)
    wrong = np.asarray(found.x) - wanted
    error = np.sqrt(np.einsum("ki,ij,kj->k", wrong, a, wrong) / (wanted @ a @ wanted))
    assert (error <= 2 * (19 / 21) ** np.asarray(steps) + 1e-12).all()
    assert error[-1] < 1e-3


def test_conjugate_gradients_on_trees_with_a_product_only(strict_promotion):
    b = {"u": jnp.array([2.0, 4.0]), "v": jnp.float32(3.0)}

    def solve(t):
        found = optim.conjugate_gradient(lambda p: {"u": t * p["u"], "v": 6 * p["v"]}, b)
        return found.x["u"][0], found

    def both(t):
        _, back, found = jax.vjp(solve, t, has_aux=True)
        return found, back(jnp.float32(1))[0], jax.jvp(lambda t: solve(t)[0], (t,), (t / 2,))[1]

    found, reverse, forward = jax.jit(both)(jnp.float32(2))
    np.testing.assert_allclose(found.x["u"], [1, 2], rtol=1e-6)
    np.testing.assert_allclose(found.x["v"], 0.5, rtol=1e-6)
    assert int(found.steps) == 2
    np.testing.assert_allclose([reverse, forward], -0.5, rtol=1e-5)  # of 2 / t


def test_conjugate_gradients_say_when_they_cannot():
    solve = jax.jit(optim.conjugate_gradient)
    found = solve(jnp.diag(jnp.array([1.0, -1.0])), jnp.array([1.0, 2.0]), jnp.zeros(2))
    assert not found.converged
    assert np.isfinite(found.x).all()
    nothing = solve(jnp.eye(2), jnp.zeros(2), jnp.zeros(2))
    assert nothing.converged
    assert (nothing.x.tolist(), int(nothing.steps)) == ([0, 0], 0)
    there = solve(2 * jnp.eye(2), jnp.ones(2), jnp.full(2, 0.5))
    assert (there.x.tolist(), int(there.steps)) == ([0.5, 0.5], 0)


# Regressions


@pytest.mark.slow
def test_newton_is_unpenalised_logistic_regression(x64):
    from sklearn.linear_model import LogisticRegression

    random = np.random.RandomState(0)
    x = random.randn(200, 3)
    y = (random.rand(200) < 1 / (1 + np.exp(-x @ [1.0, -2.0, 0.5] - 0.3))).astype(int)
    wanted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x, y)

    def loss(p):
        return jnp.mean(jax.nn.softplus(-(2 * y - 1) * (x @ p["w"] + p["b"])))

    found = optim.newton(loss, {"w": jnp.zeros(3), "b": 0.0}, tol=1e-10)
    np.testing.assert_allclose(found.x["w"], wanted.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(found.x["b"], wanted.intercept_[0], rtol=1e-4)
    assert int(found.steps) <= 8


def test_gauss_newton_is_scipys_least_squares(x64):
    from scipy import optimize

    t = np.linspace(0, 4, 30)
    y = 2.5 * np.exp(-1.3 * t) + 0.5 + 0.05 * np.random.RandomState(0).randn(30)

    def r(p, np=jnp):
        return p[0] * np.exp(p[1] * t) + p[2] - y

    wanted = optimize.least_squares(lambda p: r(p, np), [1, -1, 0], xtol=1e-14, gtol=1e-14)
    solve = jax.jit(lambda d: optim.gauss_newton(r, jnp.array([1.0, -1.0, 0.0]), damping=d))
    for damping in (0.0, 1e-3, 1.0):
        found = solve(damping)
        assert found.converged
        np.testing.assert_allclose(found.x, wanted.x, rtol=1e-6)
        np.testing.assert_allclose(found.value, wanted.cost, rtol=1e-9)


def test_gauss_newton_solves_linear_least_squares_at_once(x64):
    random = np.random.RandomState(0)
    a, b = random.randn(5, 8), random.randn(5)  # fewer equations than unknowns
    a[4] = a[3]
    found = jax.jit(lambda x: optim.gauss_newton(lambda x: a @ x - b, x))(jnp.zeros(8))
    assert int(found.steps) == 1
    np.testing.assert_allclose(found.x, np.linalg.lstsq(a, b, rcond=None)[0], atol=1e-10)


def test_damping_rescues_where_whole_steps_diverge():
    # arctan from 3: Newton's steps overshoot, farther each time
    solve = jax.jit(lambda d: optim.gauss_newton(lambda x: jnp.arctan(x), 3.0, damping=d))
    for damping in (1e-3, 0.0):  # without damping at first, a step that does not descend adds it
        found = solve(damping)
        assert found.converged
        assert abs(float(found.x)) < 1e-3


def test_gauss_newton_takes_trees_and_has_derivatives(strict_promotion):
    def fit(t):
        found = optim.gauss_newton(
            lambda p: {"a": p["a"] - t, "b": p["b"] * p["a"] - t**2}, {"a": 1.0, "b": 0.5}
        )
        return found.x["a"] + found.x["b"]  # 2 t at the solution

    value, slope = jax.jit(jax.value_and_grad(fit))(1.5)
    np.testing.assert_allclose(value, 3, rtol=1e-4)
    np.testing.assert_allclose(slope, 2, rtol=1e-4)
