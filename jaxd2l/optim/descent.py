"""The loop of all minimisers that go along a line: a direction, and how far."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxd2l.optim.solution import Solution, implicit, limit, objective, tolerance

Array = jax.Array
Direction = Callable[[Array, Array, Any], tuple[Array, Any]]


def descend(
    f: Callable[[Any], Any],
    x0: Any,
    direction: Callable[[Callable[[Array], Array]], Direction],
    memory: Callable[[Array], Any],
    *,
    tol: Any,
    max_steps: Any,
    where: str,
    curvature: float = 0.9,
    guess: str = "one",
) -> Solution:
    """Minimise along directions, by a line search for the strong Wolfe conditions:
    `f(x + a p) <= f(x) + 1e-4 a g.p` and `|g(x + a p).p| <= curvature |g.p|`.

    The search is Optax's (Nocedal & Wright, algorithms 3.5 and 3.6), with its weaker condition of
    descent (Hager & Zhang) where differences drown in rounding. Where a direction does not
    descend or is not finite, that of steepest descent is taken. A step that does not lower f
    beyond rounding is not made, and ends the loop.

    Args:
      direction: f on vectors -> ((x, gradient, memory) -> (p, memory)).
      memory: x -> what the first direction remembers.
      guess: the search begins with step "one", or "keep" for the last one found.

    Example:
      >>> steepest = lambda f: lambda x, gradient, memory: (-gradient, memory)
      >>> found = descend(lambda x: (x - 3) ** 2, 0.0, steepest, lambda x: (), tol=1e-3,
      ...                 max_steps=9, where="here")
      >>> round(float(found.x), 3), bool(found.converged)
      (3.0, True)
    """
    problem = objective(f, x0, where)
    dtype = problem.x0.dtype
    bound = tolerance(tol, dtype, where)
    most = limit(max_steps, f"{where}: max_steps")
    slack = 10 * float(jnp.finfo(dtype).eps)
    search = optax.scale_by_zoom_linesearch(
        30, curv_rtol=curvature, approx_dec_rtol=slack, initial_guess_strategy=guess
    )
    toward = direction(problem.f)

    def residual(gradient: Array) -> Array:
        return jnp.abs(gradient).max()

    def goes_on(loop: Any) -> Array:
        _, value, gradient, _, _, steps, stalled = loop
        return (steps < most) & ~stalled & jnp.isfinite(value) & (residual(gradient) > bound)

    def step(loop: Any) -> Any:
        x, value, gradient, memory, rate, steps, _ = loop
        p, memory = toward(x, gradient, memory)
        good = jnp.isfinite(p).all() & (jnp.vdot(p, gradient) < 0)
        p = jnp.where(good, p, -gradient)
        before = search.init(x)._replace(learning_rate=rate)
        update, found = search.update(p, before, x, value=value, grad=gradient, value_fn=problem.f)
        better = (
            jnp.isfinite(found.value)
            & jnp.isfinite(found.grad).all()
            & (found.value <= value + slack * jnp.abs(value))
            & ((x + update) != x).any()
        )
        new = (x + update, found.value, found.grad)
        x, value, gradient = jax.tree.map(
            lambda a, b: jnp.where(better, a, b), new, (x, value, gradient)
        )
        steps = steps + better.astype(jnp.int32)
        return x, value, gradient, memory, found.learning_rate, steps, ~better

    def run(x: Array) -> tuple[Array, Any]:
        start = (x, *jax.value_and_grad(problem.f)(x), memory(x), jnp.ones((), dtype))
        loop = (*start, jnp.int32(0), jnp.array(False))
        x, value, gradient, _, _, steps, _ = jax.lax.while_loop(goes_on, step, loop)
        return x, (value, residual(gradient), steps)

    return implicit(problem, jax.grad(problem.f), run, bound)
