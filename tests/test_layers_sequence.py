"""Layers of sequences against loops in NumPy; padding and lengths; the message of every error."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers
from jaxd2l.ops import initializers

FAST = {"xla_backend_optimization_level": 0}
N, T, D = 3, 4, 6


def notes(raised):
    return " ".join(getattr(raised.value, "__notes__", ()))


def made(net, shape, seed=1):
    """Parameters and statistics drawn by NumPy: nothing to compile."""
    random = np.random.RandomState(seed)
    params, state = layers.declared(net, shape)
    draw = lambda a: jnp.asarray(random.uniform(-0.8, 0.8, a.shape), a.dtype)  # noqa: E731
    return jax.tree.map(draw, params), jax.tree.map(lambda a: abs(draw(a)) + 0.5, state)


def vectors(*shape, seed=2):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST)
def run(net, params, x, lengths=None):
    return jaxd2l.apply(net, params, {}, x, lengths=lengths)[0]


# --- recurrent layers -----------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_step(layer, p, x, h, c):
    """The equations of the docstrings, gate by gate, for one example."""
    size = layer.features
    columns = [slice(i * size, (i + 1) * size) for i in range(4)]
    part = lambda i, y: x @ p["input_kernel"][:, columns[i]] + p["bias"][columns[i]] + y  # noqa: E731
    u = lambda i, h: h @ p["recurrent_kernel"][:, columns[i]]  # noqa: E731
    if isinstance(layer, layers.RNN):
        h = part(0, u(0, h))
        return np.maximum(h, 0) if layer.activation == "relu" else np.tanh(h), c
    if isinstance(layer, layers.GRU):
        r, z = sigmoid(part(0, u(0, h))), sigmoid(part(1, u(1, h)))
        inner = r * (u(2, h) + p["recurrent_bias"]) if layer.reset_after else u(2, r * h)
        return z * h + (1 - z) * np.tanh(part(2, inner)), c
    i, f, g, o = (part(k, u(k, h)) for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


RECURRENT = [
    layers.RNN("x", 3),
    layers.RNN("x", 3, activation="relu", reverse=True),
    layers.GRU("x", 2, reverse=True),
    layers.GRU("x", 2, reset_after=True),
    layers.LSTM("x", 3),
    layers.LSTM("x", 3, reverse=True),
]


@pytest.mark.smoke
@pytest.mark.parametrize("layer", RECURRENT, ids=repr)
def test_recurrent_layers_are_a_loop_over_the_real_steps(layer):
    params, _ = made(layer, (T, D))
    x, lengths = vectors(N, T, D), [2, 0, 4]
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["x"])
    expected = np.zeros((N, T, layer.features))
    for i, length in enumerate(lengths):
        h = c = np.zeros(layer.features)
        for t in reversed(range(length)) if layer.reverse else range(length):
            h, c = one_step(layer, p, x[i, t].astype(np.float64), h, c)
            expected[i, t] = h
    dirty = x.copy()
    dirty[0, 2:] = dirty[1] = np.nan  # what stands beyond the end is not read
    got = run(layer, params, dirty, np.array(lengths))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_initialisers_and_their_defaults():
    wide = jaxd2l.init(layers.LSTM("x", 64), jax.random.key(0), (2, 30))[0]["x"]
    for name, leaf in wide.items():  # uniform in +-1/sqrt(features), as in PyTorch
        assert 0.115 < np.abs(leaf).max() <= 0.125, name
    given = layers.GRU(
        "x",
        4,
        reset_after=True,
        kernel_init=initializers.Constant(1.0),
        recurrent_init=initializers.Constant(2.0),
        bias_init=initializers.Constant(3.0),
    )
    params = jaxd2l.init(given, jax.random.key(0), (2, 3))[0]["x"]
    values = {name: set(np.ravel(leaf).tolist()) for name, leaf in params.items()}
    assert values == {
        "input_kernel": {1.0},
        "recurrent_kernel": {2.0},
        "bias": {3.0},
        "recurrent_bias": {3.0},
    }


# --- attention ------------------------------------------------------------------------------------


def turned(x, base):
    """Rotary positions as products of complex numbers; feature j is paired with j + e/2."""
    t, e = x.shape
    angles = np.arange(t)[:, None] * base ** (-np.arange(0, e, 2) / e)
    z = (x[:, : e // 2] + 1j * x[:, e // 2 :]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], axis=1)


@pytest.mark.parametrize(
    "layer",
    [
        layers.SelfAttention("x", 2),
        layers.SelfAttention("x", 3, causal=True, bias=False),
        layers.SelfAttention("x", 3, causal=True, rotary=50.0),
    ],
    ids=repr,
)
def test_self_attention_is_a_softmax_for_every_query_and_head(layer):
    params, _ = made(layer, (T, D))
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["x"])
    x, lengths = vectors(N, T, D), [3, 0, 4]
    expected = np.zeros((N, T, D))
    for i, length in enumerate(lengths):
        expected[i] += p.get("output_bias", 0)
        for h in range(layer.heads):
            q, k, v = (
                x[i] @ p[f"{a}_kernel"][:, h] + (p[f"{a}_bias"][h] if layer.bias else 0)
                for a in ("query", "key", "value")
            )
            if layer.rotary:
                q, k = turned(q, layer.rotary), turned(k, layer.rotary)
            for t in range(T):
                seen = min(t + 1, length) if layer.causal else length
                if seen:
                    score = np.exp(k[:seen] @ q[t] / np.sqrt(q.shape[1]))
                    expected[i, t] += score / score.sum() @ v[:seen] @ p["output_kernel"][h]
    got = run(layer, params, x, np.array(lengths))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_attention_dropout_goes_by_the_example_and_only_in_training():
    layer = layers.SelfAttention("x", 2, dropout=0.5)
    params, _ = made(layer, (T, D))
    x = jnp.asarray(vectors(N, T, D))
    call = jax.jit(
        functools.partial(jaxd2l.apply, layer, train=True, key=jax.random.key(3)),
        compiler_options=FAST,
    )
    y, _ = call(params, {}, x)
    last, _ = call(params, {}, x[2:], examples=jnp.array([2]))
    np.testing.assert_allclose(y[2:], last, rtol=1e-5, atol=1e-5)
    assert np.abs(y - run(layer, params, x)).max() > 0.1
    with pytest.raises(ValueError, match="'x' is random when train=True: pass key="):
        jaxd2l.apply(layer, params, {}, x, train=True)
    none = layers.SelfAttention("x", 2)
    jax.eval_shape(functools.partial(jaxd2l.apply, none, train=True), params, {}, x)  # needs no key


# --- tokens, positions, steps ---------------------------------------------------------------------


def test_one_hot_is_the_identity_matrix_and_shows_tokens_outside():
    net = layers.OneHot(4)
    y, _ = jaxd2l.apply(net, {}, {}, jnp.array([[2, 0], [-1, 4]]))
    np.testing.assert_array_equal(y[0], np.eye(4)[[2, 0]])
    assert np.isnan(y[1]).all()
    tokens, kernel = jnp.array([[3, 1, 0]]), jnp.asarray(vectors(4, 2))
    both = layers.Serial([net, layers.Dense("d", 2, bias=False)])
    np.testing.assert_allclose(run(both, {"d": {"kernel": kernel}}, tokens), kernel[tokens])


def test_positions_are_added():
    x = vectors(N, T, D)
    learned = layers.LearnedPositions("x", 9)
    params, _ = made(learned, (T, D))
    expected = x + np.asarray(params["x"]["embedding"])[:T]
    np.testing.assert_allclose(run(learned, params, x), expected, rtol=1e-6)
    fixed = run(layers.SinusoidalPositions("x", 9), {}, np.zeros_like(x))
    angle = np.arange(T)[:, None] / 10000 ** (np.arange(0, D, 2) / D)
    np.testing.assert_allclose(fixed[0, :, 0::2], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(fixed[2, :, 1::2], np.cos(angle), atol=1e-6)
    drawn = jaxd2l.init(layers.LearnedPositions("x", 300), jax.random.key(0), (T, 20))[0]
    assert abs(np.std(drawn["x"]["embedding"]) - 0.02) < 0.001


def reference(pool, rows):
    """What a pool over the real steps (length, c) of one example gives."""
    if isinstance(pool, layers.KMaxPool):
        y = np.zeros((pool.k, rows.shape[1]))
        for c in range(rows.shape[1]):
            best = np.sort(np.argsort(-rows[:, c], kind="stable")[: pool.k])
            y[: len(best), c] = rows[best, c]
        return y
    if len(rows) == 0:
        return np.zeros(rows.shape[1])
    if isinstance(pool, layers.LastStep):
        return rows[-1]
    return rows.max(0) if isinstance(pool, layers.GlobalMaxPool) else rows.mean(0)


@pytest.mark.parametrize(
    "pool",
    [layers.GlobalMaxPool(), layers.GlobalAvgPool(), layers.KMaxPool(3), layers.LastStep()],
    ids=repr,
)
def test_pools_over_time_read_the_real_steps_only(pool):
    x, lengths = vectors(4, T, D) - 3, np.array([3, 0, 1, 99])  # the maximum is not the padding's 0
    real = [rows[:length] for rows, length in zip(x, lengths, strict=True)]
    expected = [reference(pool, rows) for rows in real]
    dirty = np.where(np.arange(T)[None, :, None] < lengths[:, None, None], x, np.nan)
    np.testing.assert_allclose(run(pool, {}, dirty, lengths), expected, rtol=1e-5)
    whole = [reference(pool, rows) for rows in x]
    np.testing.assert_allclose(run(pool, {}, x), whole, rtol=1e-5)


def test_global_pools_of_images_take_no_notice_of_lengths():
    x = vectors(2, 3, 3, 2)
    got = run(layers.GlobalAvgPool(), {}, x, np.array([1, 1]))
    np.testing.assert_allclose(got, x.mean((1, 2)), rtol=1e-5)


# --- padding --------------------------------------------------------------------------------------

PAD = 2
INSIDE = layers.Serial(
    [
        layers.Embedding("embedding", 7, 4),
        layers.Parallel(
            [
                layers.Serial([layers.LSTM("lstm", 3), layers.LastStep()]),
                layers.Serial([layers.GRU("gru", 3, reverse=True), layers.FirstStep()]),
                layers.GlobalMaxPool(),
                layers.Serial([layers.SelfAttention("all", 2), layers.GlobalAvgPool()]),
                layers.Serial(
                    [
                        layers.Repeat(layers.RNN("rnn", 4), 2, "deep"),
                        layers.KMaxPool(2),
                        layers.Flatten(),
                    ]
                ),
            ],
            "concat",
            name="heads",
        ),
        layers.Dense("output", 3),
    ]
)
NET = layers.Padded(INSIDE, PAD)
TEXTS = [[1, 3, 4, 6], [5, PAD, 0], [], [PAD, 6]]  # padding may stand inside and in front


def padded(t):
    rows = np.full((len(TEXTS), t), PAD, np.int32)
    for i, text in enumerate(TEXTS):
        rows[i, : len(text)] = text
    return jnp.asarray(rows)


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST)
def value_and_gradients(net, params, x, lengths=None):
    def loss(params):
        y, _ = jaxd2l.apply(net, params, {}, x, lengths=lengths)
        return (jnp.sin(y) ** 2).sum(), y

    return jax.grad(loss, has_aux=True)(params)


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def test_appending_padding_changes_neither_values_nor_gradients():
    params, _ = made(NET, (4,))
    short, long = (value_and_gradients(NET, params, padded(t)) for t in (4, 7))
    same(short, long)
    for leaf in jax.tree.leaves(long):  # the empty text as well
        assert np.isfinite(leaf).all()


def test_padding_inside_a_text_is_a_token_and_given_lengths_win():
    params, _ = made(NET, (4,))
    x, lengths = padded(4), np.array([len(text) for text in TEXTS])
    by_token = value_and_gradients(NET, params, x)
    same(by_token, value_and_gradients(INSIDE, params, x, lengths))
    gradient = by_token[0]["embedding"]["embedding"]
    assert np.abs(gradient[PAD]).max() > 1e-4  # it is read, where it stands inside
    shorter = np.array([2, 1, 0, 1])
    given = value_and_gradients(NET, params, x, shorter)
    same(given, value_and_gradients(INSIDE, params, x, shorter))
    assert np.abs(given[1] - by_token[1]).max() > 1e-3
    without = value_and_gradients(INSIDE, params, x, np.full(4, 4))
    assert np.abs(without[1] - by_token[1])[1:].max() > 1e-3  # unpadded, all four steps are read


def test_padding_that_ends_a_text_gets_no_gradient():
    params, _ = made(NET, (4,))
    x = jnp.array([[1, 3, PAD, PAD], [6, PAD, PAD, PAD]] * 2)
    gradient = value_and_gradients(NET, params, x)[0]["embedding"]["embedding"]
    used = np.abs(gradient).max(axis=1) > 0
    assert np.flatnonzero(used).tolist() == [1, 3, 6]


def test_padded_adds_no_level_and_seeds_dropout_as_without_it():
    inner = layers.Serial(
        [
            layers.Embedding("embedding", 7, 4),
            layers.BatchNorm("bn"),
            layers.Dropout("dropout", 0.5),
            layers.RNN("rnn", 3),
        ]
    )
    net = layers.Padded(inner, 0)
    assert layers.declared(net, (4,)) == layers.declared(inner, (4,))
    params, state = made(net, (4,))
    x = jnp.array([[1, 3, 4, 6]])
    call = dict(train=True, key=jax.random.key(1))  # noqa: C408
    y, new = jaxd2l.apply(net, params, state, x, **call)
    y0, new0 = jaxd2l.apply(inner, params, state, x, **call)
    same((y, new), (y0, new0))
    table, plain = jaxd2l.summarize(net, (4,)), jaxd2l.summarize(inner, (4,))
    assert (table.parameters, table.macs) == (plain.parameters, plain.macs)
    assert [row.path for row in table.rows] == [row.path for row in plain.rows]
    found = layers.outputs_at(net, params, state, jnp.array([[1, 3, 0, 0]]), ["rnn"])["rnn"]
    assert found.shape == (1, 4, 3)
    np.testing.assert_array_equal(found[0, 2:], 0)


# --- errors ---------------------------------------------------------------------------------------

SEQUENCE = jnp.ones((2, 3, 4))
TOKENS = jnp.ones((2, 3), jnp.int32)
BUILD = [
    (lambda: layers.RNN("x", 0), ValueError, "RNN: features must be at least 1, got 0"),
    (lambda: layers.RNN("a/b", 3), ValueError, "RNN: the name 'a/b' must be"),
    (lambda: layers.RNN("x", 3, "sigmoid"), ValueError, "activation must be tanh or relu, got 's"),
    (lambda: layers.GRU("x", 2.5), TypeError, "GRU: features must be an integer, got 2.5"),
    (lambda: layers.GRU("x", 3, 1), TypeError, "GRU: reset_after must be True or False, got 1"),
    (lambda: layers.LSTM("x", 3, "yes"), TypeError, "LSTM: reverse must be True or False"),
    (lambda: layers.LSTM("x", 3, bias_init=0), TypeError, "LSTM: bias_init must be an initialiser"),
    (lambda: layers.OneHot(0), ValueError, "OneHot: size must be at least 1, got 0"),
    (lambda: layers.SelfAttention("x", 0), ValueError, "heads must be at least 1, got 0"),
    (lambda: layers.SelfAttention("x", 2, 1), TypeError, "causal must be True or False, got 1"),
    (lambda: layers.SelfAttention("x", 2, rotary=True), TypeError, "rotary .a base. must be a num"),
    (lambda: layers.SelfAttention("x", 2, rotary=0.5), ValueError, "rotary .a base. must be >= 1"),
    (lambda: layers.SelfAttention("x", 2, dropout=1.5), ValueError, "dropout .the fraction droppe"),
    (lambda: layers.LearnedPositions("x", 0), ValueError, "length must be at least 1, got 0"),
    (lambda: layers.SinusoidalPositions(3, 4), TypeError, "the name must be a string, got 3"),
    (lambda: layers.RealSteps(0), ValueError, "RealSteps: width must be at least 1, got 0"),
    (lambda: layers.Padded(layers.OneHot(2), -1), ValueError, "padding must be at least 0, got -1"),
    (lambda: layers.Padded([], 0), TypeError, "Padded: .* is not a layer"),
    (
        lambda: layers.Padded(layers.OneHot(2), "<pad>"),
        TypeError,
        "must be an integer, got '<pad>'",
    ),
]
SHAPES = [
    (layers.RNN("x", 3), (4,), "RNN needs sequences .* put layers.OneHot or layers.Embedding"),
    (layers.LSTM("x", 3), (4, 4, 1), "LSTM needs sequences .t, features., got .4, 4, 1."),
    (layers.SelfAttention("x", 2), (4,), "SelfAttention needs sequences"),
    (layers.SelfAttention("x", 3), (4, 4), "4 features cannot be divided over 3 heads"),
    (layers.SelfAttention("x", 2, rotary=9.0), (5, 6), "6 features over 2 heads are 3 each"),
    (layers.LearnedPositions("x", 3), (4, 2), "there are 3 positions, the sequence has 4"),
    (layers.SinusoidalPositions("x", 9), (4, 3), "take features in pairs, got 3"),
    (layers.LastStep(), (4,), "LastStep needs sequences"),
    (layers.FirstStep(), (2, 2, 2), "FirstStep needs sequences"),
    (
        layers.Padded(layers.OneHot(3), 0),
        (4, 2),
        "Padded at 'the top level' needs sequences of tok",
    ),
]
CALLS = [
    (layers.OneHot(3), SEQUENCE, {}, TypeError, "OneHot: tokens must be integers, got float32"),
    (layers.Padded(layers.OneHot(3), 0), SEQUENCE, {}, ValueError, "Padded: needs a batch of tok"),
    (layers.LastStep(), SEQUENCE, {"lengths": [1]}, ValueError, r"lengths must have shape \(2,\)"),
    (layers.LastStep(), SEQUENCE, {"lengths": [1.0, 2]}, TypeError, "lengths must be integers"),
    (
        layers.LastStep(),
        SEQUENCE,
        {"lengths": [True, False]},
        TypeError,
        "must be integers, got bo",
    ),
]


@pytest.mark.parametrize(("build", "error", "message"), BUILD)
def test_a_record_that_cannot_be_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(("layer", "shape", "message"), SHAPES)
def test_an_input_shape_that_does_not_fit_is_refused_by_the_name_of_the_layer(
    layer, shape, message
):
    with pytest.raises(ValueError, match=message) as raised:
        jaxd2l.init(layer, jax.random.key(0), shape)
    name = layer.name or type(layer).__name__
    assert name in str(raised.value) + notes(raised)


@pytest.mark.parametrize(("layer", "x", "call", "error", "message"), CALLS)
def test_a_call_that_does_not_fit_is_refused(layer, x, call, error, message):
    with pytest.raises(error, match=message):
        jaxd2l.apply(layer, {}, {}, x, **call)


def test_lengths_may_be_a_list():
    got, _ = jaxd2l.apply(layers.LastStep(), {}, {}, jnp.asarray(vectors(2, 3, 4)), lengths=[1, 3])
    np.testing.assert_array_equal(got[0], vectors(2, 3, 4)[0, 0])
