"""Recurrent layers against PyTorch, NumPy step by step, and back-propagation by hand."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l.ops import recurrent
from jaxd2l.ops.dropout import dropout
from jaxd2l.ops.recurrent import LSTMCarry, Weights, bidirectional, deep, gru, lstm, rnn, scan

GOLDEN = np.load(Path(__file__).parent / "golden" / "recurrent.npz")
KINDS = {
    "rnn": (1, rnn),
    "relu": (1, partial(rnn, activation="relu")),
    "gru": (3, partial(gru, reset_after=True)),
    "lstm": (4, lstm),
}


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


@pytest.mark.usefixtures("x64", "strict_promotion")
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("rnn", "plain"),
        ("relu", "plain"),
        ("gru", "deep"),
        ("lstm", "deep"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("rnn", "deep"), ("gru", "plain"), ("lstm", "plain")]
        ),
    ],
)
def test_values_and_gradients_are_those_of_pytorch(kind, form, monkeypatch):
    n, t, d, h = 3, 5, 3, 4
    gates, layer = KINDS[kind]
    layers, ways = (1, 1) if form == "plain" else (2, 2)
    draw = np.random.RandomState(list(KINDS).index(kind))
    x = draw.randn(n, t, d)
    weights = []
    for index in range(layers * ways):
        width = d if index < ways else 2 * h
        shapes = [(width, gates * h), (h, gates * h), (gates * h,)]
        own = [draw.randn(*shape) / 2 for shape in shapes]
        weights.append(Weights(*own, draw.randn(h) if kind == "gru" else None))
    parts = 2 if kind == "lstm" else 1
    first = [draw.randn(layers * ways, n, h) for _ in range(parts)]
    factor = draw.randn(n, t, h * ways)
    last_factor = [draw.randn(layers * ways, n, h) for _ in range(parts)]

    def run(x, weights, first):
        carries = [
            LSTMCarry(first[0][i], first[1][i]) if parts == 2 else first[0][i]
            for i in range(layers * ways)
        ]
        if form == "plain":
            y, last = layer(x, weights[0], carries[0])
            lasts = [last]
        else:
            pairs = [tuple(weights[:2]), tuple(weights[2:])]
            starts = [tuple(carries[:2]), tuple(carries[2:])]
            both = partial(bidirectional, layer)
            y, lasts = deep(both, x, pairs, starts, lengths=jnp.array([5, 2, 3]))
            lasts = [last for pair in lasts for last in pair]
        last = [jnp.stack(part) for part in zip(*lasts, strict=True)] if parts == 2 else None
        last = last or [jnp.stack(lasts)]
        total = (y * factor).sum()
        for value, weight in zip(last, last_factor, strict=True):
            total = total + (value * weight).sum()
        return total, (y, last)

    arguments = jax.tree.map(jnp.asarray, (x, weights, first))
    monkeypatch.setattr(scan, "choose", lambda n, weights: "defer")
    function = jax.jit(jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True))
    (_, (y, last)), (dx, dweights, dfirst) = function(*arguments)
    found = {"y": y, "x": dx}
    for i in range(parts):
        found |= {f"last{i}": last[i], f"first{i}": dfirst[i]}
    for i, own in enumerate(dweights):
        found |= {f"{i}_{name}": v for name, v in own._asdict().items() if v is not None}
    stored = {name for name in GOLDEN if name.startswith(f"{kind}_{form}_")}
    assert stored == {f"{kind}_{form}_{name}" for name in found}
    for name, value in found.items():
        np.testing.assert_allclose(value, GOLDEN[f"{kind}_{form}_{name}"], atol=1e-10, err_msg=name)


def numpy_step(kind, x, h, c, w):
    """One step in NumPy, written gate by gate: the new state and cell."""
    width = h.shape[1]
    W, U, b, inner = (None if v is None else np.asarray(v) for v in w)

    def pre(gate, state=h):
        own = slice(gate * width, (gate + 1) * width)
        return x @ W[:, own] + state @ U[:, own] + b[own]

    if kind == "rnn":
        return np.tanh(pre(0)), c
    if kind == "lstm":
        i, f, o = (sigmoid(pre(gate)) for gate in (0, 1, 3))
        c = f * c + i * np.tanh(pre(2))
        return o * np.tanh(c), c
    r, z = sigmoid(pre(0)), sigmoid(pre(1))
    if kind == "gru":
        candidate = np.tanh(pre(2, r * h))
    else:
        candidate = np.tanh(
            x @ W[:, 2 * width :] + b[2 * width :] + r * (h @ U[:, 2 * width :] + inner)
        )
    return z * h + (1 - z) * candidate, c


STEPS = {
    "rnn": (1, rnn, recurrent.rnn_cell),
    "gru": (3, gru, recurrent.gru_cell),
    "after": (3, partial(gru, reset_after=True), partial(recurrent.gru_cell, reset_after=True)),
    "lstm": (4, lstm, recurrent.lstm_cell),
}


@pytest.mark.usefixtures("x64", "strict_promotion")
@pytest.mark.parametrize(("reverse", "way"), [(False, "defer"), (True, "recompute")])
@pytest.mark.parametrize("kind", STEPS)
def test_layers_and_cells_are_the_steps_in_numpy(kind, reverse, way, monkeypatch):
    """Ragged rows included, one of no length, one too long; padding holds NaN."""
    monkeypatch.setattr(scan, "choose", lambda n, weights: way)
    gates, layer, cell = STEPS[kind]
    draw = np.random.RandomState(7)
    n, t, d, h = 3, 4, 2, 3
    x, lengths = draw.randn(n, t, d), np.array([3, 0, 9])
    x[0, 3], x[1] = np.nan, np.nan
    own = [draw.randn(d, gates * h), draw.randn(h, gates * h), draw.randn(gates * h)]
    w = Weights(*own, draw.randn(h) if kind == "after" else None)
    first = draw.randn(2, n, h)
    carry = LSTMCarry(*first) if kind == "lstm" else jnp.asarray(first[0])
    y, last = layer(
        jnp.asarray(x), w, carry, lengths=jnp.asarray(lengths), reverse=reverse, unroll=2
    )
    wanted, state, memory = np.zeros((n, t, h)), first[0].copy(), first[1].copy()
    for row, length in enumerate([3, 0, 4]):
        steps = range(length)
        for step in reversed(steps) if reverse else steps:
            own = slice(row, row + 1)
            before = jax.tree.map(jnp.asarray, (state[own], memory[own]))
            new, cell_memory = numpy_step(kind, x[own, step], state[own], memory[own], w)
            if row == 0:
                before = LSTMCarry(*before) if kind == "lstm" else before[0]
                found = cell(jnp.asarray(x[own, step]), w, before)
                found = found.hidden if kind == "lstm" else found
                np.testing.assert_allclose(found, new, atol=1e-12)
            state[own], memory[own] = new, cell_memory
            wanted[row, step] = new[0]
    np.testing.assert_allclose(y, wanted, atol=1e-12)
    np.testing.assert_allclose(last[0] if kind == "lstm" else last, state, atol=1e-12)
    if kind == "lstm":
        np.testing.assert_allclose(last.cell, memory, atol=1e-12)


@pytest.mark.smoke
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gradient_is_back_propagation_through_time_by_hand(activation):
    """TR12, F26: dL/dh_t = do_t V^T + (dL/dh_{t+1} * phi') U^T, summed up by NumPy."""
    draw = np.random.RandomState(0)
    n, t, d, h, q = 2, 5, 3, 4, 2
    x, w = draw.randn(n, t, d), [draw.randn(d, h), draw.randn(h, h) / 2, draw.randn(h)]
    V, do = draw.randn(h, q), draw.randn(n, t, q)

    def loss(weights):
        return jnp.sum(rnn(jnp.asarray(x), weights, activation=activation)[0] @ V * do)

    found = jax.jit(jax.grad(loss))(Weights(*map(jnp.asarray, w)))
    W, U, b = w
    states = [np.zeros((n, h))]
    for step in range(t):
        pre = x[:, step] @ W + states[-1] @ U + b
        states.append(np.tanh(pre) if activation == "tanh" else np.maximum(pre, 0))
    dW, dU, db, later = 0, 0, 0, np.zeros((n, h))
    for step in reversed(range(t)):
        now = states[step + 1]
        dpre = (do[:, step] @ V.T + later) * (1 - now**2 if activation == "tanh" else now > 0)
        dW, dU, db = dW + x[:, step].T @ dpre, dU + states[step].T @ dpre, db + dpre.sum(0)
        later = dpre @ U.T
    for name, value in {"input_kernel": dW, "recurrent_kernel": dU, "bias": db}.items():
        np.testing.assert_allclose(getattr(found, name), value, atol=1e-12)


@pytest.mark.smoke
def test_patterns_one_to_many_and_encoder_to_decoder():
    """R9: a vector starts a sequence, whose steps feed the next; a carry starts another layer."""
    draw = np.random.RandomState(3)
    w = Weights(*[draw.randn(*s).astype(np.float32) for s in [(2, 3), (3, 3), (3,)]])
    readout = draw.randn(3, 2).astype(np.float32)
    first = draw.randn(1, 3).astype(np.float32)

    def step(carry, _):
        carry = recurrent.rnn_cell(carry @ readout, w, carry)
        return carry, carry

    _, states = jax.lax.scan(step, jnp.asarray(first), length=4)
    state = first
    for index in range(4):
        state = np.tanh(state @ readout @ w[0] + state @ w[1] + w[2])
        np.testing.assert_allclose(states[index], state, rtol=1e-4, atol=1e-5)

    x = jnp.asarray(draw.randn(2, 6, 2), jnp.float32)
    whole, last = rnn(x, w)
    encoded = rnn(x[:, :4], w)[1]  # many-to-one
    assert encoded.shape == (2, 3)
    decoded, end = rnn(x[:, 4:], w, encoded)  # many-to-many, of other lengths
    np.testing.assert_allclose(decoded, whole[:, 4:], atol=1e-6)
    np.testing.assert_allclose(end, last, atol=1e-6)


def test_dropout_acts_between_layers_only(key):
    draw = np.random.RandomState(5)
    below, above = (
        Weights(*[jnp.asarray(draw.randn(*s), jnp.float32) for s in [(3, 3), (3, 3), (3,)]])
        for _ in range(2)
    )
    x = jnp.asarray(draw.randn(2, 4, 3), jnp.float32)
    layer = jax.jit(rnn)
    run = partial(deep, layer, dropout=0.5, key=key)
    one, last = layer(x, below)
    np.testing.assert_array_equal(run(x, [below])[0], one)
    y, (lower, _) = run(x, [below, above])
    np.testing.assert_array_equal(lower, last)
    masked = dropout(one, 0.5, jax.random.fold_in(key, 1))
    np.testing.assert_array_equal(y, layer(masked, above)[0])
    assert not np.allclose(y, deep(layer, x, [below, above], dropout=0.5)[0])
    np.testing.assert_array_equal(
        deep(layer, x, [below, above], dropout=0.5)[0], layer(one, above)[0]
    )
    half = run(x[1:], [below, above], examples=jnp.array([1]))[0]
    np.testing.assert_allclose(half, y[1:], atol=1e-6)


SQUARE = Weights(jnp.zeros((2, 3)), jnp.zeros((3, 3)))
FOUR = Weights(jnp.zeros((2, 12)), jnp.zeros((3, 12)))
X = jnp.zeros((4, 5, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lstm(X, SQUARE), ValueError, r"input_kernel must have shape \(2, 12\) for 4"),
        (lambda: rnn(X[..., :1], SQUARE), ValueError, r"rnn: input_kernel .* \(1, 3\)"),
        (lambda: rnn(X, SQUARE._replace(bias=jnp.zeros(4))), ValueError, "rnn: bias must"),
        (lambda: rnn(X, SQUARE._replace(recurrent_kernel=jnp.zeros(3))), ValueError, r"\(h, 1\*h"),
        (
            lambda: rnn(X, SQUARE._replace(recurrent_bias=jnp.zeros(3))),
            ValueError,
            "only for a GRU",
        ),
        (lambda: rnn(X[0], SQUARE), ValueError, r"rnn: x must have shape \(n, t, d\)"),
        (lambda: recurrent.rnn_cell(X, SQUARE), ValueError, r"rnn_cell: x must .* \(n, d\)"),
        (lambda: rnn(X.astype(int), SQUARE), TypeError, "rnn: x must be floating point"),
        (lambda: rnn(X, SQUARE, jnp.zeros((4, 2))), ValueError, r"carry must .* \(4, 3\), got"),
        (lambda: lstm(X, FOUR, jnp.zeros((4, 3))), TypeError, "must be an LSTMCarry"),
        (lambda: lstm(X, FOUR, (jnp.zeros((4, 3)), X)), ValueError, "lstm: cell must have"),
        (lambda: rnn(X, SQUARE, lengths=jnp.zeros(4)), TypeError, "rnn: lengths must be integers"),
        (lambda: rnn(X, SQUARE, lengths=jnp.array([1])), ValueError, r"shape \(4,\), got \(1,\)"),
        (lambda: rnn(X, SQUARE, activation="gelu"), ValueError, "'tanh' or 'relu', got 'gelu'"),
        (lambda: deep(rnn, X, []), ValueError, "deep: weights must hold one"),
        (lambda: deep(rnn, X, [SQUARE], [None, None]), ValueError, "each of the 1 layers, got 2"),
        (lambda: bidirectional(rnn, X, SQUARE), ValueError, "weights must be a pair"),
        (lambda: bidirectional(rnn, X, (SQUARE,) * 2, (None,)), ValueError, "carries must be a"),
    ],
)
def test_mistakes_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
