"""The k nearest neighbours against scikit-learn and NumPy, ties, memory, and what they spend."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors

from jaxd2l.ops import neighbors
from jaxd2l.ops.neighbors import knn_classification, knn_regression, nearest_neighbors
from jaxd2l.ops.regression import effective_parameters

draw = np.random.RandomState(0)
POINTS, QUERIES = draw.randn(50, 3), draw.randn(23, 3)
FAST = {"xla_backend_optimization_level": 0}  # to compile
CLASSIFY = jax.jit(knn_classification, static_argnums=(3, 4), compiler_options=FAST)
AVERAGE = jax.jit(knn_regression, static_argnums=3, compiler_options=FAST)
CLASSES, VALUES = draw.randint(0, 4, 50), draw.randn(50, 2)


@pytest.fixture
def small_blocks(monkeypatch):
    """The search in blocks that do not divide the sizes, several of them."""
    monkeypatch.setattr(neighbors, "BLOCK", 8)
    monkeypatch.setattr(neighbors, "QUERIES", 5)
    program = jax.jit(
        lambda *given: nearest_neighbors(*given), static_argnums=2, compiler_options=FAST
    )
    return lambda *given: jax.tree.map(np.asarray, program(*given))


@pytest.mark.smoke
@pytest.mark.parametrize("k", [11, 50])
def test_neighbours_are_those_of_scikit_learn(x64, small_blocks, k):
    found = small_blocks(QUERIES, POINTS, k)
    distances, indices = NearestNeighbors(n_neighbors=k).fit(POINTS).kneighbors(QUERIES)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-12)


def test_predictions_are_those_of_scikit_learn(x64):
    shares = np.asarray(CLASSIFY(QUERIES, POINTS, CLASSES, 7, 4))
    model = KNeighborsClassifier(7).fit(POINTS, CLASSES)
    np.testing.assert_allclose(shares, model.predict_proba(QUERIES), rtol=1e-12)
    np.testing.assert_array_equal(shares.argmax(-1), model.predict(QUERIES))
    for values in (VALUES, VALUES[:, 0]):
        wanted = KNeighborsRegressor(7).fit(POINTS, values).predict(QUERIES)
        np.testing.assert_allclose(AVERAGE(QUERIES, POINTS, values, 7), wanted, rtol=1e-12)


def test_of_equally_near_points_the_first_come_first(small_blocks):
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 2), -1).reshape(-1, 2).astype(np.float32)
    some = grid[:21]  # whose mean has no end in binary
    apart = np.square(grid[:, None] - some).sum(-1)
    wanted = np.argsort(apart, axis=1, kind="stable")[:, :9]
    found = small_blocks(grid, some, 9)
    np.testing.assert_array_equal(found.indices, wanted)
    np.testing.assert_array_equal(found.indices[:21, 0], np.arange(21))
    np.testing.assert_array_equal(found.distances[:21, 0], 0)
    same = small_blocks(0 * grid, 0 * some, 9)
    np.testing.assert_array_equal(same.indices, np.tile(np.arange(9), (25, 1)))


def test_points_far_from_the_origin_keep_their_order():
    x = (10_000 + 0.01 * draw.rand(40, 2)).astype(np.float32)
    apart = np.sqrt(np.square(x[:, None].astype(np.float64) - x).sum(-1))
    found = nearest_neighbors(x, x, 3)
    np.testing.assert_allclose(found.distances, np.sort(apart, 1)[:, :3], rtol=1e-5, atol=1e-6)


def test_points_that_are_not_finite_are_the_farthest(small_blocks):
    points = POINTS.astype(np.float32)
    points[[0, 3]], points[7] = np.nan, np.inf
    queries = np.append(QUERIES, [[np.nan, 0, 0]], axis=0).astype(np.float32)
    found = small_blocks(queries, points, 50)
    good = np.delete(np.arange(50), [0, 3, 7])
    near = NearestNeighbors(n_neighbors=47).fit(POINTS[good]).kneighbors(QUERIES)[1]
    np.testing.assert_array_equal(found.indices[:-1, :47], good[near])
    assert {tuple(sorted(row)) for row in found.indices[:-1, 47:].tolist()} == {(0, 3, 7)}
    assert not np.isfinite(found.distances[:, 47:]).any()
    assert not np.isfinite(found.distances[-1]).any()  # a query that is nowhere


def test_memory_is_linear_in_points_and_queries():
    def temporary(m, n):
        shapes = [jax.ShapeDtypeStruct((rows, 4), jnp.float32) for rows in (m, n)]
        program = jax.jit(lambda q, p: nearest_neighbors(q, p, 5), compiler_options=FAST)
        program = program.lower(*shapes).compile()
        return program.memory_analysis().temp_size_in_bytes

    one, more = temporary(4096, 4096), temporary(16384, 16384)
    assert more < 5 * one
    assert more < 16384 * 16384  # a quarter of the distances


def test_effective_parameters_grow_with_the_data(x64):
    # M26: n / k, where a linear model has d + 1 whatever n is
    for n in (16, 48):
        points, y = POINTS[:n], VALUES[:n, 0]
        spent = jax.jit(
            lambda y, p=points: effective_parameters(lambda y: knn_regression(p, p, y, 4), y),
            compiler_options=FAST,
        )
        assert spent(y) == pytest.approx(n / 4)


def test_one_neighbour_remembers_everything_and_all_of_them_nothing():
    points = POINTS.astype(np.float32)
    shares = np.asarray(CLASSIFY(points, points, CLASSES, 1, 4))
    np.testing.assert_array_equal(shares.argmax(-1), CLASSES)
    everyone = AVERAGE(points, points, points[:, 0], 50)
    np.testing.assert_allclose(everyone, points[:, 0].mean(), rtol=1e-4)
    labels = CLASSES.copy()
    labels[3] = 4  # out of range
    lost = np.isnan(CLASSIFY(points, points, labels, 1, 4)).any(1)
    np.testing.assert_array_equal(lost, np.arange(50) == 3)


def test_derivatives_of_distances(x64):
    def nearest(q):
        return nearest_neighbors(q[None], POINTS, 2).distances[0].sum()

    @functools.partial(jax.jit, compiler_options=FAST)
    def both(q):
        return jax.grad(nearest)(q), jax.jacfwd(nearest)(q)

    near = np.argsort(np.square(QUERIES[0] - POINTS).sum(1))[:2]
    apart = QUERIES[0] - POINTS[near]
    wanted = (apart / np.linalg.norm(apart, axis=1, keepdims=True)).sum(0)
    np.testing.assert_allclose(both(QUERIES[0]), np.tile(wanted, (2, 1)), rtol=1e-10)
    assert np.isfinite(both(POINTS[0])).all()  # at a point itself


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtypes_stay_and_batches_map(strict_promotion, dtype):
    q, p, values = (jnp.asarray(a, dtype) for a in (QUERIES, POINTS, VALUES))

    @functools.partial(jax.jit, compiler_options=FAST)
    def every(q):
        single = jax.vmap(lambda q: knn_regression(q[None], p, values, 3)[0])(q)
        shares = knn_classification(q, p, jnp.asarray(CLASSES), 3, 4)
        distances = nearest_neighbors(q, p, 3).distances
        return single, knn_regression(q, p, values, 3), shares, distances

    found = every(q)
    assert {a.dtype for a in found} == {jnp.dtype(dtype)}
    np.testing.assert_allclose(*(np.asarray(a, float) for a in found[:2]), rtol=1e-2)


def test_errors():
    q, p = jnp.ones((2, 3)), jnp.ones((4, 3))
    with pytest.raises(ValueError, match="k = 5 neighbours of 4 points"):
        nearest_neighbors(q, p, 5)
    with pytest.raises(ValueError, match="k"):
        nearest_neighbors(q, p, 0)
    with pytest.raises(ValueError, match=r"as many columns.* got \(2, 2\) and \(4, 3\)"):
        nearest_neighbors(q[:, :2], p, 1)
    with pytest.raises(ValueError, match=r"queries must have shape \(m, d\)"):
        nearest_neighbors(q[0], p, 1)
    with pytest.raises(TypeError, match="points must be floating point"):
        nearest_neighbors(q, p.astype(int), 1)
    with pytest.raises(TypeError, match="labels must be integers"):
        knn_classification(q, p, jnp.ones(4), 1, 2)
    with pytest.raises(ValueError, match=r"labels must have one row for each point, got \(3,\)"):
        knn_classification(q, p, jnp.ones(3, int), 1, 2)
    with pytest.raises(ValueError, match="values must have one row for each point"):
        knn_regression(q, p, jnp.ones(3), 1)
