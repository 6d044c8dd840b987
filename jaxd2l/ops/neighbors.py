"""The k nearest neighbours: predictions straight from the training examples, without parameters."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_integer, check_rank
from jaxd2l.geometry import as_int
from jaxd2l.ops.regression import solver_dtype

Array = jax.Array

BLOCK, QUERIES = 1024, 256  # points and queries whose distances are held at once


class Neighbors(NamedTuple):
    """For each query its nearest points, the nearest first.

    Attributes:
      distances: (m, k), Euclidean.
      indices: (m, k) int32, into the points.
    """

    distances: Array
    indices: Array


def _pieces(x: Array, size: int) -> Array:
    """(n, d) -> (ceil(n / size), size, d), the last one filled up with zeros."""
    count = -(-x.shape[0] // size)
    padded = jnp.pad(x, ((0, count * size - x.shape[0]), (0, 0)))
    return padded.reshape(count, size, x.shape[1])


def nearest_neighbors(queries: Array, points: Array, k: int) -> Neighbors:
    """The k points nearest to each query, by Euclidean distance; equal ones by index.

    Points are gone through in blocks of 1024, queries of 256, with the best k so far: the memory is
    O((m + n) d + m k), and never m n. Candidates are ranked by |q|^2 - 2 q p + |p|^2 around the
    mean of the points; the distances of those found are formed anew from differences, so that a
    point's distance to itself is exactly 0. Points whose distances differ by less than the rounding
    of those squares may change places with a point just beyond the k-th.

    Derivatives are those of the distances; which points are near is constant.

    Shapes:
      queries: (m, d); points: (n, d); k from 1 to n.
      distances, indices: (m, k).

    Raises:
      TypeError: not floating point.
      ValueError: the shapes do not fit, or k is outside 1..n.

    Source: Fix and Hodges 1951; equal to scikit-learn's NearestNeighbors (brute force).

    Example:
      >>> points = jnp.array([[0.0], [1.0], [5.0]])
      >>> nearest_neighbors(jnp.array([[0.8]]), points, 2).indices.tolist()
      [[1, 0]]
    """
    where = "nearest_neighbors"
    for value, name, axes in ((queries, "queries", "(m, d)"), (points, "points", "(n, d)")):
        check_floating(value, f"{where}: {name}")
        check_rank(value, 2, f"{where}: {name}", axes)
    if queries.shape[1] != points.shape[1] or not queries.size or not points.size:
        raise ValueError(
            f"{where}: queries and points must have as many columns, and no empty axis, got "
            f"{tuple(queries.shape)} and {tuple(points.shape)}"
        )
    n = points.shape[0]
    k = as_int(k, f"{where}: k", 1)
    if k > n:
        raise ValueError(f"{where}: k = {k} neighbours of {n} points; k must be at most {n}")
    dtype = solver_dtype(queries, points)
    q, p = jnp.asarray(queries, dtype), jnp.asarray(points, dtype)
    found = _nearest(q, p, k, min(BLOCK, n), min(QUERIES, q.shape[0]))
    return Neighbors(found.distances.astype(queries.dtype), found.indices)


def _centre(p: Array) -> Array:
    """About the mean of the finite points (n, d): (1, d); whole numbers keep exact squares."""
    p = jnp.where(jnp.isfinite(p), p, 0)
    mean = jnp.mean(p, axis=0, keepdims=True)
    _, exponent = jnp.frexp(jnp.max(jnp.abs(p - mean)))
    step = jnp.ldexp(jnp.ones((), p.dtype), exponent - 9)
    return jnp.round(mean / step) * step


@functools.partial(jax.jit, static_argnames=("k", "block", "rows"))
def _nearest(q: Array, p: Array, k: int, block: int, rows: int) -> Neighbors:
    n, m, dtype = p.shape[0], q.shape[0], p.dtype
    fixed = jax.lax.stop_gradient(p)
    centre = _centre(fixed)
    blocks = _pieces(fixed - centre, block)
    starts = jnp.arange(blocks.shape[0], dtype=jnp.int32) * block
    far = jnp.finfo(dtype).max  # stands for NaN and infinity: such points are real, but farthest

    def of_rows(part: Array) -> Neighbors:
        centred = jax.lax.stop_gradient(part) - centre

        def merge(best: Neighbors, piece: tuple[Array, Array]) -> tuple[Neighbors, None]:
            others, first = piece
            products = jnp.matmul(centred, others.T, precision=jax.lax.Precision.HIGHEST)
            score = jnp.sum(jnp.square(others), axis=1)[None] - 2 * products
            index = (first + jnp.arange(block, dtype=jnp.int32))[None]
            score = jnp.where(jnp.isfinite(score), score, far)
            score = jnp.where(index < n, score, jnp.inf)
            scores = jnp.concatenate([best.distances, score], axis=1)
            indices = [best.indices, jnp.broadcast_to(index, score.shape)]
            top, at = jax.lax.top_k(-scores, k)  # of equal ones the first, which has a lower index
            nearest = jnp.take_along_axis(jnp.concatenate(indices, axis=1), at, axis=1)
            return Neighbors(-top, nearest), None

        shape = (rows, k)
        none = Neighbors(jnp.full(shape, jnp.inf, dtype), jnp.full(shape, n, jnp.int32))
        indices = jax.lax.scan(merge, none, (blocks, starts))[0].indices
        squares = jnp.sum(jnp.square(part[:, None] - p[indices]), axis=-1)  # (rows, k)
        apart = squares > 0
        distances = jnp.sqrt(jnp.where(apart, squares, 1))  # the derivative of 0 is 0
        distances = jnp.where(apart, distances, 0)
        distances = jnp.where(jnp.isnan(squares), jnp.nan, distances)  # a positive NaN sorts last
        return Neighbors(*jax.lax.sort((distances, indices), dimension=1, num_keys=2))

    found = jax.lax.map(of_rows, _pieces(q, rows))
    return Neighbors(*(a.reshape(-1, k)[:m] for a in found))


def knn_classification(
    queries: Array, points: Array, labels: Array, k: int, num_classes: int
) -> Array:
    """The share of each class among the k nearest points; the largest share is the prediction.

    Non-parametric: what it knows are the examples, and it spends n / k effective parameters
    (`ops.regression.effective_parameters`), more the more there are. Scale the columns before.

    Shapes:
      queries: (m, d); points: (n, d); labels: (n,), integers in [0, num_classes).
      result: (m, num_classes), rows that sum to 1; NaN where a neighbour's label is out of range.

    Raises:
      TypeError: queries or points are not floating point, or labels not integers.
      ValueError: the shapes do not fit, or k is outside 1..n.

    Source: Cover and Hart 1967; equal to scikit-learn's KNeighborsClassifier.

    Example:
      >>> points = jnp.array([[0.0], [1.0], [5.0]])
      >>> print(knn_classification(jnp.array([[0.8]]), points, jnp.array([0, 0, 1]), 2, 2))
      [[1. 0.]]
    """
    check_integer(labels, "knn_classification: labels")
    check_rank(labels, 1, "knn_classification: labels", "(n,)")
    classes = as_int(num_classes, "knn_classification: num_classes", 1)
    _check_values(points, labels, "knn_classification: labels")
    near = nearest_neighbors(queries, points, k).indices
    found = jnp.asarray(labels)[near]  # (m, k)
    every = jnp.arange(classes, dtype=found.dtype)[None, None]
    shares = jnp.mean((found[..., None] == every).astype(queries.dtype), axis=1)
    known = jnp.all((found >= 0) & (found < classes), axis=1, keepdims=True)
    return jnp.where(known, shares, jnp.nan)


def knn_regression(queries: Array, points: Array, values: Array, k: int) -> Array:
    """The mean of the values of the k nearest points; non-parametric, as `knn_classification`.

    Shapes:
      queries: (m, d); points: (n, d); values: (n,) or (n, v), floating point.
      result: (m,) or (m, v), of the dtype of values.

    Raises:
      TypeError: not floating point.
      ValueError: the shapes do not fit, or k is outside 1..n.

    Source: Altman 1992; equal to scikit-learn's KNeighborsRegressor.

    Example:
      >>> points = jnp.array([[0.0], [1.0], [5.0]])
      >>> print(knn_regression(jnp.array([[0.8]]), points, jnp.array([10.0, 20.0, 90.0]), 2))
      [15.]
    """
    check_floating(values, "knn_regression: values")
    check_rank(values, (1, 2), "knn_regression: values", "(n,) or (n, v)")
    _check_values(points, values, "knn_regression: values")
    return jnp.mean(jnp.asarray(values)[nearest_neighbors(queries, points, k).indices], axis=1)


def _check_values(points: Array, values: Array, what: str) -> None:
    if jnp.shape(points)[:1] != jnp.shape(values)[:1]:
        raise ValueError(
            f"{what} must have one row for each point, got {tuple(jnp.shape(values))} for points "
            f"{tuple(jnp.shape(points))}"
        )
