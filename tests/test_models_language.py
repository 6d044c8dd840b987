"""Language models: parameters counted by hand, GPT against NumPy, claims, a run from end to end."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxd2l
from jaxd2l import layers, train
from jaxd2l.data import text
from jaxd2l.generation import generate
from jaxd2l.models import gpt, gru_lm, lstm_lm, rnn_lm
from jaxd2l.ops import losses, metrics
from jaxd2l.train import make_run

FAST = {"xla_backend_optimization_level": 0}
V = 7
T = 4


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST)
def run(net, params, tokens):
    return jaxd2l.apply(net, params, {}, tokens)[0]


def made(net, t=T):
    random = np.random.RandomState(4)
    params, _ = layers.declared(net, (t,))
    return jax.tree.map(lambda a: jnp.asarray(0.7 * random.normal(size=a.shape), a.dtype), params)


def tokens(n, t, seed=3):
    return jnp.asarray(np.random.RandomState(seed).randint(0, V, (n, t)), jnp.int32)


# --- what they are made of ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "gates"), [(rnn_lm, 1), (gru_lm, 3), (lstm_lm, 4)], ids=["rnn", "gru", "lstm"]
)
def test_parameters_of_recurrent_models(make, gates):
    def recurrent(d, h):
        return gates * (d * h + h * h + h)

    def count(t=9, **options):
        return jaxd2l.summarize(make(**options), (t,)).parameters

    book = recurrent(28, 32) + 32 * 28 + 28
    assert count() == book == {1: 2876, 3: 6780, 4: 8732}[gates]
    assert count(depth=3) == book + 2 * recurrent(32, 32)
    assert count(embedding=5, dropout=0.5) == 28 * 5 + recurrent(5, 32) + 32 * 28 + 28
    assert count(vocabulary=V, features=3) == recurrent(V, 3) + 3 * V + V
    assert count(t=1) == book  # however long the text


def test_c146_the_gru_has_three_quarters_of_the_lstms_recurrent_parameters():
    sizes = {
        kind: jaxd2l.summarize(kind("x", 32), (4, 8)).parameters
        for kind in (layers.GRU, layers.LSTM)
    }
    assert sizes == {layers.GRU: 3936, layers.LSTM: 5248}
    assert 4 * sizes[layers.GRU] == 3 * sizes[layers.LSTM]


def test_parameters_of_gpt():
    d, depth, length = 64, 4, 128
    block = 4 * (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d) + 2 * 2 * d
    rest = 28 * d + d * 28 + 28
    norm = 2 * d

    def count(**options):
        return jaxd2l.summarize(gpt(**options), (9,)).parameters

    assert count() == rest + length * d + depth * block + norm
    assert count(positions="sinusoidal") == count(positions="rotary")
    assert count(positions="rotary", depth=9, dropout=0.1) == rest + 9 * block + norm
    assert count(norm_first=False, length=9) == rest + 9 * d + depth * block


def test_where_dropout_acts():
    def dropped(net):
        return [s.path for s in layers.walk(net, (T,)) if isinstance(s.layer, layers.Dropout)]

    assert dropped(lstm_lm()) == dropped(gpt()) == []
    assert dropped(rnn_lm(dropout=0.2)) == ["dropout1"]
    # On connections that are not recurrent: after the embedding and after every layer.
    assert dropped(gru_lm(depth=2, embedding=4, dropout=0.2)) == [
        "dropout0",
        "dropout1",
        "dropout2",
    ]
    found = dropped(gpt(depth=1, dropout=0.2))
    assert found == ["dropout", "unit1/dropout1", "unit1/dropout2"]
    attention = [
        s.layer for s in layers.walk(gpt(dropout=0.2), (T,)) if s.path.endswith("/attention")
    ]
    assert [layer.dropout for layer in attention] == [0.2] * 4


# --- GPT in NumPy ---------------------------------------------------------------------------------


def normed(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def attended(x, p):
    t = len(x)
    q, k, v = (np.einsum("td,dhe->hte", x, p[f"{a}_kernel"]) + p[f"{a}_bias"][:, None] for a in
               ("query", "key", "value"))  # fmt: skip
    score = np.einsum("hqe,hke->hqk", q, k) / math.sqrt(q.shape[-1])
    score = np.where(np.tri(t, dtype=bool), score, -np.inf)
    weights = np.exp(score - score.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,hke,hed->qd", weights, v, p["output_kernel"]) + p["output_bias"]


def fed(x, p):
    hidden = x @ p["dense1"]["kernel"] + p["dense1"]["bias"]
    half = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return half @ p["dense2"]["kernel"] + p["dense2"]["bias"]


def gpt_in_numpy(params, row, blocks, norm_first):
    x = params["embedding"]["embedding"][row] + params["positions"]["embedding"][: len(row)]
    for p in blocks:
        if norm_first:
            x = x + attended(normed(x, p["norm1"]), p["attention"])
            x = x + fed(normed(x, p["norm2"]), p)
        else:
            x = normed(x + attended(x, p["attention"]), p["norm1"])
            x = normed(x + fed(x, p), p["norm2"])
    if norm_first:
        x = normed(x, params["norm"])
    return x @ params["output"]["kernel"] + params["output"]["bias"]


@pytest.mark.smoke
@pytest.mark.parametrize(("depth", "norm_first"), [(2, True), (1, False), (8, False)])
def test_gpt_is_what_the_papers_write(depth, norm_first):
    net = gpt(V, 6, 2, depth, length=9, norm_first=norm_first)
    params = made(net)
    x = tokens(2, T)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    if depth == 8:  # one path, stacked
        blocks = [jax.tree.map(lambda a, i=i: a[i], p["units"]) for i in range(depth)]
    else:
        blocks = [p[f"unit{i}"] for i in range(1, depth + 1)]
    expected = [gpt_in_numpy(p, row, blocks, norm_first) for row in np.asarray(x)]
    np.testing.assert_allclose(run(net, params, x), expected, rtol=2e-4, atol=2e-4)


def test_no_position_sees_what_comes_after_it():
    for net in (lstm_lm(V, 3, depth=2), gpt(V, 4, 2, 1, positions="rotary")):
        params = made(net)
        x = tokens(2, T)
        changed = x.at[:, 2].set((x[:, 2] + 1) % V)
        a, b = run(net, params, x), run(net, params, changed)
        np.testing.assert_array_equal(a[:, :2], b[:, :2])
        assert (np.abs(a - b)[:, 2:].max(axis=(0, 2)) > 1e-4).all()  # and each sees what was before


def test_rotary_and_fixed_positions_go_where_none_was_trained():
    net = gpt(V, 4, 2, 1, length=2, positions="rotary")
    assert np.isfinite(run(net, made(net), tokens(1, T))).all()  # `length` is no limit here
    with pytest.raises(ValueError, match="there are 2 positions, the sequence has 4"):
        layers.declared(gpt(V, 4, 2, 1, length=2), (T,))


# --- claims ---------------------------------------------------------------------------------------

ALL = [rnn_lm(V, 3), gru_lm(V, 3, depth=2), lstm_lm(V, 3, embedding=2), gpt(V, 4, 2, 1)]


@pytest.mark.parametrize("net", ALL, ids=["rnn", "gru", "lstm", "gpt"])
def test_c153_the_head_has_a_logit_for_each_token_of_the_vocabulary(net):
    params, _ = layers.declared(net, (T,))
    assert params["output"]["kernel"].shape[-1] == V
    assert jaxd2l.output_shape(net, (T,)) == (T, V)


@pytest.mark.parametrize("net", [ALL[0], ALL[3]], ids=["rnn", "gpt"])
def test_c154_perplexity_is_the_vocabulary_for_a_uniform_head_and_1_for_a_perfect_one(net):
    x, targets = tokens(2, T), tokens(2, T, seed=9)
    params = made(net) | {"output": jax.tree.map(jnp.zeros_like, made(net)["output"])}
    uniform = losses.softmax_cross_entropy(run(net, params, x), targets)
    assert metrics.perplexity(uniform) == pytest.approx(V, rel=1e-6)
    sure = params | {"output": params["output"] | {"bias": 100.0 * jax.nn.one_hot(2, V)}}
    perfect = losses.softmax_cross_entropy(run(net, sure, x), jnp.full((2, T), 2))
    assert metrics.perplexity(perfect) == pytest.approx(1, rel=1e-6)


def test_c154_untrained_the_perplexity_is_near_the_vocabulary():
    net = gpt(50, 16, 2, 1)
    params, _ = jaxd2l.init(net, jax.random.key(0), (20,))
    random = np.random.RandomState(0)
    x, targets = jnp.asarray(random.randint(0, 50, (2, 8, 20)), jnp.int32)
    perplexity = metrics.perplexity(losses.softmax_cross_entropy(run(net, params, x), targets))
    assert 0.95 * 50 < perplexity < 1.4 * 50


# --- from end to end ------------------------------------------------------------------------------


def test_fit_checkpoint_load_generate(tmp_path):
    corpus = text.english()[:3000]
    codec = text.Codec.train(corpus, normalize=True)
    ids = codec.encode(corpus)
    dataset = text.partition(ids, 20)
    counts = np.bincount(ids)
    p = counts[counts > 0] / counts.sum()
    unigram = math.exp(-(p * np.log(p)).sum())  # of a model that knows how often tokens come
    net = rnn_lm(codec.size, 24)
    result = train.fit(
        net,
        dataset,
        loss=losses.softmax_cross_entropy,
        optimizer=optax.adam(1e-2),
        epochs=8,
        batch_size=10,
        folder=tmp_path,
        meta={"codec": codec.to_json()},
    )
    perplexities = [math.exp(record["train_loss"]) for record in result.history]
    assert perplexities[0] > unigram > 1.5 * perplexities[-1]
    assert perplexities == sorted(perplexities, reverse=True)

    loaded = train.load(tmp_path)
    assert loaded.net == net
    np.testing.assert_array_equal(
        loaded.params["rnn1"]["recurrent_kernel"], result.params["rnn1"]["recurrent_kernel"]
    )
    codec = text.Codec.from_json(loaded.meta["codec"])
    prompt = codec.encode(corpus[:8])[None]
    made = generate(loaded.net, loaded.params, loaded.state, prompt, 30, temperature=0)
    words = codec.decode(np.asarray(made[0]))
    assert len(words) == 30
    assert set(words) <= set(" abcdefghijklmnopqrstuvwxyz")
    again = generate(net, result.params, result.state, prompt, 30, temperature=0)
    np.testing.assert_array_equal(made, again)


@pytest.mark.slow
def test_the_pure_run_trains_several_at_once():
    x = tokens(8, T)
    pure = make_run(rnn_lm(V, 4), losses.softmax_cross_entropy, optax.adam, epochs=3, batch_size=4)
    keys = jax.random.split(jax.random.key(0), 2)
    targets = (x + 1) % V
    both = jax.jit(jax.vmap(lambda key: pure(key, (x, targets), {"learning_rate": 0.05})))
    params, history = both(keys)
    assert params["rnn1"]["input_kernel"].shape == (2, V, 4)
    assert history["loss"].shape == history["accuracy"].shape == (2, 3)
    assert (np.diff(history["loss"]) < 0).all()
