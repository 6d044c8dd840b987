"""Jacobians and Hessians as matrices, and what they say of a point."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating
from jaxd2l.optim.solution import as_vector, objective, tolerance

Array = jax.Array


def jacobian(f: Callable[[Any], Any], x: Any) -> Array:
    """The Jacobian as one matrix, `J_ij = df_i / dx_j`, trees counted leaf by leaf.

    By columns (forward) where f gives at least as many numbers as x has, else by rows (backward).

    Shapes:
      x: a tree of floating point arrays, n numbers in all; f(x): such a tree of m numbers;
      result: (m, n).

    Raises:
      TypeError: x is not floating point.
      ValueError: x is empty or known not to be finite.

    Source: D2L 2.4 and 22.3 (multivariable calculus). `jax.jacfwd` and `jax.jacrev` give the same
    as a tree of trees.

    Example:
      >>> jacobian(lambda x: jnp.stack([x[0] * x[1], x[1] ** 2, x[0]]), jnp.array([2.0, 3.0]))
      Array([[3., 2.],
             [0., 6.],
             [1., 0.]], dtype=float32)
    """
    problem = as_vector(f, x, "jacobian")

    def flat(v: Array) -> Array:
        return as_vector(lambda y: y, problem.f(v), "jacobian: f(x)").x0

    forward = jax.eval_shape(flat, problem.x0).size >= problem.x0.size
    return (jax.jacfwd if forward else jax.jacrev)(flat)(problem.x0)


def hvp(f: Callable[[Any], Any], x: Any, v: Any) -> Any:
    """The Hessian times a vector, `H v`, at the cost of about two gradients: the derivative of the
    gradient in the direction v, forward over reverse.

    Shapes:
      x: a tree of floating point arrays; f(x): (); v and the result: as x.

    Raises:
      TypeError, ValueError: v does not have the tree, shapes and dtypes of x; by JAX.

    Source: Pearlmutter 1994.

    Example:
      >>> hvp(lambda x: x[0] ** 2 * x[1], jnp.array([3.0, 4.0]), jnp.array([1.0, 0.0]))
      Array([8., 6.], dtype=float32)
    """
    return jax.jvp(jax.grad(f), (x,), (v,))[1]


def hessian(f: Callable[[Any], Any], x: Any) -> Array:
    """The Hessian as one matrix, `H_ij = d2f / dx_i dx_j`, trees counted leaf by leaf; symmetric
    to the last bit.

    Shapes:
      x: a tree of floating point arrays, n numbers in all; f(x): (); result: (n, n).

    Raises:
      TypeError: x or f(x) is not floating point.
      ValueError: x is empty or known not to be finite; f(x) is not ().

    Source: Goodfellow et al. 4.3.1.

    Example:
      >>> hessian(lambda x: 0.1 * x[0] ** 2 + 2 * x[1] ** 2, jnp.ones(2))
      Array([[0.2, 0. ],
             [0. , 4. ]], dtype=float32)
    """
    problem = objective(f, x, "hessian")
    identity = jnp.eye(problem.x0.size, dtype=problem.x0.dtype)
    rows = jax.vmap(lambda v: hvp(problem.f, problem.x0, v))(identity)
    return (rows + rows.T) / 2


def condition_number(matrix: Array) -> Array:
    """`c = s_max / s_min` of the singular values, of a Hessian `|l|_max / |l|_min`: infinite for a
    singular matrix, 1 for a rotation.

    On a quadratic, gradient descent at its best rate `2 / (l_max + l_min)` shrinks the error by
    `(c - 1) / (c + 1)` a step, conjugate gradients by about `(sqrt(c) - 1) / (sqrt(c) + 1)`,
    Newton's method to 0.

    Shapes: matrix: (m, n); result: ().

    Raises:
      TypeError: not floating point.
      ValueError: not a matrix, or an empty one.

    Source: Goodfellow et al. 4.2; D2L 12.6.

    Example:
      >>> condition_number(hessian(lambda x: 0.1 * x[0] ** 2 + 2 * x[1] ** 2, jnp.ones(2)))
      Array(20., dtype=float32)
    """
    check_floating(matrix, "condition_number: matrix")
    shape = jnp.shape(matrix)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"condition_number: matrix must be (m, n), got {shape}")
    sizes = jnp.linalg.svd(matrix, compute_uv=False)
    return jnp.where(sizes[-1] > 0, sizes[0] / jnp.where(sizes[-1] > 0, sizes[-1], 1), jnp.inf)


class CriticalPoint(NamedTuple):
    """What the second derivatives say of a point.

    Attributes:
      eigenvalues: (n,) of the Hessian, ascending.
      negative: () how many are below 0, int32, called the index: 0 at a minimum, n at a maximum.
      zero: () how many are 0 within the tolerance, int32.
      residual: () the largest entry of the gradient.
      critical: () whether that is within the tolerance.
    """

    eigenvalues: Array
    negative: Array
    zero: Array
    residual: Array
    critical: Array

    @property
    def kind(self) -> str:
        """ "minimum", "maximum", "saddle", "degenerate", or "not critical". Outside of `jit`, of
        one point; under `vmap` the numbers above say the same."""
        n, negative, zero = self.eigenvalues.shape[-1], int(self.negative), int(self.zero)
        if not self.critical:
            return "not critical"
        if 0 < negative < n - zero:
            return "saddle"
        if zero:
            return "degenerate"
        return "minimum" if negative == 0 else "maximum"


def classify_critical_point(f: Callable[[Any], Any], x: Any, *, tol: Any = None) -> CriticalPoint:
    """Tell minima, maxima and saddles apart, by the signs of the Hessian's eigenvalues.

    All above 0: a strict local minimum; all below: a strict local maximum; both signs: a saddle,
    whatever the others are. Otherwise some are 0 and the point is degenerate: this test cannot
    tell (x^4, x^3 and -x^4 at 0). It says nothing of whether a minimum is the global one, which no
    test at a point can, unless f is convex.

    Args:
      tol: the gradient's largest entry may be that far from 0, and an eigenvalue is 0 within
        `tol` times the largest one; by default the square root of the dtype's spacing, 3.5e-4 in
        float32.

    Shapes: x: a tree of floating point arrays, n numbers in all; f(x): ().

    Returns: a `CriticalPoint`, of which `kind` is the word.

    Raises:
      TypeError: x or f(x) is not floating point.
      ValueError: x is empty or known not to be finite; f(x) is not ().

    Source: Goodfellow et al. 4.3.1; D2L 12.1.

    Example:
      >>> at = jnp.zeros(2)
      >>> classify_critical_point(lambda x: x[0] ** 2 - x[1] ** 2, at).kind
      'saddle'
      >>> classify_critical_point(lambda x: x[0] ** 2 + x[1] ** 4, at).kind
      'degenerate'
    """
    where = "classify_critical_point"
    problem = objective(f, x, where)
    bound = tolerance(tol, problem.x0.dtype, where)
    residual = jnp.abs(jax.grad(problem.f)(problem.x0)).max()
    values = jnp.linalg.eigvalsh(hessian(problem.f, problem.x0))
    near = bound * jnp.abs(values).max()
    return CriticalPoint(
        values,
        (values < -near).sum(dtype=jnp.int32),
        (jnp.abs(values) <= near).sum(dtype=jnp.int32),
        residual,
        residual <= bound,
    )
