"""Generalised linear models: a linear predictor, and a function that turns it into a mean.

The link g maps the mean to the predictor, g(mean) = x w + b. What a network calls its last
activation is the *inverse* link: sigmoid for probabilities, exp for counts. (The notes, 002 IV.14,
call the activation the link.)
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.checks import check_floating, check_rank
from jaxd2l.geometry import as_int
from jaxd2l.ops.regression import check_examples, solver_dtype

Array = jax.Array


class Family(NamedTuple):
    """A distribution of targets with its canonical link; GAUSSIAN, BERNOULLI and POISSON are here.

    Attributes:
      link: mean -> predictor.
      inverse_link: predictor -> mean; its derivative is the variance.
      residual: (predictor, target) -> target - mean, without cancellation.
      variance: predictor -> variance, for a dispersion of 1.
      loss: (predictor, target) -> negative log-likelihood, but for a term of the target alone; NaN
        for targets that the distribution cannot give.

    Example:
      >>> [f"{POISSON.link(POISSON.inverse_link(x)):.1f}" for x in (-2.0, 0.0, 3.0)]
      ['-2.0', '0.0', '3.0']
    """

    link: Callable[[Array], Array]
    inverse_link: Callable[[Array], Array]
    residual: Callable[[Array, Array], Array]
    variance: Callable[[Array], Array]
    loss: Callable[[Array, Array], Array]


def logit(mean: Array) -> Array:
    """The logit link log(p / (1 - p)), the inverse of sigmoid; -inf at 0 and inf at 1.

    Shapes: mean (...) in [0, 1]; result (...).

    Example:
      >>> print(logit(jnp.array([0.0, 0.5, 0.75])).round(4))
      [  -inf 0.     1.0986]
    """
    check_floating(mean, "logit: mean")
    return jnp.log(mean) - jnp.log1p(-mean)


def _where(allowed: Array, loss: Array) -> Array:
    return jnp.where(allowed, loss, jnp.full_like(loss, jnp.nan))


GAUSSIAN = Family(
    link=lambda mean: mean,
    inverse_link=lambda eta: eta,
    residual=lambda eta, y: y - eta,
    variance=jnp.ones_like,
    loss=lambda eta, y: jnp.square(y - eta) / 2,
)

BERNOULLI = Family(
    link=logit,
    inverse_link=jax.nn.sigmoid,
    # exact far from 0: there y - sigmoid(eta) would be rounded to 0
    residual=lambda eta, y: y * jax.nn.sigmoid(-eta) - (1 - y) * jax.nn.sigmoid(eta),
    variance=lambda eta: jax.nn.sigmoid(eta) * jax.nn.sigmoid(-eta),
    loss=lambda eta, y: _where(
        (y >= 0) & (y <= 1), y * jax.nn.softplus(-eta) + (1 - y) * jax.nn.softplus(eta)
    ),
)

POISSON = Family(
    link=jnp.log,
    inverse_link=jnp.exp,
    residual=lambda eta, y: y - jnp.exp(eta),
    variance=jnp.exp,
    loss=lambda eta, y: _where(y >= 0, jnp.exp(eta) - y * eta),
)


class GeneralizedLinearFit(NamedTuple):
    """What `fit_generalized_linear` found.

    Attributes:
      kernel: (d,).
      bias: ().
      converged: () bool. False where no finite parameters are best (classes that a plane
        separates), where targets are not possible, and where the steps did not suffice.
      steps: () int32, taken.
    """

    kernel: Array
    bias: Array
    converged: Array
    steps: Array


class _Search(NamedTuple):
    weights: Array  # (d + 1,), the bias last
    moved: Array  # () the largest change of a predictor by the last full step
    rank: Array  # () of the weighted design
    steps: Array  # ()


def generalized_linear(x: Array, kernel: Array, bias: Array, family: Family) -> Array:
    """The mean of the targets, g^-1(x w + b): a dense layer of one unit, the inverse link after it.

    A deep network is the same again and again: each layer a generalised linear model of the one
    before.

    Shapes:
      x: (..., d); kernel: (d,); bias: (); result: (...).

    Raises:
      TypeError: x is not floating point.
      ValueError: the shapes do not fit.

    Source: Nelder and Wedderburn 1972.

    Example:
      >>> x = jnp.array([[0.0], [5.0]])
      >>> print(generalized_linear(x, jnp.ones(1), jnp.zeros(()), BERNOULLI))
      [0.5       0.9933072]
    """
    check_floating(x, "generalized_linear: x")
    check_rank(kernel, 1, "generalized_linear: kernel", "(d,)")
    if jnp.ndim(x) == 0 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"generalized_linear: x must have shape (..., {kernel.shape[0]}), got {jnp.shape(x)}"
        )
    return family.inverse_link(jnp.matmul(x, kernel) + bias)


def fit_generalized_linear(
    x: Array, y: Array, family: Family, *, max_steps: int = 50
) -> GeneralizedLinearFit:
    """Maximum likelihood by Newton's method: least squares, reweighted in each step.

    Each step solves `(X^T V X) step = X^T (y - mean)` with the variances V at hand, and is halved
    until the likelihood does not fall. It is done when a step moves no predictor by more than the
    root of the rounding error times (1 + the largest): the step after would be below rounding.

    Where a plane separates the classes, no parameters are best: each step then moves predictors by
    about 1 without end, variances fall below rounding, and `converged` is False. Columns that
    depend on each other are no obstacle: the step is the smallest of those that are equally good.

    Derivatives with respect to x and y are those of the solution (implicit differentiation), in
    forward and in reverse mode; they need no memory for the steps.

    Shapes:
      x: (n, d).
      y: (n,), floating point: numbers, 0 and 1 (or shares between), or counts.
      kernel: (d,); bias, converged, steps: ().

    Raises:
      TypeError: not floating point.
      ValueError: the shapes do not fit, or max_steps below 1.

    Source: Nelder and Wedderburn 1972; McCullagh and Nelder 1989, 2.5. Equal to scikit-learn's
    LogisticRegression and PoissonRegressor without penalty.

    Example:
      >>> x = jnp.array([[0.0], [0.0], [1.0], [1.0]])
      >>> fit = fit_generalized_linear(x, jnp.array([2.0, 4.0, 5.0, 7.0]), POISSON)
      >>> f"{jnp.exp(fit.bias):.2f} {jnp.exp(fit.bias + fit.kernel[0]):.2f} {fit.converged}"
      '3.00 6.00 True'
    """
    where = "fit_generalized_linear"
    check_examples(x, y, where, columns=False)
    limit = as_int(max_steps, f"{where}: max_steps", 1)
    dtype = solver_dtype(x, y)
    rows, targets = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
    n, d = rows.shape
    # Columns around 0 and of size 1, by constants: the solution moves with them.
    fixed = jax.lax.stop_gradient(rows)
    centre = jnp.mean(fixed, axis=0, keepdims=True)
    scale = jnp.sqrt(jnp.mean(jnp.square(fixed - centre), axis=0, keepdims=True))
    scale = jnp.where(scale > 0, scale, jnp.ones_like(scale))
    design = jnp.concatenate([(rows - centre) / scale, jnp.ones((n, 1), dtype)], axis=1)

    def gradient(weights: Array) -> Array:
        return jnp.matmul(design.T, family.residual(jnp.matmul(design, weights), targets))

    def solve(_: Callable[[Array], Array], start: Array) -> tuple[Array, tuple[Array, Array]]:
        weights, converged, steps = _newton(family, design, targets, start, limit)
        return weights, (converged.astype(dtype), steps.astype(dtype))  # floats have derivatives

    def tangent_solve(linear: Callable[[Array], Array], b: Array) -> Array:
        hessian = jax.vmap(linear)(jnp.eye(d + 1, dtype=dtype))  # symmetric
        return jnp.matmul(jnp.linalg.pinv(hessian), b)

    mean = (jnp.sum(targets) + 0.5) / (n + 1)  # never on the edge of what is possible
    start = jnp.zeros(d + 1, dtype).at[-1].set(jax.lax.stop_gradient(family.link(mean)))
    weights, (converged, steps) = jax.lax.custom_root(
        gradient, start, solve, tangent_solve, has_aux=True
    )
    kernel = weights[:-1] / scale[0]
    bias = weights[-1] - jnp.sum(kernel * centre[0])
    return GeneralizedLinearFit(
        kernel.astype(y.dtype), bias.astype(y.dtype), converged > 0, steps.astype(jnp.int32)
    )


@functools.partial(jax.jit, static_argnames=("family", "limit"))
def _newton(
    family: Family, design: Array, targets: Array, start: Array, limit: int
) -> tuple[Array, Array, Array]:
    """(weights, whether they are the best, steps taken), from `start`."""
    dtype = design.dtype
    eps = float(jnp.finfo(dtype).eps)
    halves = jnp.asarray(2.0 ** -np.arange(16.0), dtype)[:, None]

    def settled(search: _Search) -> Array:
        largest = jnp.max(jnp.abs(jnp.matmul(design, search.weights)))
        return (search.moved <= eps**0.5 * (1 + largest)) & jnp.isfinite(largest)

    def go_on(search: _Search) -> Array:
        finite = jnp.all(jnp.isfinite(search.weights))
        return (search.steps < limit) & ~settled(search) & finite

    def step(search: _Search) -> _Search:
        eta = jnp.matmul(design, search.weights)
        root = jnp.sqrt(family.variance(eta))
        seen = root > 0
        wanted = jnp.where(seen, family.residual(eta, targets) / jnp.where(seen, root, 1), 0)
        move, _, rank, _ = jnp.linalg.lstsq(root[:, None] * design, wanted)
        way = jnp.matmul(design, move)
        found = jnp.sum(family.loss(eta[None] + halves * way[None], targets[None]), axis=1)
        losses = family.loss(eta, targets)
        better = found <= jnp.sum(losses) + 8 * eps * jnp.sum(jnp.abs(losses))  # no if NaN
        some = jnp.any(better)
        length = jnp.where(some, halves[jnp.argmax(better), 0], 0)
        moved = jnp.where(some, jnp.max(jnp.abs(way)), jnp.inf)
        weights = search.weights + length * move
        return _Search(weights, moved, jnp.asarray(rank, jnp.int32), search.steps + 1)

    zero = jnp.zeros((), jnp.int32)
    first = _Search(start, jnp.full((), jnp.inf, dtype), zero, zero)
    last = jax.lax.while_loop(go_on, step, first)
    # Variances that have all but gone leave directions undecided: classes that can be told apart.
    whole = jnp.linalg.matrix_rank(design, rtol=eps * max(design.shape))
    return last.weights, settled(last) & (last.rank == whole), last.steps
