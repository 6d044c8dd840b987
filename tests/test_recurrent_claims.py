"""Claims of the notes on recurrence (F7, F26-F29, C144-C149, C152, C156), true and false."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxd2l.ops.recurrent import LSTMCarry, Weights, gru, lstm, rnn

quick_rnn, quick_gru, quick_lstm = jax.jit(rnn), jax.jit(gru), jax.jit(lstm)
cells = jax.jit(  # every cell value (t, h) of one sequence, which `lstm` does not return
    lambda x, w: jax.vmap(lambda m: lstm(x, w, lengths=m[None])[1].cell[0])(
        jnp.arange(1, x.shape[1] + 1)
    )
)


def make(gates, d=2, h=3, scale=1.0, seed=0):
    draw = np.random.RandomState(seed)
    own = [scale * draw.randn(*s) for s in [(d, gates * h), (h, gates * h), (gates * h,)]]
    return Weights(*[jnp.asarray(a, jnp.float32) for a in own])


def count(weights):
    return sum(leaf.size for leaf in jax.tree.leaves(weights))


@pytest.mark.smoke
def test_parameter_counts_of_f7_and_c146():
    """F7, C146: a GRU has three quarters of an LSTM's parameters."""
    counts = {gates: count(make(gates, d=8, h=32)) for gates in (1, 3, 4)}
    assert counts == {1: 1312, 3: 3936, 4: 5248}
    assert 4 * counts[3] == 3 * counts[4]
    x = jnp.zeros((1, 2, 8))
    assert lstm(x, make(4, d=8, h=32))[0].shape == gru(x, make(3, d=8, h=32))[0].shape


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.01, 0.5, 3.0]))
def test_bounds_of_f28_c144_c145(seed, scale):
    """From zeros |C_t| < t, and |h| < 1 for LSTM and GRU; in floating point < becomes <=."""
    x = jnp.asarray(np.random.RandomState(seed).randn(1, 12, 2), jnp.float32)
    memory = jnp.abs(cells(x, make(4, scale=scale, seed=seed)))
    assert bool((memory <= jnp.arange(1.0, 13.0)[:, None]).all())
    for layer, gates in ((quick_lstm, 4), (quick_gru, 3)):
        assert float(jnp.abs(layer(x, make(gates, scale=scale, seed=seed))[0]).max()) <= 1


def test_c144_cells_do_not_keep_growing():
    """False: they saturate. The largest of 400 steps is no larger than a few, far below t."""
    x = jnp.asarray(np.random.RandomState(1).randn(1, 400, 2), jnp.float32)
    memory = jnp.abs(cells(x, make(4, h=8, seed=1, scale=1.0))).max(axis=1)
    early, late = float(memory[:100].max()), float(memory[100:].max())
    assert late < 1.2 * early
    assert late < 10


def test_f28_constant_gates_bound_the_cell():
    """With i and f constant, and candidate 1, C tends to i / (1 - f)."""
    gate = jnp.log(jnp.array([3.0, 4.0]))  # sigmoid: 0.75, 0.8
    bias = jnp.array([gate[0], gate[1], 20.0, 0.0])
    weights = Weights(jnp.zeros((1, 4)), jnp.zeros((1, 4)), bias)
    memory = cells(jnp.zeros((1, 60, 1)), weights)[:, 0]
    assert bool((jnp.diff(memory) > -1e-5).all())
    np.testing.assert_allclose(memory[-1], 0.75 / (1 - 0.8), rtol=1e-4)
    assert float(memory.max()) < 3.75 + 1e-4


def test_f29_a_gru_state_lies_between_the_last_and_its_candidate():
    """Convex: with no input and recurrent weights, h decays from its start to the candidate."""
    weights = Weights(jnp.zeros((1, 3)), jnp.zeros((1, 3)), jnp.array([0.0, 0.0, 0.5]))
    y = quick_gru(jnp.zeros((1, 20, 1)), weights, jnp.ones((1, 1)))[0].ravel()
    assert bool((jnp.diff(y) <= 0).all())
    np.testing.assert_allclose(y[-1], np.tanh(0.5), atol=1e-5)
    np.testing.assert_allclose(y[0], 0.5 + 0.5 * np.tanh(0.5), atol=1e-6)


def constant_lstm(forget, h=1):
    """An LSTM whose forget gate has the logit `forget`, and whose gates see no state."""
    bias = jnp.concatenate([jnp.zeros(h), jnp.full(h, forget), jnp.zeros(2 * h)])
    return Weights(jnp.ones((1, 4 * h)).at[:, h : 2 * h].set(0), jnp.zeros((h, 4 * h)), bias)


def test_c147_an_lstm_reduces_vanishing():
    """True where f is near 1: dC_T/dC_0 is the product of the forget gates; else it decays too."""
    x = jnp.zeros((1, 50, 1))

    @jax.jit
    def slope(weights):
        def run(c):
            return lstm(x, weights, LSTMCarry(jnp.zeros((1, 1)), c))[1].cell[0, 0]

        return jax.grad(run)(jnp.ones((1, 1)))[0, 0]

    for logit in (6.0, -1.0):
        gate = 1 / (1 + np.exp(-logit))
        np.testing.assert_allclose(slope(constant_lstm(logit)), gate**50, rtol=1e-3)
    assert float(slope(constant_lstm(6.0))) > 0.8
    assert float(slope(constant_lstm(-1.0))) < 1e-25
    plain = Weights(jnp.zeros((1, 1)), jnp.full((1, 1), 0.7))
    vanished = jax.jit(jax.grad(lambda h: rnn(x, plain, h)[1][0, 0]))(jnp.ones((1, 1)))
    assert float(vanished[0, 0]) < 1e-7


def test_c148_an_lstm_does_not_prevent_explosion():
    """False: at rest a cell with candidate weight u has dC'/dC = f + i u o, here 1/2 + 8/4."""
    weights = Weights(jnp.zeros((1, 4)), jnp.array([[0.0, 0.0, 8.0, 0.0]]))

    def run(cell):
        return lstm(jnp.zeros((1, 20, 1)), weights, LSTMCarry(0 * cell, cell))[1].cell[0, 0]

    slope = jax.jit(jax.grad(run))(jnp.zeros((1, 1)))[0, 0]
    np.testing.assert_allclose(slope, 0.5 * 2.5**19, rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("radius", [0.8, 1.25])
def test_c149_gradients_go_as_the_spectral_radius_to_the_power_of_t(radius):
    """F26: dL/dh_t = sum_i do_i V^T (U^T)^(i - t) if linear, which relu is where positive."""
    draw = np.random.RandomState(2)
    kernel = draw.rand(4, 4) + 0.1
    kernel *= radius / np.abs(np.linalg.eigvals(kernel)).max()
    weights = Weights(jnp.zeros((1, 4)), jnp.asarray(kernel))
    readout, factor = draw.rand(4, 2), draw.randn(6, 2)

    @partial(jax.jit, static_argnums=0)
    def gradient(t, factor):
        def loss(h):
            y = rnn(jnp.zeros((1, t, 1)), weights, h, activation="relu")[0]
            return jnp.sum(y[0] @ readout * factor)

        return jax.grad(loss)(jnp.ones((1, 4)))[0]

    wanted = sum(factor[i] @ readout.T @ np.linalg.matrix_power(kernel.T, i + 1) for i in range(6))
    np.testing.assert_allclose(gradient(6, factor), wanted, rtol=1e-9)
    last = [np.concatenate([np.zeros((t - 1, 2)), np.ones((1, 2))]) for t in (20, 40)]
    early, late = (np.linalg.norm(gradient(f.shape[0], f)) for f in last)
    np.testing.assert_allclose(late / early, radius**20, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_c152_the_state_depends_on_the_first_input_but_ever_less():
    x = jnp.asarray(np.random.RandomState(4).randn(1, 30, 2))
    own = make(1, scale=0.3, seed=4)
    weights = jax.tree.map(lambda a: a.astype(x.dtype), own)
    slopes = jax.jit(jax.jacrev(lambda x: rnn(x, weights)[0][0]))(x)[:, :, 0, 0]  # (t, h, d)
    size = jnp.linalg.norm(slopes, axis=(1, 2))
    assert bool((size > 0).all())
    assert float(size[-1]) < 1e-6 * float(size[0])


def test_c156_the_gates_of_a_gru_at_their_extremes():
    """z = 1 copies the state for ever; r = 0 (and z = 0) forgets all but the present input."""
    d, h = 2, 3
    weights = make(3, d, h, seed=6)._replace(bias=jnp.zeros(9))
    x = jnp.asarray(np.random.RandomState(6).randn(1, 9, d), jnp.float32)
    start = jnp.array([[0.3, -0.2, 0.9]])
    copies = weights._replace(bias=weights.bias.at[3:6].set(60.0))
    np.testing.assert_allclose(quick_gru(x, copies, start)[1], start, atol=1e-6)
    forgets = weights._replace(bias=weights.bias.at[:6].set(-60.0))
    y = quick_gru(x, forgets, start)[0]
    np.testing.assert_allclose(y, np.tanh(x @ weights.input_kernel[:, 6:]), atol=1e-6)
