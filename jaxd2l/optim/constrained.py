"""Minimising within a set, and the conditions of Karush, Kuhn and Tucker (KKT)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating
from jaxd2l.optim.derivatives import jacobian
from jaxd2l.optim.solution import Problem, Solution, implicit, limit, objective, tolerance

Array = jax.Array
Projection = Callable[[Any], Any]

_TRIALS = 40  # halvings of a step, down to 1e-12 of it


def _on_vectors(project: Projection, problem: Problem, where: str) -> Callable[[Array], Array]:
    """The projection as a function of vectors, refused where it changes the tree."""
    wanted = jax.eval_shape(problem.tree, problem.x0)
    got = jax.eval_shape(project, wanted)
    shapes = [jax.tree.map(lambda a: a.shape, tree) for tree in (wanted, got)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{where}: project must give a tree as x0, {shapes[0]}, got {shapes[1]}")

    def on(x: Array) -> Array:
        leaves = jax.tree.leaves(project(problem.tree(x)))
        return jnp.concatenate([leaf.astype(x.dtype).ravel() for leaf in leaves])

    return on


def projected_gradient(
    f: Callable[[Any], Any],
    x0: Any,
    project: Projection,
    *,
    tol: Any = None,
    max_steps: Any = 1000,
) -> Solution:
    """Minimise f over a closed convex set, given by its projection P: the nearest point in it.

    `x <- x + a (P(x - t g) - x)` with a halved from 1 until f falls by 1e-4 of what its slope
    promises, and `t = s.s / s.y` from the last step s and change of gradient y (Barzilai and
    Borwein), which takes far fewer steps than any fixed t. The start is projected first; every
    point is in the set. Constraints that hold with equality at the end are the active ones:
    entries at their bound, exactly.

    Projections by Optax: `optax.projections.projection_box(x, low, high)`,
    `projection_non_negative(x)`, `projection_l2_ball(x, radius)`, `projection_l1_ball(x, radius)`,
    `projection_simplex(x)`, `projection_hyperplane`, `projection_halfspace`.

    Args:
      f: tree -> (), floating point.
      project: tree -> tree of the same shapes, P of a closed convex set.
      tol: converged when no entry of `x - P(x - g)` is above it; by default the square root of the
        dtype's spacing, 3.5e-4 in float32.
      max_steps: an int or a traced integer.

    Shapes: x0: a tree of floating point arrays, n numbers in all; the solution's x: as x0.

    Returns: a `Solution` whose residual is `kkt_residual`.

    Raises:
      TypeError: x0 or f(x0) is not floating point.
      ValueError: x0 is empty or known not to be finite; f(x0) is not (); project changes shapes.

    Source: Birgin, Martinez & Raydan 2000 (SPG, here with a monotone line search).

    Example:
      >>> from optax.projections import projection_box
      >>> target = jnp.array([2.0, -0.5, 0.25])
      >>> found = projected_gradient(lambda x: jnp.sum((x - target) ** 2), jnp.zeros(3),
      ...                            lambda x: projection_box(x, 0.0, 1.0))
      >>> found.x, (found.x == 0).tolist()
      (Array([1.  , 0.  , 0.25], dtype=float32), [False, True, False])
    """
    where = "projected_gradient"
    problem = objective(f, x0, where)
    onto = _on_vectors(project, problem, where)
    dtype = problem.x0.dtype
    bound, most = tolerance(tol, dtype, where), limit(max_steps, f"{where}: max_steps")
    slack = 10 * float(jnp.finfo(dtype).eps)
    graded = jax.value_and_grad(problem.f)

    def residual(x: Array, gradient: Array) -> Array:
        return jnp.abs(x - onto(x - gradient)).max()

    def goes_on(loop: Any) -> Array:
        (_, value, _), error, _, steps, stalled = loop
        return (steps < most) & ~stalled & jnp.isfinite(value) & (error > bound)

    def step(loop: Any) -> Any:
        (x, value, gradient), _, rate, steps, _ = loop
        toward = onto(x - rate * gradient) - x
        slope = jnp.vdot(gradient, toward)

        def low(value_at: Array, part: Array) -> Array:
            return value_at <= value + 1e-4 * part * slope + slack * jnp.abs(value)

        def halve(trial: Any) -> Any:
            part, _, count = trial
            return part / 2, problem.f(onto(x + part / 2 * toward)), count + 1

        one = jnp.ones((), dtype)
        part, _, _ = jax.lax.while_loop(
            lambda t: ~low(t[1], t[0]) & (t[2] < _TRIALS),
            halve,
            (one, problem.f(onto(x + toward)), 0),
        )
        new = onto(x + part * toward)
        value_at, slopes = graded(new)
        better = low(value_at, part) & jnp.isfinite(slopes).all() & (new != x).any()
        s, y = new - x, slopes - gradient
        product = jnp.vdot(s, y)
        fresh = jnp.where(product > 0, jnp.vdot(s, s) / jnp.where(product > 0, product, 1), 1e10)
        rate = jnp.clip(fresh, 1e-10, 1e10)
        at = jax.tree.map(
            lambda a, b: jnp.where(better, a, b), (new, value_at, slopes), (x, value, gradient)
        )
        return at, residual(at[0], at[2]), rate, steps + better.astype(jnp.int32), ~better

    def run(x: Array) -> tuple[Array, Any]:
        x = onto(x)
        value, gradient = graded(x)
        rate = 1 / jnp.maximum(1, jnp.abs(gradient).max())
        loop = ((x, value, gradient), residual(x, gradient), rate, jnp.int32(0), jnp.array(False))
        (x, value, _), error, _, steps, _ = jax.lax.while_loop(goes_on, step, loop)
        return x, (value, error, steps)

    def root(x: Array) -> Array:
        return x - onto(x - jax.grad(problem.f)(x))

    return implicit(problem, root, run, bound)


def kkt_residual(f: Callable[[Any], Any], x: Any, project: Projection) -> Array:
    """How far x is from satisfying the KKT conditions in a closed convex set with projection P:
    the largest entry of `|x - P(x - g)|`.

    It is 0 exactly where x is in the set and no feasible direction descends. That is necessary for
    a minimum, and for a convex f sufficient. Without a set it is the gradient's largest entry.

    Shapes: x: a tree of floating point arrays; f(x): (); result: ().

    Raises:
      TypeError, ValueError: as `projected_gradient`.

    Source: Goodfellow et al. 4.4; Bertsekas, Nonlinear Programming, 2.3.

    Example:
      >>> from optax.projections import projection_non_negative
      >>> f = lambda x: jnp.sum((x - jnp.array([1.0, -1.0])) ** 2)
      >>> float(kkt_residual(f, jnp.array([1.0, 0.0]), projection_non_negative))
      0.0
    """
    problem = objective(f, x, "kkt_residual")
    onto = _on_vectors(project, problem, "kkt_residual")
    return jnp.abs(problem.x0 - onto(problem.x0 - jax.grad(problem.f)(problem.x0))).max()


class Conditions(NamedTuple):
    """The KKT conditions at a point, for m inequalities and k equalities.

    Attributes:
      multipliers: (m + k,) of the inequalities and then of the equalities; 0 where not active.
      active: (m,) which inequalities hold with equality, within the tolerance.
      stationarity: () the largest entry of `g + J' multipliers`.
      feasibility: () the largest violation of a constraint.
      sign: () how far the lowest multiplier of an inequality is below 0.
      residual: () the largest of the three: 0 where all conditions hold.
    """

    multipliers: Array
    active: Array
    stationarity: Array
    feasibility: Array
    sign: Array
    residual: Array


def kkt_conditions(
    f: Callable[[Any], Any],
    x: Any,
    inequalities: Callable[[Any], Array],
    equalities: Callable[[Any], Array] | None = None,
    *,
    tol: Any = None,
) -> Conditions:
    """Check the KKT conditions for `min f` under `inequalities(x) <= 0`, `equalities(x) = 0`.

    An inequality is active where it is above -tol. The multipliers are those of the active
    constraints and the equalities that bring `g + J' multipliers` nearest to 0, by least squares;
    the others are 0, so that complementarity holds by construction. Where gradients of active
    constraints depend on each other the shortest multipliers are taken, and `sign` may be above 0
    although others would do.

    Shapes:
      x: a tree of floating point arrays, n numbers in all; f(x): (); inequalities(x): (m,);
      equalities(x): (k,).

    Raises:
      TypeError: not floating point.
      ValueError: x is empty or known not to be finite; f(x) is not (); constraints are not vectors.

    Source: Karush 1939; Kuhn & Tucker 1951; Goodfellow et al. 4.4.

    Example:
      >>> found = kkt_conditions(lambda x: jnp.sum((x - 2) ** 2), jnp.array([0.5, 0.5]),
      ...                        lambda x: jnp.stack([x[0] + x[1] - 1, -x[0]]))
      >>> found.active.tolist(), found.multipliers.round(4).tolist(), float(found.residual) < 1e-6
      ([True, False], [3.0, 0.0], True)
    """
    where = "kkt_conditions"
    problem = objective(f, x, where)
    at, dtype = problem.x0, problem.x0.dtype
    bound = tolerance(tol, dtype, where)

    def constraints(v: Array) -> tuple[Array, Array]:
        tree = problem.tree(v)
        found = []
        for name, function in (("inequalities", inequalities), ("equalities", equalities)):
            out = jnp.zeros(0, dtype) if function is None else function(tree)
            if jnp.ndim(out) != 1:
                raise ValueError(f"{where}: {name} must give a vector, got shape {jnp.shape(out)}")
            check_floating(out, f"{where}: {name}")
            found.append(jnp.asarray(out).astype(dtype))
        return found[0], found[1]

    below, equal = constraints(at)
    gradient = jax.grad(problem.f)(at)
    active = below >= -bound
    used = jnp.concatenate([active, jnp.ones(equal.size, bool)])
    if used.size:
        slopes = jacobian(lambda v: jnp.concatenate(constraints(v)), at)  # (m + k, n)
        multipliers = jnp.linalg.lstsq(jnp.where(used[:, None], slopes, 0).T, -gradient)[0]
        multipliers = jnp.where(used, multipliers, 0)
        gradient = gradient + slopes.T @ multipliers
    else:
        multipliers = jnp.zeros(0, dtype)
    zero = jnp.zeros(1, dtype)
    stationarity = jnp.abs(gradient).max()
    feasibility = jnp.concatenate([zero, below, jnp.abs(equal)]).max()
    sign = jnp.concatenate([zero, -multipliers[: below.size]]).max()
    residual = jnp.stack([stationarity, feasibility, sign]).max()
    return Conditions(multipliers, active, stationarity, feasibility, sign, residual)
