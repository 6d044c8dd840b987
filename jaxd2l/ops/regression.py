"""Linear models with a closed form: least squares, ridge, and how many parameters a fit spends."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.checks import check_floating, check_rank

Array = jax.Array


class LinearFit(NamedTuple):
    """A linear model y = x kernel + bias; what `ops.linear.dense` and a `Dense` layer take.

    Attributes:
      kernel: (d, k), or (d,) where the targets were (n,).
      bias: (k,), or ().
    """

    kernel: Array
    bias: Array


def check_examples(x: Array, y: Array, where: str, *, columns: bool) -> None:
    """Refuse anything but rows x (n, d) with a target (n,) each, or (n, k) if `columns`.

    Example:
      >>> check_examples(jnp.zeros((3, 2)), jnp.zeros((3, 1)), "fit", columns=False)
      Traceback (most recent call last):
      ValueError: fit: y must have shape (n,), got (3, 1)
    """
    check_floating(x, f"{where}: x")
    check_floating(y, f"{where}: y")
    check_rank(x, 2, f"{where}: x", "(n, d)")
    check_rank(y, (1, 2) if columns else 1, f"{where}: y", "(n,) or (n, k)" if columns else "(n,)")
    if x.shape[0] != y.shape[0] or not x.size or not y.size:
        raise ValueError(
            f"{where}: x and y must have the same number of rows, at least one, and no empty axis, "
            f"got {tuple(x.shape)} and {tuple(y.shape)}"
        )


def solver_dtype(*arrays: Array) -> jnp.dtype:
    """The dtype in which matrices are factored: float64 if one of `arrays` is, else float32.

    Example:
      >>> solver_dtype(jnp.zeros(1, jnp.bfloat16)).name
      'float32'
    """
    double = any(jnp.result_type(a) == jnp.float64 for a in arrays)
    return jnp.dtype(jnp.float64 if double else jnp.float32)


def _centred(x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """x and y (as columns) around their means, and the means: the bias is then fitted already."""
    dtype = solver_dtype(x, y)
    x, y = x.astype(dtype), jnp.reshape(y, (y.shape[0], -1)).astype(dtype)
    x_mean, y_mean = jnp.mean(x, axis=0, keepdims=True), jnp.mean(y, axis=0, keepdims=True)
    return x - x_mean, y - y_mean, x_mean, y_mean


def _fit(kernel: Array, x_mean: Array, y_mean: Array, y: Array) -> LinearFit:
    bias = y_mean - jnp.matmul(x_mean, kernel)  # (1, k)
    kernel, bias = kernel.astype(y.dtype), bias.astype(y.dtype)
    return LinearFit(kernel, bias[0]) if jnp.ndim(y) == 2 else LinearFit(kernel[:, 0], bias[0, 0])


def linear_regression(x: Array, y: Array) -> LinearFit:
    """Least squares: the w and b with the smallest `sum(|y - x w - b|^2)`, in closed form.

    w = X^+ y with centred X and y, and b = mean(y) - mean(x) w. With full column rank
    X^+ = (X^T X)^-1 X^T. Where many w are equally good (more columns than rows, columns that depend
    on each other) it is the one of smallest |w|; b is free. Singular values below
    eps max(n, d) times the largest count as 0, as in NumPy's `lstsq`.

    Derivatives are those of the pseudo-inverse; they hold while the rank stays.

    Shapes:
      x: (n, d).
      y: (n,), or (n, k) for k models at once.
      kernel: (d,) or (d, k); bias: () or (k,), of the dtype of y.

    Raises:
      TypeError: not floating point.
      ValueError: the shapes do not fit.

    Source: D2L 3.1.1.3 (w* = (X^T X)^-1 X^T y); equal to scikit-learn's LinearRegression.

    Example:
      >>> fit = linear_regression(jnp.array([[0.0], [1.0], [2.0]]), jnp.array([1.0, 3.0, 5.0]))
      >>> f"{fit.kernel[0]:.3f} {fit.bias:.3f}"
      '2.000 1.000'
    """
    check_examples(x, y, "linear_regression", columns=True)
    rows, targets, x_mean, y_mean = _centred(x, y)
    rtol = float(jnp.finfo(rows.dtype).eps) * max(rows.shape)
    inverse = jnp.linalg.pinv(rows, rtol=rtol)  # (d, n)
    return _fit(jnp.matmul(inverse, targets), x_mean, y_mean, y)


def ridge_regression(x: Array, y: Array, strength: Array | float) -> LinearFit:
    """The w and b with the smallest `sum(|y - x w - b|^2) + strength |w|^2`, in closed form.

    w = (X^T X + strength I)^-1 X^T y with centred X and y; the bias is not penalised, so scale the
    columns of x before, for instance to unit deviation. Computed from a QR decomposition of X over
    sqrt(strength) I, which, unlike X^T X, loses no digits; with more columns than rows, of X^T.

    As strength falls to 0, w goes to that of `linear_regression`, the smallest where many are
    equally good. Weight decay c on a *mean* of halved squares is strength n c.

    Shapes:
      x: (n, d).
      y: (n,), or (n, k) for k models at once.
      strength: (), above 0; it may be traced, and mapped over.
      kernel: (d,) or (d, k); bias: () or (k,), of the dtype of y.

    Raises:
      TypeError: not floating point.
      ValueError: the shapes do not fit, or a strength that is not above 0. A traced one cannot be
        checked: below 0 gives NaN.

    Source: Hoerl and Kennard 1970; D2L 3.7; equal to scikit-learn's Ridge(alpha=strength).

    Example:
      >>> fit = ridge_regression(jnp.array([[0.0], [1.0], [2.0]]), jnp.array([1.0, 3.0, 5.0]), 2.0)
      >>> f"{fit.kernel[0]:.3f} {fit.bias:.3f}"
      '1.000 2.000'
    """
    check_examples(x, y, "ridge_regression", columns=True)
    if jnp.ndim(strength) != 0:
        raise ValueError(
            f"ridge_regression: strength must be one number, got shape {jnp.shape(strength)}; "
            f"use jax.vmap for several"
        )
    if not isinstance(strength, jax.core.Tracer) and not float(strength) > 0:
        raise ValueError(
            f"ridge_regression: strength must be above 0, got {float(strength):g}; without a "
            f"penalty use linear_regression"
        )
    rows, targets, x_mean, y_mean = _centred(x, y)
    n, d = rows.shape
    tall = n >= d
    part = rows if tall else rows.T  # (m, p), p the smaller
    root = jnp.sqrt(jnp.asarray(strength).astype(rows.dtype))
    below = root * jnp.eye(part.shape[1], dtype=rows.dtype)
    q, r = jnp.linalg.qr(jnp.concatenate([part, below]))
    top = q[: part.shape[0]]
    if tall:
        kernel = jax.scipy.linalg.solve_triangular(r, jnp.matmul(top.T, targets))
    else:
        kernel = jnp.matmul(top, jax.scipy.linalg.solve_triangular(r, targets, trans="T"))
    return _fit(kernel, x_mean, y_mean, y)


def effective_parameters(fitted: Callable[[Array], Array], y: Array) -> Array:
    """How many parameters a fit spends on its targets: sum_i d fitted_i / d y_i.

    For a linear smoother, fitted = S y, it is the trace of S: d + 1 for least squares with a bias,
    n / k for the k nearest neighbours, 1 + sum_j s_j^2 / (s_j^2 + strength) for ridge regression
    with the singular values s of the centred inputs.

    Shapes:
      fitted: from the targets (n,) of the training examples to the predictions (n,) for them.
      y: (n,); result: ().

    Raises:
      TypeError: not floating point.
      ValueError: y or the predictions are not (n,).

    Source: Hastie, Tibshirani and Friedman 2009, 5.4.1 and 7.6.

    Example:
      >>> x = jnp.arange(8.0).reshape(4, 2) ** 2
      >>> def fitted(y):
      ...     fit = linear_regression(x, y)
      ...     return x @ fit.kernel + fit.bias
      >>> f"{effective_parameters(fitted, jnp.ones(4)):.3f}"
      '3.000'
    """
    check_floating(y, "effective_parameters: y")
    check_rank(y, 1, "effective_parameters: y", "(n,)")
    predicted = jax.eval_shape(fitted, y)
    if predicted.shape != y.shape:
        raise ValueError(
            f"effective_parameters: fitted must give one prediction for each of the "
            f"{np.shape(y)[0]} targets, got shape {predicted.shape}"
        )
    return jnp.trace(jax.jacobian(fitted)(y))
