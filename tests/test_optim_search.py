"""Random search, and minimising within sets: against brute force, closed forms and SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import projections

from jaxd2l import optim


def wells(x):
    """Two wells: the lower at -1.3008 (-3.5139), the other at 1.1309 (-1.0702)."""
    return x**4 - 3 * x**2 + x


def edged(x):
    """The same, and no number where a search may well look: a little below the lower well."""
    return jnp.where(x < -1.4, jnp.nan, wells(x))


def rastrigin(x):
    """0 at 0, and a minimum near every pair of integers."""
    return jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x) + 10)


# Search


@functools.partial(jax.jit, static_argnums=(0, 3))
def descended(name, rate, x0, steps=3000):
    """Where a first-order optimiser ends on the two wells."""
    optimizer = getattr(optim, name)(rate)

    def step(_, carry):
        x, state = carry
        updates, state = optimizer.update(jax.grad(wells)(x), state, x)
        return optax.apply_updates(x, updates), state

    return jax.lax.fori_loop(0, steps, step, (x0, optimizer.init(x0)))[0]


def test_c60_neither_adam_nor_gradient_descent_avoids_local_optima():
    grid = np.linspace(-2, 2, 400001)
    lowest = grid[wells(grid).argmin()]
    assert lowest == pytest.approx(-1.3008, abs=1e-4)
    for name, rates in (("sgd", (0.003, 0.01, 0.03)), ("adam", (0.003, 0.01, 0.03))):
        for rate in rates:
            assert float(descended(name, rate, 2.0)) == pytest.approx(1.1309, abs=1e-3)
            assert float(descended(name, rate, -2.0)) == pytest.approx(lowest, abs=1e-3)


def test_annealing_and_populations_climb_out_of_local_optima(strict_promotion):
    keys = jax.random.split(jax.random.key(0), 20)
    anneal = jax.vmap(
        lambda k: optim.simulated_annealing(edged, 2.0, k, steps=500, temperature=3.0)
    )
    breed = jax.vmap(
        lambda k: optim.genetic_algorithm(edged, 2.0, k, scale=2.0, population=20, generations=20)
    )
    for search in (anneal, breed):
        found = jax.jit(search)(keys)
        assert (np.abs(found.x + 1.3008) < 0.1).mean() >= 0.9  # of 20 seeds; descent: none
        np.testing.assert_array_equal(wells(found.x), found.value)
        assert (np.diff(found.history) <= 0).all()
        np.testing.assert_array_equal(found.history[:, -1], found.value)
        assert found.x.dtype == found.history.dtype == jnp.float32


@pytest.mark.slow
def test_searches_find_the_lowest_of_a_hundred_minima():
    start = {"x": jnp.array([4.2, -3.1])}
    anneal = jax.jit(
        lambda k: optim.simulated_annealing(
            lambda p: rastrigin(p["x"]), start, k, temperature=5.0, scale=4.0
        )
    )
    breed = jax.jit(
        lambda k: optim.genetic_algorithm(lambda p: rastrigin(p["x"]), start, k, scale=3.0)
    )
    stuck = optim.newton(rastrigin, start["x"])
    assert float(stuck.value) > 20  # a descent ends in the nearest minimum
    for search in (anneal, breed):
        found = [search(key) for key in jax.random.split(jax.random.key(1), 10)]
        assert np.mean([float(f.value) < 0.1 for f in found]) >= 0.9


@pytest.mark.smoke
def test_searches_refuse_nonsense():
    key = jax.random.key(0)
    for search in (optim.simulated_annealing, optim.genetic_algorithm):
        with pytest.raises(ValueError, match=r"scale must be a finite number above 0, got -1"):
            search(jnp.sum, jnp.ones(2), key, scale=-1.0)
        with pytest.raises(ValueError, match="f must give one number"):
            search(lambda x: x, jnp.ones(2), key)
    with pytest.raises(ValueError, match="temperature must be a finite number above 0, got 0"):
        optim.simulated_annealing(jnp.sum, jnp.ones(2), key, temperature=0.0)
    with pytest.raises(ValueError, match="population must be at least 2, got 1"):
        optim.genetic_algorithm(jnp.sum, jnp.ones(2), key, population=1)
    with pytest.raises(TypeError, match="scale must be a number, got str"):
        optim.genetic_algorithm(jnp.sum, jnp.ones(2), key, scale="wide")


# Within sets

A = np.array([[3.0, 1.0, 0.5], [1.0, 2.0, 0.2], [0.5, 0.2, 1.0]])
B = np.array([1.0, -2.0, 3.0])


def bowl(x):
    return x @ A.astype(x.dtype) @ x / 2 - B.astype(x.dtype) @ x


SETS = {  # projection, and the same set as constraints of SciPy's: ("ineq", at least 0)
    "box": (
        lambda x: projections.projection_box(x, jnp.zeros_like(x), jnp.ones_like(x)),
        [("ineq", lambda x: x), ("ineq", lambda x: 1 - x)],
    ),
    "ball": (
        lambda x: projections.projection_l2_ball(x, 0.7),
        [("ineq", lambda x: 0.49 - x @ x)],
    ),
    "simplex": (
        projections.projection_simplex,
        [("ineq", lambda x: x), ("eq", lambda x: x.sum() - 1)],
    ),
    "own": (  # all entries but the first are bounded
        lambda x: jnp.where(jnp.arange(3) == 0, x, jnp.minimum(x, 0.5)),
        [("ineq", lambda x: 0.5 - x[1:])],
    ),
}


@pytest.mark.parametrize(
    "name", ["box", "ball", *(pytest.param(n, marks=pytest.mark.slow) for n in ("simplex", "own"))]
)
def test_projected_gradients_are_scipys_constrained_minima(name, x64):
    from scipy import optimize

    project, constraints = SETS[name]
    wanted = optimize.minimize(
        lambda x: x @ A @ x / 2 - B @ x,
        np.full(3, 0.2),
        method="SLSQP",
        constraints=[{"type": kind, "fun": f} for kind, f in constraints],
        options={"ftol": 1e-15},
    )

    def both(x):
        found = optim.projected_gradient(bowl, x, project)
        return found, optim.kkt_residual(bowl, found.x, project), project(found.x)

    found, residual, inside = jax.jit(both)(jnp.array([5.0, 5.0, -5.0]))
    assert found.converged
    assert found.x.dtype == jnp.float64
    np.testing.assert_allclose(found.x, wanted.x, atol=1e-6)
    np.testing.assert_allclose(found.x, inside, atol=1e-15)  # in the set
    np.testing.assert_allclose(residual, found.residual, atol=1e-15)
    assert residual < 1.5e-8
    assert int(found.steps) < 40


def test_active_bounds_are_met_exactly_and_the_solution_has_derivatives(strict_promotion):
    def solve(t):
        found = optim.projected_gradient(
            lambda p: jnp.sum((p["x"] - jnp.stack([t, -t, 0.3 * t])) ** 2),
            {"x": jnp.full(3, 0.5)},
            lambda p: projections.projection_box(p, {"x": jnp.zeros(3)}, {"x": jnp.ones(3)}),
        )
        return found.x["x"], found

    slope, found = jax.jit(jax.jacrev(solve, has_aux=True))(jnp.float32(2))
    assert found.x["x"][:2].tolist() == [1, 0]
    np.testing.assert_allclose(found.x["x"][2], 0.6, atol=1e-4)
    np.testing.assert_allclose(slope, [0, 0, 0.3], atol=1e-5)


def test_kkt_conditions_name_the_active_constraints(strict_promotion):
    def f(x):
        return jnp.sum((x - jnp.array([2.0, 1.0, -1.0])) ** 2)

    def inequalities(x):  # x >= 0 and x[0] <= 1
        return jnp.concatenate([-x, x[:1] - 1])

    check = jax.jit(lambda x: optim.kkt_conditions(f, x, inequalities))
    best = check(jnp.array([1.0, 1.0, 0.0]))
    assert best.active.tolist() == [False, False, True, True]
    np.testing.assert_allclose(best.multipliers, [0, 0, 2, 2], atol=1e-5)
    assert best.residual < 1e-5
    inside = check(jnp.array([0.5, 0.5, 0.5]))  # nothing holds it, yet f has a slope
    assert inside.active.tolist() == [False] * 4
    assert inside.stationarity == 3
    wrong = check(jnp.array([0.0, 1.0, 0.0]))  # held by x[0] >= 0, which pushes the wrong way
    assert float(wrong.sign) == pytest.approx(4, abs=1e-4)
    outside = check(jnp.array([1.0, 1.0, -1.0]))
    assert float(outside.feasibility) == 1
    both = jax.jit(lambda x: optim.kkt_conditions(f, x, lambda x: -x, lambda x: x.sum()[None] - 2))(
        jnp.array([1.5, 0.5, 0.0])
    )
    np.testing.assert_allclose(both.multipliers, [0, 0, 3, 1], atol=1e-5)
    assert both.residual < 1e-5


def test_constrained_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"project must give a tree as x0, \(2,\), got \(\)"):
        optim.projected_gradient(jnp.sum, jnp.ones(2), jnp.sum)
    with pytest.raises(ValueError, match=r"kkt_residual: project must give a tree as x0"):
        optim.kkt_residual(jnp.sum, jnp.ones(2), lambda x: {"x": x})
    with pytest.raises(ValueError, match=r"inequalities must give a vector, got shape \(\)"):
        optim.kkt_conditions(jnp.sum, jnp.ones(2), jnp.sum)
    outside = optim.projected_gradient(lambda x: jnp.log(x - 5), 1.0, lambda x: jnp.clip(x, 0, 2))
    assert not outside.converged
