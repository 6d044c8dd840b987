"""What the notes claim about activations and the losses behind them, as facts and short runs.

What needs training with many seeds is in experiments/claims_activations.py."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxd2l import apply, init
from jaxd2l.layers import Activation, Dense, Serial
from jaxd2l.ops import losses
from jaxd2l.ops.activations import ACTIVATIONS

# Dead units

X = jnp.asarray(np.random.RandomState(0).rand(64, 8), jnp.float32)
LABELS = jnp.asarray(np.random.RandomState(1).randint(0, 3, 64))


def buried(kind, bias=-10.0):
    """A network whose units are all far below 0 for every example, after 0 and 200 steps."""
    net = Serial([Dense("dense", 6), Activation(kind), Dense("output", 3)])
    params, _ = init(net, jax.random.key(0), (8,))
    params["dense"]["bias"] = jnp.full(6, bias)

    def loss(params):
        return losses.softmax_cross_entropy(apply(net, params, {}, X)[0], LABELS).mean()

    def step(_, params):
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, jax.grad(loss)(params))

    run = jax.jit(lambda p: (jax.grad(loss)(p), jax.lax.fori_loop(0, 200, step, p)))
    grads, after = run(params)
    activation = ACTIVATIONS[kind]
    outputs = [activation(X @ p["dense"]["kernel"] + p["dense"]["bias"]) for p in (params, after)]
    return params, grads, after, outputs


@pytest.mark.smoke
def test_c14_a_relu_that_is_0_for_all_data_is_dead_for_ever():
    params, grads, after, outputs = buried("relu")
    for array in (*outputs, grads["dense"]["kernel"], grads["dense"]["bias"]):
        assert not np.asarray(array).any()
    np.testing.assert_array_equal(after["dense"]["kernel"], params["dense"]["kernel"])
    np.testing.assert_array_equal(after["output"]["kernel"], params["output"]["kernel"])


def test_c15_a_leaky_relu_gets_a_gradient_there():
    params, grads, after, _ = buried("leaky_relu")
    assert (np.abs(grads["dense"]["bias"]) > 0).all()
    assert (np.abs(grads["dense"]["kernel"]) > 0).all()
    moved = np.abs(after["dense"]["kernel"] - params["dense"]["kernel"]).max()
    assert moved > 1e-3  # although slowly: its slope is 0.01


def test_c14_one_large_step_kills_a_unit():
    """A bias pulled below every w.x: the gradient that did it never comes back."""
    x, w, b = np.array([0.2, 0.5, 1.0]), 1.0, 0.0

    def loss(wb, rate=None):
        return jnp.mean((jax.nn.relu(wb[0] * x + wb[1]) + 2.0) ** 2)  # wants less than it can give

    small, large = (
        jnp.array([w, b]) - rate * jax.grad(loss)(jnp.array([w, b])) for rate in (0.01, 1.0)
    )
    assert np.abs(jax.grad(loss)(small)).min() > 1
    np.testing.assert_array_equal(jax.grad(loss)(large), 0)


# Zero-centred inputs

signs = st.integers(0, 2**31 - 1)


@functools.cache
def weight_gradients():
    def grads(w, b, v, x, y):
        """dL/dw of a hidden layer (n, d, h), one for each example."""

        def loss(w, x, y):
            return losses.squared_loss(jnp.tanh(x @ w + b) @ v, y)

        return jax.vmap(jax.grad(loss), (None, 0, 0))(w, x, y)

    return jax.jit(grads)


@hypothesis.given(signs)
@hypothesis.settings(max_examples=10)
def test_c17_positive_inputs_give_a_unit_gradients_of_one_sign_for_one_example(seed):
    """dL/dw_ij = x_i delta_j: the sign is that of delta_j, whatever the signs of the weights."""
    draw = np.random.RandomState(seed)
    w, b, v, y = draw.randn(5, 4), draw.randn(4), draw.randn(4), draw.randn(16)
    found = np.asarray(weight_gradients()(w, b, v, draw.rand(16, 5) + 0.01, y))
    signs = np.sign(found)
    assert (signs == signs[:, :1]).all()  # over the inputs of each unit of each example
    assert (np.sign(w).min(0) < np.sign(w).max(0)).any()  # E50: the weights need not share one
    centred = np.asarray(weight_gradients()(w, b, v, draw.randn(16, 5), y))
    assert (np.sign(centred).min(1) < np.sign(centred).max(1)).mean() > 0.7  # of 5: 1 - 2/32


def test_c18_over_a_batch_the_signs_are_mixed():
    """Since each example has its own delta. Of 8 units with 20 positive inputs no gradient is
    mixed with one example, a half with 4, three quarters with 64: where all deltas of a unit tend
    to one side, a batch does not help."""
    draw = np.random.RandomState(0)
    w, b, v = 0.3 * draw.randn(20, 8), draw.randn(8), draw.randn(8)
    x, y = draw.rand(6400, 20), 2 * draw.randn(6400)
    found = np.asarray(weight_gradients()(w, b, v, x, y))
    shares = []
    for size in (1, 4, 64):
        mean = found.reshape(-1, size, 20, 8).mean(1)
        shares.append((np.sign(mean).min(1) < np.sign(mean).max(1)).mean())
    assert shares[0] == 0
    assert 0.2 < shares[1] < shares[2]
    assert shares[2] > 0.6


def path(centred, size, direction, steps=1500, seed=0):
    """How long SGD's way to w* is, in units of the straight one; and how far it ends."""
    draw = np.random.RandomState(seed)
    x = draw.rand(4000, 2) - (0.5 if centred else 0.0)
    target = np.asarray(direction, np.float64)
    rate = 0.5 / (x**2).sum(1).mean()
    w, length = np.zeros(2), 0.0
    for _ in range(steps):
        batch = x[draw.randint(0, 4000, size)]
        step = rate * batch.T @ (batch @ (target - w)) / size
        w, length = w + step, length + np.linalg.norm(step)
    return length / np.linalg.norm(target), np.linalg.norm(w - target)


def test_c18_the_way_zigzags_with_positive_inputs_and_single_examples():
    """To w* = (1, -1), where no step of one sign leads: 2.5 times the straight way with single
    examples, 1.5 on centred data (single examples have noise of their own), 1.06 in batches."""
    ways = {
        (centred, size, to): np.mean([path(centred, size, to, seed=s)[0] for s in range(3)])
        for centred, size, to in (
            (False, 1, (1, -1)),
            (True, 1, (1, -1)),
            (False, 1, (1, 1)),
            (False, 64, (1, -1)),
        )
    }
    assert path(False, 1, (1, -1))[1] < 0.01  # it does arrive
    assert ways[False, 1, (1, -1)] > 1.4 * ways[True, 1, (1, -1)]
    assert ways[False, 1, (1, -1)] > 1.4 * ways[False, 1, (1, 1)]  # where steps of one sign lead
    assert ways[False, 64, (1, -1)] < 1.2


def test_c19_a_change_of_mixed_signs_takes_one_free_step_and_two_of_one_sign():
    """The notes' example; and the parts above and below 0 are two such steps for any change."""
    start, end = np.array([1, -1, 1]), np.array([-1, 1, -1])
    np.testing.assert_array_equal(start + np.array([-2, 2, -2]), end)
    np.testing.assert_array_equal(start + np.array([-3, -3, -3]) + np.array([1, 5, 1]), end)
    change = np.random.RandomState(0).randn(100, 6)
    steps = np.stack([np.maximum(change, 0), np.minimum(change, 0)])
    np.testing.assert_array_equal(steps.sum(0), change)
    one_signed = (steps >= 0).all(-1) | (steps <= 0).all(-1)
    assert one_signed.all()
    alone = (change > 0).all(-1) | (change < 0).all(-1)
    assert alone.mean() < 0.1  # 2/64 of them could be made by one


# ReLU: size and kinks


@jax.jit
def growth(key, gains):
    """log2 of |h_20|^2 / |h_0|^2, and of the gradients' on the way back, through ReLU layers with
    weights of standard deviation gain / sqrt(n): (gains, 2)."""
    kernels = jax.random.normal(key, (20, 128, 128)) / 128**0.5
    x, direction = jax.random.normal(jax.random.fold_in(key, 1), (2, 16, 128))

    def one(gain):
        def forward(x):
            y, _ = jax.lax.scan(lambda h, w: (jax.nn.relu(h @ (gain * w)), None), x, kernels)
            return (y * direction).sum(), y

        grads, y = jax.grad(forward, has_aux=True)(x)
        ends = jnp.stack([jnp.sum(y**2), jnp.sum(grads**2)])
        return jnp.log2(ends / jnp.stack([jnp.sum(x**2), jnp.sum(direction**2)]))

    return jax.lax.map(one, gains)


def test_c21_whether_relu_explodes_is_a_matter_of_the_gain():
    """Each layer multiplies both mean squares by gain^2 / 2: 2^-20, 1 or 2^20 after 20 layers."""
    gains = jnp.array([1.0, 2**0.5, 2.0])
    found = np.stack([growth(jax.random.key(seed), gains) for seed in range(8)])
    wanted = np.array([[-20.0], [0.0], [20.0]])
    assert np.abs(found.mean(0) - wanted).max() < 1.2
    np.testing.assert_allclose(found - found[:, 1:2], wanted + 0 * found, atol=1e-3)


def test_c23_e80_kinks_are_infinitely_many_but_never_met():
    """One for each input on a hyperplane; along a line at most one a unit; of 10^5 random
    numbers none is met, while 0 itself has the derivative 0 here."""
    net = Serial([Dense("dense", 16), Activation("relu"), Dense("output", 1)])
    params, _ = init(net, jax.random.key(0), (3,))
    kernel = np.asarray(params["dense"]["kernel"])
    x = np.random.RandomState(0).randn(6250, 3).astype(np.float32)
    assert not (x @ kernel == 0).any()
    line = np.linspace(-5, 5, 4001)[:, None] * np.array([[1.0, -0.5, 2.0]]) + 0.3
    active = line @ kernel > 0
    assert (np.abs(np.diff(active.astype(int), axis=0)).sum(0) <= 1).all()
    w = kernel[:, 0].astype(np.float64)
    plane = np.cross(w, [0.0, 0, 1])  # at right angles to w: so are all its multiples
    assert np.abs(np.outer([1, 2.5, -7], plane) @ w).max() < 1e-12
    assert jax.grad(jax.nn.relu)(0.0) == 0


# Losses that saturate


@hypothesis.given(st.floats(-60, 60))
@hypothesis.settings(max_examples=20)
def test_c32_the_small_constant_scales_the_gradient_by_p_over_p_plus_it(gap):
    """Finite, yes; right where p >> 1e-5, and 0 where the example is most wrong."""
    logits = jnp.array([[-gap, 0.0]])
    p = 1 / (1 + np.exp(np.float64(gap)))
    honest, clipped = slopes()(logits)
    wanted = -(1 - p)
    np.testing.assert_allclose(honest[0, 0], wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(clipped[0, 0], wanted * p / (p + 1e-5), rtol=1e-3, atol=1e-7)


@functools.cache
def slopes():
    def clipped(z):
        return losses.clipped_cross_entropy(jax.nn.softmax(z), jnp.array([0])).sum()

    def honest(z):
        return losses.softmax_cross_entropy(z, jnp.array([0])).sum()

    return jax.jit(lambda z: (jax.grad(honest)(z), jax.grad(clipped)(z)))


def test_c33_squared_error_leaves_a_saturated_softmax_where_it_is():
    """The gradient by the logits is p - y for cross-entropy, and carries a factor p (1 - p) for
    the squared error of softmax as of sigmoid: 200 steps from an error of 8 in the logits."""

    def descend(loss):
        return jax.lax.fori_loop(0, 200, lambda _, z: z - jax.grad(loss)(z), jnp.array([8.0, 0.0]))

    def cross(z):
        return losses.softmax_cross_entropy(z[None], jnp.array([1]))[0]

    def squared(z):
        return losses.squared_loss(jax.nn.softmax(z), jnp.array([0.0, 1.0])).sum()

    learnt, stuck = jax.jit(lambda: (descend(cross), descend(squared)))()
    assert learnt[1] - learnt[0] > 4
    assert stuck[0] - stuck[1] > 7
