"""Generation: greedy against running the network on the growing text, sampling by frequencies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import generation, layers, models
from jaxd2l.generation import generate
from jaxd2l.records import record

V = 7
T = 4
STEPS = 5
FAST = {"xla_backend_optimization_level": 0}
NETS = {
    "rnn": models.rnn_lm(V, 5),
    "gru": models.gru_lm(V, 4, depth=2, embedding=3, dropout=0.5),
    "lstm": models.lstm_lm(V, 4),
    "gpt": models.gpt(V, 6, 2, 2, length=T + STEPS - 1),
    "post-norm": models.gpt(V, 6, 2, 1, length=30, positions="sinusoidal", norm_first=False),
    "stacked": models.gpt(V, 4, 2, 8, positions="rotary", dropout=0.1),
}


@functools.lru_cache
def made(name):
    random = np.random.RandomState(4)
    params, state = layers.declared(NETS[name], (T,))
    assert not state
    return jax.tree.map(lambda a: jnp.asarray(random.normal(size=a.shape), a.dtype), params)


PROMPT = jnp.array([[3, 1, 4, 1], [5, 2, 6, 0]])


def apply(net, params, tokens):
    return jaxd2l.apply(net, params, {}, tokens)[0]


run = jax.jit(apply, static_argnums=0, compiler_options=FAST)


# --- greedy ---------------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["gpt", pytest.param("gru", marks=pytest.mark.slow)])
def test_greedy_is_the_loop_over_the_growing_text(name):
    net, params = NETS[name], made(name)
    got = generate(net, params, {}, PROMPT, 3, temperature=0)
    text = PROMPT
    for _ in range(3):
        text = jnp.concatenate([text, run(net, params, text)[:, -1:].argmax(-1)], axis=1)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, text[:, T:])


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in ("stacked", "post-norm"))) for n in NETS],
)
def test_greedy_takes_the_likeliest_token_after_prompts_of_any_length(name):
    # One pass over the finished text: token i is the likeliest after all before it.
    net, params = NETS[name], made(name)
    for lengths in ([T, 2], [1, 3]):
        got = np.asarray(
            generate(net, params, {}, PROMPT, STEPS, temperature=0, lengths=jnp.array(lengths))
        )
        text = np.zeros((2, T + STEPS - 1), np.int32)
        for row, length in enumerate(lengths):
            whole = np.concatenate([PROMPT[row, :length], got[row]])[:-1]
            text[row, : len(whole)] = whole
        best = run(net, params, text).argmax(-1)
        for row, length in enumerate(lengths):
            np.testing.assert_array_equal(best[row, length - 1 : length - 1 + STEPS], got[row])


def test_what_follows_a_short_prompt_is_ignored():
    net, params = NETS["lstm"], made("lstm")
    call = functools.partial(generate, net, params, {}, steps=STEPS, temperature=0, lengths=[2, 3])
    dirty = jnp.array([[3, 1, -1, 99], [5, 2, 6, 5]])  # no tokens at all, as ragged arrays have
    np.testing.assert_array_equal(call(dirty), call(PROMPT))


def test_a_generated_token_of_padding_is_a_token():
    # Inside the text it counts as real, so the same as without the mark.
    net, params = NETS["rnn"], made("rnn")
    plain = generate(net, params, {}, PROMPT, 12, temperature=0)
    seen = sorted(set(np.ravel(plain[:, :-1]).tolist()))
    for padding in seen[:2]:
        got = generate(layers.Padded(net, padding), params, {}, PROMPT, 12, temperature=0)
        np.testing.assert_array_equal(got, plain)


def test_statistics_are_those_of_evaluation():
    net = layers.Serial(
        [layers.Embedding("e", V, 4), layers.BatchNorm("bn"), layers.Dense("output", V)]
    )
    params, state = jaxd2l.init(net, jax.random.key(0), (T,))
    shifted = {"bn": {"mean": jnp.array([1.0, -2, 0, 3]), "var": jnp.array([0.1, 1, 5, 2])}}
    text = generate(net, params, shifted, PROMPT[:, :1], 6, temperature=0)
    best = jaxd2l.apply(net, params, shifted, jnp.arange(V)[None])[0][0].argmax(-1)
    np.testing.assert_array_equal(text[:, 1:], best[text[:, :-1]])
    assert not np.array_equal(text, generate(net, params, state, PROMPT[:, :1], 6, temperature=0))


# --- sampling -------------------------------------------------------------------------------------

# An embedding of as many features as tokens is a Markov chain: its table holds the logits.
CHAIN = layers.Embedding("embedding", 4, 4)
P = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25] * 4, [0.05, 0.05, 0.45, 0.45]])
CHAIN_PARAMS = {"embedding": {"embedding": jnp.log(jnp.asarray(P, jnp.float32))}}


def sharpened(p, temperature=1.0, top_k=4, top_p=1.0):
    """What softmax(log p / temperature) keeps, in NumPy."""
    p = p ** (1 / temperature) / (p ** (1 / temperature)).sum(-1, keepdims=True)
    kept = np.zeros_like(p)
    for row, new in zip(p, kept, strict=True):
        order = np.argsort(-row, kind="stable")[:top_k]
        within = row[order] / row[order].sum()
        order = order[np.cumsum(within) - within < top_p - 1e-9]
        new[order] = row[order] / row[order].sum()
    return kept


@pytest.mark.parametrize(
    "how",
    [{}, {"temperature": 0.5}, {"temperature": 3.0, "top_k": 3}, {"top_k": 3, "top_p": 0.7}],
    ids=str,
)
def test_frequencies_are_those_of_the_softmax(how):
    n, steps = 4000, 3
    prompt = jnp.arange(n)[:, None] % 4
    text = generate(CHAIN, CHAIN_PARAMS, {}, prompt, steps, key=jax.random.key(5), **how)
    text = np.concatenate([prompt, text], axis=1)
    expected = sharpened(P, **how)
    before, after = text[:, :-1].ravel(), text[:, 1:].ravel()
    for token in range(4):
        followers = np.bincount(after[before == token], minlength=4)
        if followers.sum() > 100:
            deviation = np.sqrt(expected[token] * (1 - expected[token]) / followers.sum())
            error = np.abs(followers / followers.sum() - expected[token])
            assert (error <= 4 * deviation).all(), (token, followers)
    assert len(set(before.tolist())) >= 3


@pytest.mark.parametrize("name", ["rnn", pytest.param("gpt", marks=pytest.mark.slow)])
def test_the_likeliest_of_one_and_no_warmth_are_greedy(name):
    net, params = NETS[name], made(name)
    greedy = generate(net, params, {}, PROMPT, STEPS, temperature=0)
    key = jax.random.key(1)
    one = generate(net, params, {}, PROMPT, STEPS, key=key, top_k=1, temperature=2.0)
    np.testing.assert_array_equal(one, greedy)
    cold = generate(net, params, {}, PROMPT, STEPS, key=key, temperature=jnp.float32(0))
    np.testing.assert_array_equal(cold, greedy)


def test_a_token_depends_on_its_key_its_example_and_its_place_only():
    net, params = NETS["rnn"], made("rnn")
    draw = functools.partial(generate, net, params, {}, temperature=3.0)
    key = jax.random.key(8)
    text = draw(PROMPT, 20, key=key)
    others = draw(PROMPT.at[1].set(0), 20, key=key)
    np.testing.assert_array_equal(text[0], others[0])
    alone = draw(PROMPT[:1], 20, key=key)
    np.testing.assert_array_equal(text[:1], alone)
    np.testing.assert_array_equal(text[:, :7], draw(PROMPT, 7, key=key))  # however many follow
    twice = draw(jnp.concatenate([PROMPT[:1]] * 2), 20, key=key)
    assert not np.array_equal(twice[0], twice[1])  # equal prompts are drawn apart
    assert not np.array_equal(text, draw(PROMPT, 20, key=jax.random.key(9)))


# --- one program ----------------------------------------------------------------------------------


def test_nothing_is_compiled_again_for_another_key_temperature_prompt_or_parameters():
    net, params = NETS["gru"], made("gru")
    call = functools.partial(generate, net, steps=20)
    call(params, {}, prompt=PROMPT, key=jax.random.key(0), temperature=3.0)
    before = generation._generate._cache_size()
    for seed, warmth in enumerate((0.7, 1, np.float64(2.5), jnp.float32(0.1))):
        new = jax.tree.map(lambda a, seed=seed: a + seed, params)
        prompt, key = np.asarray((PROMPT + seed) % V), jax.random.key(seed)
        call(new, {}, prompt=prompt, key=key, temperature=warmth, lengths=[1 + seed, 2])
    twin = models.gru_lm(V, 4, depth=2, embedding=3, dropout=0.5)
    generate(twin, params, {}, PROMPT, 20, key=jax.random.key(1))
    assert generation._generate._cache_size() == before


TRACED = []


@record
class Counted(layers.Layer):
    """The identity, which notes each time that it is traced."""

    def apply(self, params, state, x, context):
        TRACED.append(x.shape)
        return x, state

    def windows(self, input_shape):
        return ()


def test_the_number_of_tokens_adds_nothing_to_the_program():
    net = layers.Serial([CHAIN, Counted()])
    counts = []
    for steps in (3, 300):
        TRACED.clear()
        generate(net, CHAIN_PARAMS, {}, PROMPT[:, :2] % 4, steps, temperature=0)
        assert {shape[:2] for shape in TRACED} == {(2, 2), (2, 1)}
        counts.append(len(TRACED))
    assert counts[0] == counts[1]


def test_it_can_be_jitted_and_mapped():
    call = functools.partial(generate, CHAIN, CHAIN_PARAMS, {}, PROMPT % 4, STEPS)
    keys = jax.random.split(jax.random.key(0), 3)
    mapped = jax.jit(jax.vmap(lambda key, warmth: call(key=key, temperature=warmth)))
    warmth = jnp.array([0.5, 1.0, 2.0])
    for row, key, t in zip(mapped(keys, warmth), keys, warmth, strict=True):
        np.testing.assert_array_equal(row, call(key=key, temperature=t))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64], ids=["bf16", "f64"])
def test_every_dtype(dtype, strict_promotion):
    with jax.enable_x64(dtype == jnp.float64):
        for name in ("lstm", "gpt"):
            params = jax.tree.map(lambda a: a.astype(dtype), made(name))
            call = functools.partial(generate, NETS[name], params, {}, PROMPT, STEPS)
            assert jax.eval_shape(lambda c=call: c(key=jax.random.key(0))).dtype == jnp.int32


def test_a_token_that_the_network_cannot_read_shows_as_minus_one_from_then_on():
    net = layers.Serial([layers.Embedding("e", 4, 4), layers.Dense("output", 9)])
    kernel = jnp.zeros((4, 9)).at[0, 6].set(1.0)
    params = {
        "e": {"embedding": jnp.ones((4, 4))},
        "output": {"kernel": kernel, "bias": jnp.zeros(9)},
    }
    text = generate(net, params, {}, jnp.array([[1]]), 4, temperature=0)
    assert text.tolist() == [[6, -1, -1, -1]]


# --- errors ---------------------------------------------------------------------------------------

KEY = jax.random.key(0)
WRONG = [
    ({"prompt": PROMPT[0]}, ValueError, r"prompt must be tokens \(n, t\) .* got shape \(4,\)"),
    ({"prompt": PROMPT[:, :0]}, ValueError, "with at least one each"),
    ({"prompt": PROMPT * 1.0}, TypeError, "generate: prompt must be integers, got float32"),
    ({"prompt": PROMPT + 3}, ValueError, r"token 7 at index \(0, 2\) is outside \[0, 7\)"),
    ({"prompt": -PROMPT}, ValueError, "token -3 at index"),
    ({"steps": 0}, ValueError, "generate: steps must be at least 1, got 0"),
    ({"steps": 2.0}, TypeError, "generate: steps must be an integer, got 2.0"),
    ({"key": None}, ValueError, "sampling needs key=...; temperature=0 is greedy"),
    ({"key": 0}, TypeError, r"key must be a random key, jax.random.key\(seed\), got 0"),
    ({"temperature": -1}, ValueError, "generate: temperature must be >= 0, got -1"),
    ({"temperature": float("nan")}, ValueError, "generate: temperature must be >= 0, got nan"),
    ({"temperature": "warm"}, TypeError, "generate: temperature must be a number, got 'warm'"),
    ({"temperature": jnp.ones(2)}, TypeError, r"temperature must be a number or a scalar array"),
    ({"top_k": 0}, ValueError, "generate: top_k must be at least 1, got 0"),
    ({"top_k": 1.5}, TypeError, "generate: top_k must be an integer"),
    ({"top_p": 1.5}, ValueError, "generate: top_p must be >= 0 and <= 1, got 1.5"),
    ({"top_p": 0.0}, ValueError, r"top_p is a probability in \(0, 1\], got 0.0"),
    ({"lengths": [1]}, ValueError, r"one length for each prompt, shape \(2,\), got \(1,\)"),
    ({"lengths": [0, 4]}, ValueError, r"lengths must be between 1 and 4, got \[0, 4\]"),
    ({"lengths": [1, 5]}, ValueError, r"lengths must be between 1 and 4, got \[1, 5\]"),
    ({"lengths": [1.0, 2.0]}, TypeError, "generate: lengths must be integers"),
    ({"params": {}}, ValueError, "parameters must be"),
]


@pytest.mark.parametrize(("changed", "error", "message"), WRONG, ids=lambda v: str(v)[:30])
def test_a_wrong_argument_is_refused(changed, error, message):
    good = {"params": made("rnn"), "state": {}, "prompt": PROMPT, "steps": 2, "key": KEY}
    with pytest.raises(error, match=message):
        generate(NETS["rnn"], **(good | changed))


def test_a_network_that_cannot_go_on_is_refused():
    bias = {"output": {"kernel": jnp.zeros((4, V)), "bias": jnp.zeros(V)}}
    with pytest.raises(ValueError, match=r"must give \(t, vocabulary\) .* it gives \(7,\)"):
        generate(layers.Serial([NETS["rnn"], layers.LastStep()]), {}, {}, PROMPT, 2, temperature=0)
    back = layers.RNN("rnn", 4, reverse=True)
    net = layers.Serial([layers.OneHot(V), back, layers.Dense("output", V)])
    params = jax.tree.map(lambda a: jnp.zeros(a.shape), layers.declared(net, (T,))[0]) | bias
    with pytest.raises(ValueError, match="mixes positions and has no carry") as raised:
        generate(net, params, {}, PROMPT, 2, temperature=0)
    assert "in layer 'rnn'" in " ".join(raised.value.__notes__)


def test_a_text_longer_than_the_positions_is_refused_and_one_as_long_is_not():
    net, params = NETS["gpt"], made("gpt")
    with pytest.raises(ValueError, match="'positions': there are 8 positions, the sequence has 9"):
        generate(net, params, {}, PROMPT, STEPS + 1, temperature=0)
    text = generate(net, params, {}, PROMPT, STEPS, temperature=0)
    assert text.shape == (2, STEPS)
    assert (text >= 0).all()  # the last token, too, is no NaN
