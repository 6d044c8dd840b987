import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxd2l.ops.vector_norms import frobenius_norm, l0_count, lp_norm

ORDERS = (1, 1.5, 2, 3, 7.25, math.inf)


@pytest.fixture(scope="module")
def all_orders():
    return jax.jit(lambda x: [lp_norm(x, p) for p in ORDERS])


@hypothesis.given(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5))
def test_norms_equal_the_formula_and_fall_with_p(all_orders, values):
    with jax.enable_x64(True):
        x = np.asarray(values)
        norms = np.asarray(all_orders(x))
        largest = np.abs(x).max()
        expected = [
            largest * (np.abs(x / (largest or 1)) ** p).sum() ** (1 / p) for p in ORDERS[:-1]
        ]
        np.testing.assert_allclose(norms, [*expected, largest], rtol=1e-12, atol=1e-300)
        assert (np.diff(norms) <= 1e-9 * norms[0]).all()


@hypothesis.given(st.integers(0, 999), st.sampled_from([-5.0, -1e-3, 0.0, 0.7, 4.0]))
def test_norms_are_norms_and_the_count_is_not(all_orders, seed, factor):
    with jax.enable_x64(True):
        x, y = np.random.RandomState(seed).randn(2, 5)
        a, b, both, scaled = (np.asarray(all_orders(v)) for v in (x, y, x + y, factor * x))
        assert (both <= a + b + 1e-12).all()
        np.testing.assert_allclose(scaled, abs(factor) * a, rtol=1e-12)
    assert l0_count(jnp.asarray(3 * x)) == l0_count(jnp.asarray(x)) == 5


def test_below_one_the_formula_breaks_the_triangle_inequality():
    x, y = np.eye(2)

    def formula(v):
        return (np.abs(v) ** 0.5).sum() ** 2

    assert formula(x + y) > formula(x) + formula(y)


def test_gradients_at_zero_are_zero_and_never_nan(strict_promotion):
    for p in ORDERS:
        both = jax.jit(jax.value_and_grad(lambda x, p=p: lp_norm(x, p)))
        value, slope = both(jnp.zeros(3))
        assert value == 0
        np.testing.assert_array_equal(slope, 0, err_msg=f"p = {p}")
        value, slope = both(jnp.array([0.0, -2.0, 0.0]))
        assert value == 2
        np.testing.assert_array_equal(slope, [0, -1, 0], err_msg=f"p = {p}")
    slope = jax.grad(lambda a: frobenius_norm(a).sum())(jnp.zeros((2, 2, 3)))
    np.testing.assert_array_equal(slope, 0)
    assert np.isnan(jax.grad(jnp.linalg.norm)(jnp.zeros(3))).all()  # why this module exists


def test_curvature_of_the_euclidean_norm_next_to_a_zero_entry(x64):
    hessian = jax.jit(jax.hessian(lambda x: lp_norm(x, 2)))
    np.testing.assert_allclose(hessian(jnp.array([3.0, 0.0])), [[0, 0], [0, 1 / 3]], atol=1e-15)
    assert np.isfinite(hessian(jnp.zeros(2))).all()


def test_gradients_of_both_modes_and_second_order(x64):
    x = jnp.asarray(np.random.RandomState(0).randn(2, 3) + 2)

    @jax.jit
    def everything(x):
        return [lp_norm(x, p, axis=1) for p in ORDERS[:-1]] + [frobenius_norm(x)]

    check_grads(everything, (x,), order=1, modes=["fwd"])
    check_grads(everything, (x,), order=2, modes=["rev"])
    check_grads(jax.jit(lambda x: lp_norm(x, math.inf, axis=1)), (x,), order=1)


def test_large_and_small_entries_neither_overflow_nor_vanish():
    x = jnp.array([3e30, 4e30])
    np.testing.assert_allclose(lp_norm(x, 2), 5e30, rtol=1e-6)
    np.testing.assert_allclose(lp_norm(x * 1e-30 * 1e-30, 2), 5e-30, rtol=1e-6)
    np.testing.assert_allclose(lp_norm(jnp.array([10.0, 9.0]), 300), 10.0, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda v: lp_norm(v, 2))(x), [0.6, 0.8], rtol=1e-6)


def test_infinity_and_nan_come_through(all_orders):
    np.testing.assert_array_equal(all_orders(jnp.array([1.0, -jnp.inf])), jnp.inf)
    assert np.isnan(all_orders(jnp.array([1.0, jnp.nan]))).all()


def test_axes_and_dtypes(x64, strict_promotion):
    x = np.random.RandomState(0).randn(2, 3, 4)
    axes = (0, -1, (0, 2), [1, 2])
    norms = jax.jit(lambda x: [[lp_norm(x, p, axis) for axis in axes] for p in ORDERS])(x)
    for p, row in zip(ORDERS, norms, strict=True):
        for axis, norm in zip(axes, row, strict=True):
            over = tuple(axis) if isinstance(axis, list) else axis
            size = np.abs(x)
            wanted = size.max(over) if p == math.inf else (size**p).sum(over) ** (1 / p)
            np.testing.assert_allclose(norm, wanted, rtol=1e-12, err_msg=f"{p}, {axis}")
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        for p in ORDERS:
            assert jax.eval_shape(lambda x, p=p: lp_norm(x, p), x.astype(dtype)).dtype == dtype
    np.testing.assert_allclose(
        frobenius_norm(jnp.asarray(x)), np.linalg.norm(x, axis=(1, 2)), rtol=1e-12
    )
    counts = l0_count(jnp.asarray([[0.0, 1.0], [0.0, 2.0]]), axis=0)
    np.testing.assert_array_equal(counts, [0, 2])
    mapped = jax.vmap(lambda row: lp_norm(row, 3))(jnp.asarray(x[0]))
    np.testing.assert_allclose(mapped, lp_norm(jnp.asarray(x[0]), 3, 1), rtol=1e-12)
    assert lp_norm(jnp.zeros(0), 2) == lp_norm(jnp.zeros(0), math.inf) == 0


def test_refusals():
    x = jnp.ones(3)
    with pytest.raises(ValueError, match=r"lp_norm: p must be at least 1, got 0\.5$"):
        lp_norm(x, 0.5)
    with pytest.raises(ValueError, match="got 0; for the number of non-zero entries use l0_count"):
        lp_norm(x, 0)
    with pytest.raises(ValueError, match="lp_norm: p must be at least 1, got nan"):
        lp_norm(x, math.nan)
    with pytest.raises(TypeError, match="lp_norm: p must be a Python number, got str"):
        lp_norm(x, "fro")
    with pytest.raises(TypeError, match="lp_norm: x must be floating point, got int32"):
        lp_norm(jnp.array([1, 2]), 2)
    with pytest.raises(ValueError, match="frobenius_norm: matrices must have shape"):
        frobenius_norm(x)
