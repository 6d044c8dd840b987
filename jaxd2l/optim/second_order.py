"""Methods that use second derivatives: Newton's, whole or without a matrix, and Gauss's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.optim.conjugate import solve
from jaxd2l.optim.derivatives import hessian, hvp, jacobian
from jaxd2l.optim.descent import Direction, descend
from jaxd2l.optim.solution import Solution, as_vector, implicit, limit, tolerance

Array = jax.Array


def newton(f: Callable[[Any], Any], x0: Any, *, tol: Any = None, max_steps: Any = 100) -> Solution:
    """Newton's method with a line search: `p = -|H|^-1 g`.

    |H| has the eigenvectors of the Hessian and the absolute values of its eigenvalues, none below
    the largest times the square root of the dtype's spacing. Where the Hessian is positive
    definite this is Newton's step, and a quadratic takes one. Elsewhere p still descends, and
    leaves saddles along their negative curvature instead of being drawn into them. The line search
    begins with the whole step and is that of `descend`.

    Started where the gradient is 0 it stays there and says converged, on a saddle too: see
    `classify_critical_point`. Needs n^2 numbers, and n^3 operations a step.

    Args:
      f: tree -> (), floating point.
      tol: converged when no entry of the gradient is above it; by default the square root of the
        dtype's spacing, 3.5e-4 in float32.
      max_steps: an int or a traced integer.

    Shapes: x0: a tree of floating point arrays, n numbers in all; the solution's x: as x0.

    Raises:
      TypeError: x0 or f(x0) is not floating point.
      ValueError: x0 is empty or known not to be finite; f(x0) is not ().

    Source: Dauphin et al. 2014 (the absolute values); Nocedal & Wright 3.4.

    Example:
      >>> found = newton(lambda x: 0.1 * x[0] ** 2 + 2 * x[1] ** 2, jnp.array([-5.0, -2.0]))
      >>> found.x.round(4).tolist(), int(found.steps)
      ([0.0, 0.0], 1)
    """

    def direction(f: Callable[[Array], Array]) -> Direction:
        def toward(x: Array, gradient: Array, memory: Any) -> tuple[Array, Any]:
            values, vectors = jnp.linalg.eigh(hessian(f, x))
            size = jnp.abs(values)
            floor = size.max() * float(jnp.finfo(x.dtype).eps) ** 0.5
            return -vectors @ ((vectors.T @ gradient) / jnp.maximum(size, floor)), memory

        return toward

    return descend(f, x0, direction, lambda x: (), tol=tol, max_steps=max_steps, where="newton")


def newton_cg(
    f: Callable[[Any], Any], x0: Any, *, tol: Any = None, max_steps: Any = 100
) -> Solution:
    """Newton's method without a matrix: `H p = -g` is solved by conjugate gradients, from
    Hessian-vector products.

    They end at `||H p + g|| <= min(1/2, sqrt(||g||)) ||g||`, which keeps convergence faster than
    linear, or where the curvature along the next direction is not positive: then p is what has
    been found before, -g at first. The line search is that of `descend`.

    Args:
      f: tree -> (), floating point.
      tol, max_steps: as in `newton`; the products within a step are not counted.

    Shapes: x0: a tree of floating point arrays, n numbers in all; the solution's x: as x0.

    Raises:
      TypeError, ValueError: as `newton`.

    Source: Nocedal & Wright, algorithm 7.1.

    Example:
      >>> found = newton_cg(lambda x: jnp.sum(jnp.cosh(x - 1)), jnp.zeros(3))
      >>> found.x.round(3).tolist(), bool(found.converged)
      ([1.0, 1.0, 1.0], True)
    """

    def direction(f: Callable[[Array], Array]) -> Direction:
        def toward(x: Array, gradient: Array, memory: Any) -> tuple[Array, Any]:
            norm = jnp.linalg.norm(gradient)
            bound = jnp.minimum(0.5, jnp.sqrt(norm)) * norm
            zeros = jnp.zeros_like(x)
            p, _, steps = solve(lambda v: hvp(f, x, v), -gradient, zeros, bound, 2 * x.size)
            return jnp.where(steps > 0, p, -gradient), memory

        return toward

    return descend(f, x0, direction, lambda x: (), tol=tol, max_steps=max_steps, where="newton_cg")


def gauss_newton(
    residuals: Callable[[Any], Any],
    x0: Any,
    *,
    damping: Any = 0.0,
    tol: Any = None,
    max_steps: Any = 100,
) -> Solution:
    """Least squares, `f = ||r(x)||^2 / 2`, by `(J'J + m) p = -J'r`: Gauss and Newton's method, and
    with damping that of Levenberg and Marquardt.

    m begins as `damping` times the largest entry of the diagonal of J'J. A step that lowers f is
    made, and m falls to a third; one that does not is not made, and m quadruples, from a millionth
    of that entry at least. So with damping 0 the steps are Gauss and Newton's as long as they
    descend. Equations are solved from J itself by its singular values, which squares no condition
    number; where J has less than full rank the shortest p is taken. J'J is the Hessian without the
    second derivatives of r: exact for linear r, good where the residuals end small.

    Args:
      residuals: tree -> a tree of floating point arrays, m numbers in all.
      damping: 0, or what Levenberg and Marquardt begin with (1e-3); may be traced.
      tol: converged when no entry of the gradient J'r is above it; by default the square root of
        the dtype's spacing, 3.5e-4 in float32.
      max_steps: an int or a traced integer; trials count, made or not.

    Shapes: x0: a tree of floating point arrays, n numbers in all; the solution's x: as x0.

    Raises:
      TypeError: x0 or the residuals are not floating point.
      ValueError: x0 is empty or known not to be finite; damping is below 0.

    Source: Nocedal & Wright 10.3; Madsen, Nielsen & Tingleff 2004.

    Example:
      >>> t = jnp.arange(4.0)
      >>> found = gauss_newton(lambda p: p["a"] * jnp.exp(p["b"] * t) - 2 * jnp.exp(-t / 2),
      ...                      {"a": 1.0, "b": -1.0})
      >>> round(float(found.x["a"]), 3), round(float(found.x["b"]), 3)
      (2.0, -0.5)
    """
    where = "gauss_newton"
    problem = as_vector(residuals, x0, where)
    dtype = problem.x0.dtype
    bound, most = tolerance(tol, dtype, where), limit(max_steps, f"{where}: max_steps")
    if isinstance(damping, int | float) and not damping >= 0:
        raise ValueError(f"{where}: damping must not be below 0, got {damping}")
    for leaf in jax.tree.leaves(jax.eval_shape(problem.f, problem.x0)):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"{where}: residuals must be floating point, got {leaf.dtype}")

    def r(x: Array) -> Array:
        return jnp.concatenate(
            [leaf.astype(dtype).ravel() for leaf in jax.tree.leaves(problem.f(x))]
        )

    def linear(x: Array) -> tuple[Array, Array, Array, Array]:
        """Residuals, Jacobian, f and gradient."""
        out, slopes = r(x), jacobian(r, x)
        return out, slopes, jnp.vdot(out, out) / 2, slopes.T @ out

    def goes_on(loop: Any) -> Array:
        _, (_, _, value, gradient), _, steps, stalled = loop
        far = jnp.abs(gradient).max() > bound
        return (steps < most) & ~stalled & jnp.isfinite(value) & far

    def step(loop: Any) -> Any:
        x, now, factor, steps, _ = loop
        out, slopes, value, _ = now
        scale = jnp.square(slopes).sum(0).max()
        left, sizes, right = jnp.linalg.svd(slopes, full_matrices=False)
        seen = sizes > sizes[0] * max(slopes.shape) * float(jnp.finfo(dtype).eps)
        weights = jnp.where(seen, sizes, 0) / jnp.where(seen, sizes**2 + factor * scale, 1)
        p = -right.T @ (weights * (left.T @ out))
        trial = linear(x + p)
        better = (trial[2] < value) & jnp.isfinite(trial[1]).all()
        stalled = ((x + p) == x).all() | ~jnp.isfinite(p).all()
        new = jax.tree.map(lambda a, b: jnp.where(better, a, b), (x + p, trial), (x, now))
        factor = jnp.where(better, factor / 3, jnp.maximum(4 * factor, 1e-6))
        return *new, factor, steps + 1, stalled & ~better

    def run(x: Array) -> tuple[Array, Any]:
        loop = (x, linear(x), jnp.asarray(damping, dtype), jnp.int32(0), jnp.array(False))
        x, (_, _, value, gradient), _, steps, _ = jax.lax.while_loop(goes_on, step, loop)
        return x, (value, jnp.abs(gradient).max(), steps)

    half = problem._replace(f=lambda x: jnp.square(r(x)).sum() / 2)
    return implicit(half, jax.grad(half.f), run, bound)
