"""Classifiers of texts against loops in NumPy; padding, counts, the contract, word order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxd2l
from jaxd2l import data, layers, models, records, train
from jaxd2l.layers import FirstStep, RealSteps
from jaxd2l.models import bilstm, textcnn
from jaxd2l.ops import losses

PAD = 1
TEXTS = [[2, 3, 4, 5, 6, 7, 2], [5], [4, 3, 0], [], [6, PAD, 2, 2, 7]]  # padding may stand inside
NETS = {
    "textcnn": textcnn(8, 3, 4, (1, 2, 4), 5),
    "k_max": textcnn(8, 3, 4, (2, 3), 5, k=2, dropout=0.0),
    "bilstm": bilstm(8, 3, 4, 5, dropout=0.3),
    "shallow": bilstm(8, 3, 4, 5, depth=1),
}


def rows(texts, t):
    array = np.full((len(texts), t), PAD, np.int32)
    for i, text in enumerate(texts):
        array[i, : len(text)] = text
    return jnp.asarray(array)


@functools.lru_cache
def made(name):
    net = NETS[name]
    return net, *jaxd2l.init(net, jax.random.key(3), (7,))


FAST = {"xla_backend_optimization_level": 0}  # to compile
logits = jax.jit(
    lambda net, *a, **k: jaxd2l.apply(net, *a, **k)[0], static_argnums=0, compiler_options=FAST
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cnn_by_loops(params, text, widths, k):
    embedded = params["embedding"]["embedding"][np.array(text, int)]
    found = []
    for width in widths:
        kernel, bias = params[f"conv{width}"]["kernel"], params[f"conv{width}"]["bias"]
        short = max(0, width - len(text))
        filled = np.concatenate([embedded, np.zeros((short, embedded.shape[1]))])
        answers = [
            np.maximum(0, np.einsum("we,wef->f", filled[i : i + width], kernel) + bias)
            for i in range(len(filled) - width + 1)
        ]
        best = np.zeros((k, len(bias)))
        if text:
            for f, column in enumerate(np.array(answers).T):
                at = sorted(sorted(range(len(column)), key=lambda i: -column[i])[:k])
                best[: len(at), f] = column[at]
        found.append(best.reshape(-1))
    features = np.concatenate(found)
    return features @ params["output"]["kernel"] + params["output"]["bias"]


def lstm_by_loops(params, sequence):
    h = c = np.zeros(params["recurrent_kernel"].shape[0])
    outputs = []
    for x in sequence:
        gates = x @ params["input_kernel"] + h @ params["recurrent_kernel"] + params["bias"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return outputs, h


def bilstm_by_loops(params, text, depth):
    sequence = list(params["embedding"]["embedding"][np.array(text, int)])
    for i in range(1, depth + 1):
        forward, last = lstm_by_loops(params[f"bilstm{i}"]["forward"], sequence)
        backward, first = lstm_by_loops(params[f"bilstm{i}"]["backward"], sequence[::-1])
        pairs = zip(forward, backward[::-1], strict=True)
        sequence = [np.concatenate(pair) for pair in pairs]
    joined = np.concatenate([last, first])
    return joined @ params["output"]["kernel"] + params["output"]["bias"]


@pytest.mark.smoke
@pytest.mark.parametrize("name", NETS)
def test_logits_equal_loops_over_words(name):
    net, params, state = made(name)
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    one = {
        "textcnn": lambda text: cnn_by_loops(wide, text, (1, 2, 4), 1),
        "k_max": lambda text: cnn_by_loops(wide, text, (2, 3), 2),
        "bilstm": lambda text: bilstm_by_loops(wide, text, 2),
        "shallow": lambda text: bilstm_by_loops(wide, text, 1),
    }[name]
    found = logits(net, params, state, rows(TEXTS, 7))
    np.testing.assert_allclose(found, [one(text) for text in TEXTS], rtol=1e-4, atol=1e-5)
    assert np.ptp(found, axis=0).min() > 0.01  # the texts are told apart


@pytest.mark.parametrize("name", NETS)
def test_padding_changes_nothing_and_is_never_read(name):
    net, params, state = made(name)
    short = logits(net, params, state, rows(TEXTS, 7))
    np.testing.assert_allclose(logits(net, params, state, rows(TEXTS, 12)), short, atol=1e-6)
    # whatever the vector of the padding is: it is read only where it stands inside a text
    poisoned = jax.tree.map(lambda a: a, params)
    table = params["embedding"]["embedding"]
    poisoned["embedding"] = {"embedding": table.at[PAD].set(jnp.nan)}
    outside = logits(net, poisoned, state, rows(TEXTS, 7))
    np.testing.assert_array_equal(outside[:4], short[:4])
    assert np.isnan(outside[4]).all()
    # lengths that are given take the place of those found
    given = logits(net, params, state, rows(TEXTS, 7), lengths=jnp.array([4, 1, 2, 0, 5]))
    texts = [text[:n] for text, n in zip(TEXTS, (4, 1, 2, 0, 5), strict=True)]
    cut = logits(net, params, state, rows(texts, 7))
    np.testing.assert_allclose(given, cut, atol=1e-6)


def test_rows_may_be_shorter_than_the_windows():
    net, params, state = made("textcnn")
    one = logits(net, params, state, jnp.array([[5]]))
    np.testing.assert_allclose(one, logits(net, params, state, rows(TEXTS, 7))[1:2], atol=1e-6)
    assert jaxd2l.output_shape(net, (1,)) == (3,)


def test_parameters_by_hand():
    # D2L 16.3's widths and features; embedding, three convolutions, dense
    convolutions = sum(width * 100 * 100 + 100 for width in (3, 4, 5))
    wanted = 1000 * 100 + convolutions + 300 * 2 + 2
    assert jaxd2l.summarize(textcnn(), (32,)).parameters == wanted
    assert jaxd2l.summarize(textcnn(k=3), (32,)).parameters == wanted + 2 * 600
    # two layers of two directions: four gates of (inputs + states + bias)
    first, second = 2 * 4 * 100 * (100 + 100 + 1), 2 * 4 * 100 * (200 + 100 + 1)
    wanted = 1000 * 100 + first + second + 200 * 2 + 2
    assert jaxd2l.summarize(bilstm(), (32,)).parameters == wanted
    assert jaxd2l.summarize(bilstm(depth=1), (32,)).parameters == wanted - second


def test_paths_and_the_last_layer_with_parameters():
    paths = sorted(jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(made("bilstm")[1]))
    assert "['bilstm2']['backward']['input_kernel']" in paths
    for name in NETS:
        rows_of = [r for r in jaxd2l.summarize(NETS[name], (7,)).rows if r.parameters]
        assert rows_of[-1].path == "output", name


traced = []


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST)
def mapped_and_gradients(net, params, x):
    traced.append(net)

    def loss(params):
        y, _ = jaxd2l.apply(net, params, {}, x, train=True, key=jax.random.key(0))
        return losses.softmax_cross_entropy(y, jnp.arange(len(x)) % 3).mean()

    one = jax.vmap(lambda row: jaxd2l.apply(net, params, {}, row[None])[0][0])
    return one(x), jax.grad(loss)(params)


@pytest.mark.parametrize("name", ["textcnn", "bilstm"])
def test_contract(name, strict_promotion):
    net, params, state = made(name)
    twin = records.load(records.dump(net))
    assert twin == net
    assert repr(net).startswith("Padded(")
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert jaxd2l.summarize(net, (7,)).parameters == count
    assert state == {}
    x = rows(TEXTS[:4], 7)
    mapped, grads = mapped_and_gradients(net, params, x)
    whole = logits(net, params, {}, rows(TEXTS, 7))[:4]
    np.testing.assert_allclose(mapped, whole, rtol=1e-5, atol=1e-6)
    before = len(traced)
    mapped_and_gradients(twin, params, x)
    assert len(traced) == before

    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    table = np.abs(grads["embedding"]["embedding"]).max(axis=1)
    assert table[PAD] == 0
    assert table[2:].min() > 0  # every word that occurs is trained

    for dtype in (jnp.bfloat16, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            low = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype), params)  # noqa: B023
            run = functools.partial(jaxd2l.apply, net, train=True, key=jax.random.key(0))
            y, _ = jax.eval_shape(run, low, {}, x)
            assert y.dtype == dtype
            assert y.shape == (4, 3)


def test_the_registry_knows_them():
    for name in ("textcnn", "bilstm"):
        assert name in models.names()
        net = models.build(name, num_classes=4)
        assert jaxd2l.output_shape(net, models.input_shape(name)) == (4,)
    assert models.build("textcnn", k=2) == textcnn(k=2)


@pytest.mark.parametrize(
    "net",
    [
        textcnn(6, 2, 8, (2, 3), 8, dropout=0.1),
        pytest.param(bilstm(6, 2, 8, 8, 1), marks=pytest.mark.slow),
    ],
    ids=["textcnn", "bilstm"],
)
def test_the_order_of_words_is_learnt(net):
    """Texts with "2 3" or "3 2" somewhere among 4 and 5: their counts are the same."""
    draw = np.random.RandomState(0)
    labels = np.arange(128) % 2
    texts = []
    for label in labels:
        text = list(draw.randint(4, 6, draw.randint(1, 8)))
        at = draw.randint(len(text) + 1)
        texts.append([*text[:at], *((3, 2) if label else (2, 3)), *text[at:]])
    dataset = data.Dataset(np.asarray(rows(texts, 10)), labels, ("2 3", "3 2"))
    found = train.fit(
        net,
        dataset.take(np.arange(96)),
        test=dataset.take(np.arange(96, 128)),
        loss=losses.softmax_cross_entropy,
        optimizer=optax.adam(0.02),
        epochs=25,
        batch_size=16,
    )
    assert found.history[-1]["test_accuracy"] == 1.0


def test_first_step_and_real_steps(strict_promotion):
    x = jnp.arange(1.0, 13.0).reshape(2, 3, 2)
    lengths = jnp.array([2, 9], jnp.uint8)  # beyond the end counts as the end
    first, _ = jaxd2l.apply(FirstStep(), {}, {}, x, lengths=lengths)
    np.testing.assert_array_equal(first, [[1, 2], [7, 8]])
    for width, kept in ((1, (2, 3)), (2, (1, 2)), (3, (1, 1)), (9, (1, 1))):
        y, _ = jaxd2l.apply(RealSteps(width), {}, {}, x, lengths=lengths)
        np.testing.assert_array_equal((y != 0).sum((1, 2)), 2 * np.array(kept))
        whole, _ = jaxd2l.apply(RealSteps(width), {}, {}, x)
        np.testing.assert_array_equal((whole != 0).sum((1, 2)), [2 * kept[1]] * 2)
        np.testing.assert_array_equal(y[:, : min(kept)], x[:, : min(kept)])
    none, _ = jaxd2l.apply(RealSteps(2), {}, {}, x, lengths=jnp.zeros(2, jnp.int32))
    assert (none == 0).all()
    assert RealSteps().windows((3, 2)) == ()
    assert RealSteps(2).windows((3, 2)) is None  # where a text ends decides
    for layer in (FirstStep(), RealSteps(2)):
        assert records.load(records.dump(layer)) == layer
        assert layers.output_shape(layer, (3, 2)) == ((2,) if layer == FirstStep() else (3, 2))
        y, _ = jax.eval_shape(
            functools.partial(jaxd2l.apply, layer, {}, {}),
            jax.ShapeDtypeStruct((4, 3, 2), jnp.bfloat16),
            lengths=jax.ShapeDtypeStruct((4,), jnp.int32),
        )
        assert y.dtype == jnp.bfloat16
        with pytest.raises(ValueError, match=r"needs sequences \(t, features\), got \(3,\)"):
            layers.output_shape(layer, (3,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: textcnn(widths=()), r"textcnn: widths must be one or more different .*\(\)"),
        (lambda: textcnn(widths=(3, 3)), r"different integers, got \(3, 3\)"),
        (lambda: textcnn(widths=(3, 0)), "textcnn: each width must be at least 1"),
        (lambda: textcnn(k=0), "textcnn: k must be at least 1"),
        (lambda: bilstm(depth=0), "bilstm: depth must be at least 1"),
        (lambda: bilstm(padding=-1), "Padded: padding must be at least 0"),
        (lambda: RealSteps(0), "RealSteps: width must be at least 1"),
        (lambda: layers.output_shape(textcnn(k=4), (3,)), "KMaxPool needs .* t >= k=4"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
