"""Conjugate gradients: for linear equations, and for any smooth function."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating
from jaxd2l.optim.descent import Direction, descend
from jaxd2l.optim.solution import Problem, Solution, as_vector, implicit, limit, tolerance

Array = jax.Array


def solve(
    matvec: Callable[[Array], Array], b: Array, x: Array, bound: Any, most: Any
) -> tuple[Array, Array, Array]:
    """Conjugate gradients on vectors until `||b - A x|| <= bound`, `most` steps are taken or a
    direction p has no positive curvature `p.A p`.

    Returns: x; the residual b - A x; the number of steps.

    Example:
      >>> x, residual, steps = solve(lambda v: 2 * v, jnp.ones(3), jnp.zeros(3), 1e-6, 9)
      >>> x.tolist(), int(steps)
      ([0.5, 0.5, 0.5], 1)
    """

    def goes_on(loop: Any) -> Array:
        _, _, _, square, steps, curved = loop
        return (jnp.sqrt(square) > bound) & (steps < most) & curved

    def step(loop: Any) -> Any:
        x, residual, p, square, steps, _ = loop
        product = matvec(p)
        curvature = jnp.vdot(p, product)
        curved = curvature > 0
        rate = jnp.where(curved, square / jnp.where(curved, curvature, 1), 0)
        x, residual = x + rate * p, residual - rate * product
        now = jnp.vdot(residual, residual)
        p = residual + (now / square) * p
        return x, residual, p, now, steps + curved.astype(jnp.int32), curved

    r = b - matvec(x)
    first = (x, r, r, jnp.vdot(r, r), jnp.int32(0), jnp.array(True))
    x, r, _, _, steps, _ = jax.lax.while_loop(goes_on, step, first)
    return x, r, steps


def conjugate_gradient(
    A: Array | Callable[[Any], Any],
    b: Any,
    x0: Any = None,
    *,
    tol: Any = None,
    max_steps: Any = None,
) -> Solution:
    """Solve `A x = b` for a symmetric positive definite A, that is minimise `x.A x / 2 - b.x`.

    In exact arithmetic n steps are enough, and as many as A has different eigenvalues; after k
    steps the error in the norm of A is at most `2 ((sqrt(c) - 1) / (sqrt(c) + 1))^k` times the
    first one, c the condition number. Rounding costs some steps more.

    `jax.scipy.sparse.linalg.cg` finds the same x; it counts no steps and does not say whether it
    converged.

    Args:
      A: the matrix, or a linear function of trees such as b (a Hessian-vector product).
      x0: the start; zeros by default.
      tol: converged when `||b - A x|| <= tol ||b||`; by default the square root of the dtype's
        spacing.
      max_steps: by default 10 n.

    Shapes:
      A: (n, n), b: (n,); or a tree of n numbers in all; x0: as b.

    Returns: a `Solution` whose residual is `||b - A x|| / ||b||`. `converged` is False also where
      a direction of no positive curvature was met, as A is then not positive definite.

    Raises:
      TypeError: b or A is not floating point.
      ValueError: shapes that do not fit.

    Source: Hestenes & Stiefel 1952; Nocedal & Wright, algorithm 5.2.

    Example:
      >>> found = conjugate_gradient(jnp.array([[4.0, 1.0], [1.0, 3.0]]), jnp.array([1.0, 2.0]))
      >>> found.x, int(found.steps)
      (Array([0.09090909, 0.6363636 ], dtype=float32), 2)
    """
    where = "conjugate_gradient"
    problem = as_vector(lambda x: x, b, f"{where}: b")
    vector = problem.x0
    product: Callable[[Any], Any]
    if callable(A):
        product = A
    else:
        check_floating(A, f"{where}: A")
        if jnp.ndim(b) != 1 or jnp.shape(A) != (vector.size, vector.size):
            raise ValueError(
                f"{where}: A must be (n, n) and b (n,), got {jnp.shape(A)} and {jnp.shape(b)}; "
                "for trees let A be a function"
            )
        product = jnp.asarray(A, vector.dtype).__matmul__

    def matvec(v: Array) -> Array:
        return as_vector(lambda x: x, product(problem.tree(v)), f"{where}: A x").x0.astype(v.dtype)

    start = jnp.zeros_like(vector)
    if x0 is not None:
        start = as_vector(lambda x: x, x0, where).x0.astype(vector.dtype)
    for name, size in (("x0", start.size), ("A x", jax.eval_shape(matvec, vector).size)):
        if size != vector.size:
            raise ValueError(f"{where}: {name} has {size} numbers, b has {vector.size}")
    bound = tolerance(tol, vector.dtype, where)
    most = 10 * vector.size if max_steps is None else limit(max_steps, f"{where}: max_steps")
    norm = jnp.linalg.norm(vector)

    def run(x: Array) -> tuple[Array, Any]:
        x, r, steps = solve(matvec, vector, x, bound * norm, most)
        error = jnp.linalg.norm(r) / jnp.where(norm > 0, norm, 1)
        return x, (error, error, steps)

    quadratic = Problem(
        lambda x: jnp.vdot(x, matvec(x)) / 2 - jnp.vdot(vector, x), start, problem.tree
    )
    return implicit(quadratic, lambda x: matvec(x) - vector, run, bound)


def nonlinear_conjugate_gradient(
    f: Callable[[Any], Any], x0: Any, *, tol: Any = None, max_steps: Any = 1000
) -> Solution:
    """Conjugate gradients for any smooth function: no matrix is stored.

    `p = -g + max(0, g.(g - g') / g'.g') p'`, with ' for the step before: Polak and Ribiere's
    formula, cut off at 0. After a step that got nowhere g is almost g', so that the method begins
    afresh; that of Fletcher and Reeves, `g.g / g'.g'`, would go on with a bad direction. On a
    quadratic with exact line searches both are `conjugate_gradient`; here the line search is
    exact up to a tenth of the slope.

    Args:
      f: tree -> (), floating point.
      tol: converged when no entry of the gradient is above it; by default the square root of the
        dtype's spacing, 3.5e-4 in float32.
      max_steps: an int or a traced integer.

    Shapes: x0: a tree of floating point arrays, n numbers in all; the solution's x: as x0.

    Raises:
      TypeError: x0 or f(x0) is not floating point.
      ValueError: x0 is empty or known not to be finite; f(x0) is not ().

    Source: Polak & Ribiere 1969; Nocedal & Wright 5.2.

    Example:
      >>> found = nonlinear_conjugate_gradient(lambda x: x[0] ** 4 + (x[1] - 1) ** 2, jnp.ones(2))
      >>> bool(found.converged), round(float(found.x[1]), 2)
      (True, 1.0)
    """

    def direction(_: Callable[[Array], Array]) -> Direction:
        def toward(x: Array, gradient: Array, memory: Any) -> tuple[Array, Any]:
            last, before = memory
            square = jnp.vdot(before, before)
            ratio = jnp.vdot(gradient, gradient - before) / jnp.where(square > 0, square, 1)
            p = -gradient + jnp.maximum(ratio, 0) * last
            p = jnp.where(jnp.vdot(p, gradient) < 0, p, -gradient)
            return p, (p, gradient)

        return toward

    return descend(
        f,
        x0,
        direction,
        lambda x: (jnp.zeros_like(x), jnp.zeros_like(x)),
        tol=tol,
        max_steps=max_steps,
        where="nonlinear_conjugate_gradient",
        curvature=0.1,
        guess="keep",
    )
