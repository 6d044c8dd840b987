"""Pooling over the valid steps of sequences; the convolution of textCNN as a detector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l.ops import conv
from jaxd2l.ops.lengths import valid_steps
from jaxd2l.ops.time_pooling import (
    k_max_over_time,
    last_step,
    max_over_time,
    mean_over_time,
)

N, T, C = 5, 6, 3
LENGTHS = np.array([6, 3, 1, 0, 9])  # 9 counts as 6
POOLS = {
    "max": max_over_time,
    "k-max": lambda x, lengths=None: k_max_over_time(x, 2, lengths),
    "more than there are": lambda x, lengths=None: k_max_over_time(x, 8, lengths),
    "mean": mean_over_time,
    "last": last_step,
}


@jax.jit
def pooled(x, lengths=None):
    return {name: pool(x, lengths) for name, pool in POOLS.items()}


def inputs(dtype=np.float32):
    x = np.random.RandomState(0).randn(N, T, C)
    x[1, 1] = x[1, 0]  # equals
    return jnp.asarray(x, dtype)


def k_largest(column, k):
    """The largest k values in their order, then zeros."""
    chosen = sorted(sorted(range(len(column)), key=lambda i: (-column[i], i))[:k])
    return [column[i] for i in chosen] + [0.0] * (k - len(chosen))


def brute_force(x, lengths):
    rows = [np.asarray(row, np.float64)[:length] for row, length in zip(x, lengths, strict=True)]
    zero = np.zeros(C)
    return {
        "max": [row.max(0) if len(row) else zero for row in rows],
        "k-max": [np.transpose([k_largest(c, 2) for c in row.T]) for row in rows],
        "more than there are": [np.transpose([k_largest(c, 8) for c in row.T]) for row in rows],
        "mean": [row.mean(0) if len(row) else zero for row in rows],
        "last": [row[-1] if len(row) else zero for row in rows],
    }


@pytest.mark.smoke
def test_values_equal_brute_force():
    x = inputs()
    for found, lengths in ((pooled(x), [T] * N), (pooled(x, jnp.asarray(LENGTHS)), LENGTHS)):
        for name, wanted in brute_force(x, lengths).items():
            np.testing.assert_allclose(found[name], wanted, rtol=1e-6, atol=1e-7, err_msg=name)


def test_padding_changes_nothing_and_gets_no_gradient():
    lengths = jnp.asarray(LENGTHS)
    padding = ~valid_steps(lengths, N, T, "here")[..., None] & np.ones((N, T, C), bool)

    @jax.jit
    def both(x):
        y, back = jax.vjp(lambda x: pooled(x, lengths), x)
        return y, back(jax.tree.map(jnp.ones_like, y))[0]

    wanted = both(inputs())
    for value in (np.nan, np.inf, -np.inf):
        y, gradient = both(jnp.where(padding, value, inputs()))
        jax.tree.map(np.testing.assert_array_equal, (y, gradient), wanted)
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[padding], 0)
    assert all((np.asarray(row[3]) == 0).all() for row in y.values())  # length 0
    assert all(np.abs(row[2]).min() > 0 for name, row in y.items() if "m" not in name)


def test_what_is_broken_in_a_valid_step_shows():
    x = inputs().at[1, 2, 0].set(jnp.nan)
    lengths = jnp.asarray(LENGTHS)
    for name, y in pooled(x, lengths).items():
        broken = np.isnan(y).reshape(N, -1, C).any(1)
        assert broken.tolist() == [[i == 1 and c == 0 for c in range(C)] for i in range(N)], name
    low = pooled(jnp.full((N, T, C), -jnp.inf), lengths)
    assert np.isneginf(low["max"][1]).all()
    assert np.isneginf(low["more than there are"][1, :3]).all()
    np.testing.assert_array_equal(low["more than there are"][1, 3:], 0)


def test_derivatives(x64):
    x, lengths = jnp.asarray(np.random.RandomState(1).randn(N, T, C)), jnp.asarray(LENGTHS)

    def everything(x):
        return jnp.concatenate([y.ravel() for y in pooled(x, lengths).values()])

    direction = jnp.asarray(np.random.RandomState(2).randn(N, T, C))

    @jax.jit
    def derivatives(x, d):
        jacobian = jax.jacrev(everything)(x).reshape(-1, x.size)
        forward = jax.jvp(everything, (x,), (d,))[1]
        second = jax.jvp(jax.grad(lambda x: jnp.sum(everything(x) ** 2)), (x,), (d,))[1]
        slope = (everything(x + 1e-6 * d) - everything(x - 1e-6 * d)) / 2e-6
        return jacobian, forward, second, slope

    jacobian, forward, second, slope = derivatives(x, direction)
    np.testing.assert_allclose(forward, slope, atol=1e-8)
    np.testing.assert_allclose(jacobian @ direction.ravel(), slope, atol=1e-8)
    wanted = 2 * jacobian.T @ jacobian @ direction.ravel()  # they are piecewise linear
    np.testing.assert_allclose(second.ravel(), wanted, atol=1e-12)
    ties = jnp.ones((1, 3, 1))
    two = jnp.array([2])
    assert jax.grad(lambda x: max_over_time(x, two).sum())(ties).ravel().tolist() == [1, 0, 0]
    mean = jax.grad(lambda x: mean_over_time(x, two).sum())(ties)
    assert mean.ravel().tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_dtype_is_kept_and_vmap_equals_the_batch(dtype, x64, strict_promotion):
    x, lengths = inputs(dtype), jnp.asarray(LENGTHS, jnp.int8)
    found = pooled(x, lengths)
    one = jax.vmap(lambda x, length: pooled(x[None], length[None]))(x, lengths)
    for name, y in found.items():
        assert y.dtype == dtype
        np.testing.assert_array_equal(one[name][:, 0], y)
    if dtype == jnp.bfloat16:  # rounded once, after a sum in float32
        long = jnp.asarray(np.random.RandomState(2).rand(1, 1000, 20), dtype)
        exact = np.asarray(long, np.float64)[:, :901].mean(1)
        found = mean_over_time(long, jnp.array([901]))
        np.testing.assert_array_equal(found, jnp.asarray(exact, dtype))


def test_under_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    spec = jax.sharding.PartitionSpec("data")
    x, lengths = inputs()[:4], jnp.asarray(LENGTHS[:4])
    found = jax.jit(jax.shard_map(pooled, mesh=mesh, in_specs=spec, out_specs=spec))(x, lengths)
    jax.tree.map(np.testing.assert_array_equal, found, pooled(x, lengths))


def detector(gram, size):
    """A kernel (k, size, 1) whose response to one-hot tokens is the number of matches."""
    return np.eye(size, dtype=np.float32)[gram][:, :, None]


def test_c164_a_convolution_of_width_k_detects_k_grams():
    draw = np.random.RandomState(0)
    size, t = 7, 12
    gram = np.array([2, 5, 3])
    texts = draw.randint(0, size, (200, t))
    texts[::4, 4:7] = gram  # planted in every fourth

    @jax.jit
    def detect(texts):
        x = jax.nn.one_hot(texts, size)
        y = conv.conv(x, detector(gram, size), jnp.array([1.0 - len(gram)]))
        return jax.nn.relu(y[:, :, 0]), max_over_time(jax.nn.relu(y))[:, 0]

    positions, texts_with = detect(texts)
    # The unit fires at a position if and only if the gram stands there.
    there = (np.lib.stride_tricks.sliding_window_view(texts, 3, axis=1) == gram).all(-1)
    np.testing.assert_array_equal(positions, there)
    np.testing.assert_array_equal(texts_with, there.any(1))
    assert 50 <= there.any(1).sum() < 200

    # A shift of the gram leaves the maximum over time as it is, whatever the kernel, if the rest
    # of the text is padding; another order of its words does not.
    shifted = np.zeros((t - 1, t), int)
    for i in range(t - 2):
        shifted[i, i : i + 3] = gram
    shifted[-1, :3] = gram[[1, 0, 2]]
    kernel = jnp.asarray(draw.randn(3, size, 4), jnp.float32)

    @jax.jit
    def respond(texts):
        x = jax.nn.one_hot(texts - 1, size)  # token 0, padding, is the zero vector
        y = conv.conv(x, kernel, padding=((2, 2),))
        return y, max_over_time(y), mean_over_time(y), last_step(y)

    y, largest, mean, last = respond(shifted)
    np.testing.assert_array_equal(largest[:-1], np.broadcast_to(largest[0], (t - 2, 4)))
    assert len({int(i) for i in y[:-1, :, 0].argmax(1)}) == t - 2  # the place moves
    assert (np.abs(largest[-1] - largest[0]) > 1e-3).any()
    # The mean is as blind to the place, the last step is not.
    assert np.ptp(mean[:-1], axis=0).max() < 1e-6
    assert np.ptp(last[:-1], axis=0).max() > 0.1


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: max_over_time(jnp.zeros((2, 3))), ValueError, r"shape \(n, t, c\), got \(2, 3\)"),
        (lambda: last_step(jnp.zeros((2, 0, 3))), ValueError, "last_step: x has no time steps"),
        (lambda: mean_over_time(jnp.zeros((2, 3, 1), int)), TypeError, "floating point"),
        (lambda: k_max_over_time(jnp.zeros((2, 3, 1)), 0), ValueError, "k must be at least 1"),
        (lambda: k_max_over_time(jnp.zeros((2, 3, 1)), 1.0), TypeError, "k must be an integer"),
        (
            lambda: max_over_time(jnp.zeros((2, 3, 1)), jnp.array([1, 2, 3])),
            ValueError,
            r"max_over_time: lengths must hold one length per row of x, shape \(2,\), got \(3,\)",
        ),
        (
            lambda: mean_over_time(jnp.zeros((2, 3, 1)), jnp.array([1.0, 2.0])),
            TypeError,
            "mean_over_time: lengths must be integers",
        ),
    ],
)
def test_mistakes_are_told(call, error, words):
    with pytest.raises(error, match=words):
        call()
