"""What the minimisers take and give: a function of a tree, seen as one of a vector."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxd2l.checks import check_floating
from jaxd2l.geometry import as_int

Array = jax.Array


class Solution(NamedTuple):
    """Where a minimiser ended.

    x and the value have derivatives, forward and reverse, with respect to all that the function
    depends on: those of the exact solution (`implicit`). They mean nothing where `converged` is
    False.

    Attributes:
      x: the point, a tree as `x0`.
      value: () f(x).
      residual: () what should be 0 and was compared with the tolerance: the largest entry of the
        gradient, unless the minimiser says otherwise.
      steps: () steps taken, int32.
      converged: () whether the residual is within the tolerance. False also where no step made
        progress any more, where `max_steps` ran out, and where f is not finite at the start (then
        x is that start).
    """

    x: Any
    value: Array
    residual: Array
    steps: Array
    converged: Array


class Problem(NamedTuple):
    """A function of a tree as a function of a vector.

    Attributes:
      f: (n,) -> whatever the function gives.
      x0: (n,) the start, at least float32.
      tree: (n,) -> the tree, in its own dtypes.
    """

    f: Callable[[Array], Any]
    x0: Array
    tree: Callable[[Array], Any]


def as_vector(f: Callable[[Any], Any], x0: Any, where: str) -> Problem:
    """The problem on a vector. Half precision is computed in float32: a line search sees nothing
    in 8 bits.

    Raises:
      TypeError: a leaf of x0 is not floating point.
      ValueError: x0 has no numbers, or one that is known not to be finite.

    Example:
      >>> problem = as_vector(lambda p: p["a"] + p["b"].sum(), {"a": 1.0, "b": jnp.ones(2)}, "here")
      >>> problem.x0.tolist(), float(problem.f(problem.x0))
      ([1.0, 1.0, 1.0], 3.0)
    """
    leaves = jax.tree_util.tree_leaves_with_path(x0)
    dtype = jnp.dtype(jnp.float32)
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        what = f"{where}: x0" + (f" at {name!r}" if name else "")
        check_floating(leaf, what)
        if not isinstance(leaf, jax.core.Tracer) and not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"{what} is not finite; start from finite numbers")
        dtype = jnp.promote_types(dtype, jnp.result_type(leaf))
    own = jax.tree.map(jnp.result_type, x0)
    vector, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.asarray(a).astype(dtype), x0))
    if vector.size == 0:
        raise ValueError(f"{where}: x0 has no numbers in it; got {jax.tree.map(jnp.shape, x0)}")

    def tree(x: Array) -> Any:
        return jax.tree.map(lambda a, d: a.astype(d), unravel(x), own)

    return Problem(lambda x: f(tree(x)), vector, tree)


def objective(f: Callable[[Any], Any], x0: Any, where: str) -> Problem:
    """As `as_vector`, for a function that must give one number.

    Raises:
      TypeError, ValueError: as `as_vector`; f gives something else than one floating point number.

    Example:
      >>> objective(lambda x: x, jnp.ones(2), "here")
      Traceback (most recent call last):
      ValueError: here: f must give one number, of shape (), got (2,)
    """
    problem = as_vector(f, x0, where)
    out = jax.eval_shape(problem.f, problem.x0)
    if not hasattr(out, "shape") or out.shape != ():
        got = out.shape if hasattr(out, "shape") else jax.tree.structure(out)
        raise ValueError(f"{where}: f must give one number, of shape (), got {got}")
    check_floating(out, f"{where}: what f gives")
    return problem._replace(f=lambda x: jnp.asarray(problem.f(x)).astype(x.dtype))


def tolerance(tol: Any, dtype: Any, where: str) -> Any:
    """The tolerance given, or the square root of the dtype's spacing at 1: 3.5e-4 in float32,
    1.5e-8 in float64.

    Example:
      >>> tolerance(-1.0, jnp.float32, "newton")
      Traceback (most recent call last):
      ValueError: newton: tol must not be below 0, got -1.0
    """
    if tol is None:
        return float(jnp.finfo(dtype).eps) ** 0.5
    if isinstance(tol, int | float) and not tol >= 0:
        raise ValueError(f"{where}: tol must not be below 0, got {tol}")
    return jnp.asarray(tol, dtype)


def limit(max_steps: Any, where: str) -> Any:
    """The number of steps allowed: an int from 0 on, or a traced integer, so that one `vmap` over
    it gives all points of the way.

    Example:
      >>> limit(-1, "newton: max_steps")
      Traceback (most recent call last):
      ValueError: newton: max_steps must be at least 0, got -1
    """
    if isinstance(max_steps, jax.Array) and jnp.issubdtype(max_steps.dtype, jnp.integer):
        return max_steps.astype(jnp.int32)
    return as_int(max_steps, where, 0)


def implicit(
    problem: Problem,
    root: Callable[[Array], Array],
    run: Callable[[Array], tuple[Array, Any]],
    bound: Any,
) -> Solution:
    """The solution, with the derivatives of the point where `root` is 0 and not of the way there.

    By the implicit function theorem `dx = -(d root / dx)^-1 (d root / dt) dt` for whatever t the
    functions depend on; a loop has no reverse mode, and its forward mode knows the way only. The
    equations are solved as (n, n), where they are singular by the shortest dx.

    Args:
      root: x -> what is 0 at the solution.
      run: x0 -> (x, (value, residual, steps)).
      bound: the tolerance of the residual.

    Example:
      >>> def solution(t):
      ...     problem = objective(lambda x: (x - t) ** 2, 0.0, "here")
      ...     run = lambda x: (x - x + t, (x[0], x[0], 1))
      ...     return implicit(problem, jax.grad(problem.f), run, 1.0)
      >>> float(jax.grad(lambda t: solution(t).x)(3.0))
      1.0
    """

    def solve(_: Callable[[Array], Array], x0: Array) -> tuple[Array, Any]:
        x, (value, residual, steps) = run(x0)
        return x, (value, residual, jnp.asarray(steps, x.dtype))  # integers have no tangents

    def tangent(product: Callable[[Array], Array], v: Array) -> Array:
        return jnp.linalg.pinv(jax.jacobian(product)(jnp.zeros_like(v))) @ v

    x, (value, residual, steps) = jax.lax.custom_root(
        root, problem.x0, solve, tangent, has_aux=True
    )
    converged = jnp.isfinite(value) & (residual <= bound)
    return Solution(problem.tree(x), problem.f(x), residual, steps.astype(jnp.int32), converged)
