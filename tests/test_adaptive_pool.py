"""Adaptive average pooling, against a loop over its bins and PyTorch's values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxd2l import layers, summarize
from jaxd2l.ops.pool import adaptive_avg_pool, avg_pool, global_avg_pool

# sums over batch and channels of torch.nn.functional.adaptive_avg_pool2d (2.13, float64)
X = np.random.RandomState(3).normal(size=(2, 3, 5, 7)).transpose(0, 2, 3, 1)
TORCH_2_4 = [
    [-1.2013307458230722, -1.1412661079989528, -0.12282892730426284, -0.12744165483590547],
    [1.0303184823409612, 0.024652931909440956, -0.4810270080919119, 0.16263057454583252],
]
TORCH_7_7 = [-4.035355050719393, -1.2657472876022058, -1.8251904094319695, 3.955743179383625]


def brute(x, size):
    out = np.zeros((x.shape[0], *size, x.shape[-1]))
    for i, j in np.ndindex(*size):
        rows = slice(i * x.shape[1] // size[0], -(-(i + 1) * x.shape[1] // size[0]))
        columns = slice(j * x.shape[2] // size[1], -(-(j + 1) * x.shape[2] // size[1]))
        out[:, i, j] = x[:, rows, columns].mean((1, 2))
    return out


@pytest.mark.parametrize("size", [(2, 4), (7, 7), (5, 7), (1, 1), (5, 3)])
def test_bins_are_those_of_the_loop(size, x64):
    got = adaptive_avg_pool(jnp.asarray(X), size)
    np.testing.assert_allclose(got, brute(X, size), rtol=1e-12, atol=1e-12)


@pytest.mark.smoke
def test_values_are_pytorchs(x64):
    np.testing.assert_allclose(
        adaptive_avg_pool(jnp.asarray(X), (2, 4)).sum((0, 3)), TORCH_2_4, rtol=1e-12
    )
    np.testing.assert_allclose(
        adaptive_avg_pool(jnp.asarray(X), 7).sum((0, 3))[0, :4], TORCH_7_7, rtol=1e-12
    )


def test_equal_bins_are_windows_and_one_bin_is_the_global_mean():
    x = jnp.asarray(np.random.RandomState(0).normal(size=(2, 6, 8, 3)), jnp.float32)
    np.testing.assert_allclose(adaptive_avg_pool(x, (3, 2)), avg_pool(x, (2, 4)), atol=1e-6)
    np.testing.assert_allclose(adaptive_avg_pool(x, 1)[:, 0, 0], global_avg_pool(x), atol=1e-6)
    assert (adaptive_avg_pool(x, (6, 8)) == x).all()


def test_gradients_and_dtypes(x64, strict_promotion):
    check_grads(lambda x: adaptive_avg_pool(x, (2, 4)), (jnp.asarray(X),), 2)
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        y = jax.eval_shape(
            lambda x: adaptive_avg_pool(x, 3), jax.ShapeDtypeStruct((1, 5, 4, 2), dtype)
        )
        assert (y.shape, y.dtype) == ((1, 3, 3, 2), dtype)


def test_user_errors():
    with pytest.raises(TypeError, match="adaptive_avg_pool: x must be floating point"):
        adaptive_avg_pool(jnp.zeros((1, 4, 4, 1), int), 2)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        adaptive_avg_pool(jnp.zeros((1, 4, 4, 1)), 0)
    with pytest.raises(ValueError, match="size must be one int or one per axis"):
        adaptive_avg_pool(jnp.zeros((1, 4, 4, 1)), (2, 2, 2))
    with pytest.raises(ValueError, match=r"AdaptiveAvgPool to \(7, 7\) needs an input with 2"):
        layers.AdaptiveAvgPool(7).output_shape((9, 512))
    with pytest.raises(ValueError, match="size must be at least 1"):
        layers.AdaptiveAvgPool(0)


def test_the_receptive_field_is_a_window_where_the_bins_are_equal_and_else_everything():
    equal = summarize(layers.AdaptiveAvgPool((3, 2)), (6, 8, 1)).rows[0]
    assert (equal.receptive_field, equal.jump) == ((2, 4), (2, 4))
    assert summarize(layers.AdaptiveAvgPool(3), (7, 6, 1)).rows[0].receptive_field is None
