"""Quasi-Newton methods: curvature learnt from the gradients met on the way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxd2l.geometry import as_int
from jaxd2l.optim.descent import Direction, descend
from jaxd2l.optim.solution import Solution

Array = jax.Array


def bfgs(f: Callable[[Any], Any], x0: Any, *, tol: Any = None, max_steps: Any = 1000) -> Solution:
    """BFGS: an inverse Hessian (n, n), corrected by every step s and change of gradient y:

    `H <- (1 - s y' / s.y) H (1 - y s' / s.y) + s s' / s.y`, and `p = -H g`.

    H begins as the identity, scaled by `s.y / y.y` after the first step; a step with no positive
    `s.y` teaches nothing. n^2 numbers are kept: for more than some thousands use `lbfgs`.

    `jax.scipy.optimize.minimize(method="BFGS")` is the same method for one vector; its line search
    gives up on Rosenbrock's function from (-1.2, 1), which is why Optax's is used here.

    Args:
      f: tree -> (), floating point.
      tol: converged when no entry of the gradient is above it; by default the square root of the
        dtype's spacing, 3.5e-4 in float32.
      max_steps: an int or a traced integer.

    Shapes: x0: a tree of floating point arrays, n numbers in all; the solution's x: as x0.

    Raises:
      TypeError: x0 or f(x0) is not floating point.
      ValueError: x0 is empty or known not to be finite; f(x0) is not ().

    Source: Nocedal & Wright, algorithm 6.1.

    Example:
      >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
      >>> found = bfgs(rosenbrock, jnp.array([-1.2, 1.0]))
      >>> found.x.round(2).tolist(), bool(found.converged)
      ([1.0, 1.0], True)
    """

    def direction(_: Callable[[Array], Array]) -> Direction:
        def toward(x: Array, gradient: Array, memory: Any) -> tuple[Array, Any]:
            inverse, last, before, steps = memory
            s, y = x - last, gradient - before
            product, square = jnp.vdot(s, y), jnp.vdot(y, y)
            learns = (steps > 0) & (product > 0)
            rho = 1 / jnp.where(learns, product, 1)
            scale = jnp.where((steps == 1) & learns, product / jnp.where(square > 0, square, 1), 1)
            left = jnp.eye(x.size, dtype=x.dtype) - rho * jnp.outer(s, y)
            new = left @ (scale * inverse) @ left.T + rho * jnp.outer(s, s)
            inverse = jnp.where(learns & jnp.isfinite(new).all(), new, inverse)
            p = -inverse @ gradient
            first = p / jnp.maximum(1, jnp.linalg.norm(p))  # a step of 1 would be out of scale
            return jnp.where(steps > 0, p, first), (inverse, x, gradient, steps + 1)

        return toward

    return descend(
        f,
        x0,
        direction,
        lambda x: (jnp.eye(x.size, dtype=x.dtype), x, jnp.zeros_like(x), jnp.int32(0)),
        tol=tol,
        max_steps=max_steps,
        where="bfgs",
    )


def lbfgs(
    f: Callable[[Any], Any],
    x0: Any,
    *,
    memory_size: int = 10,
    tol: Any = None,
    max_steps: Any = 1000,
) -> Solution:
    """L-BFGS: as `bfgs`, from the last few steps only, in `2 memory_size n` numbers.

    The direction and the line search are Optax's; `optax.lbfgs` is the same as a transformation,
    for one's own loop.

    Args:
      f: tree -> (), floating point.
      memory_size: how many steps are remembered.
      tol, max_steps: as in `bfgs`.

    Shapes: x0: a tree of floating point arrays, n numbers in all; the solution's x: as x0.

    Raises:
      TypeError, ValueError: as `bfgs`; memory_size is below 1.

    Source: Liu & Nocedal 1989; Nocedal & Wright, algorithm 7.5.

    Example:
      >>> found = lbfgs(lambda p: jnp.sum((p["a"] - 1) ** 2) + p["b"] ** 2,
      ...               {"a": jnp.zeros(3), "b": 2.0})
      >>> found.x["a"].round(3).tolist(), bool(found.converged)
      ([1.0, 1.0, 1.0], True)
    """
    rule = optax.scale_by_lbfgs(as_int(memory_size, "lbfgs: memory_size", 1))

    def direction(_: Callable[[Array], Array]) -> Direction:
        def toward(x: Array, gradient: Array, memory: Any) -> tuple[Array, Any]:
            scaled, memory = rule.update(gradient, memory, x)
            return -jnp.asarray(scaled), memory

        return toward

    return descend(f, x0, direction, rule.init, tol=tol, max_steps=max_steps, where="lbfgs")
