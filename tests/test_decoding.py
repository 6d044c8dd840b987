"""Choosing tokens: what the filters keep, and how often each token is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxd2l.ops import decoding, linear
from jaxd2l.ops.decoding import NO_TOKEN

choose_token = jax.jit(decoding.choose_token, static_argnames=("temperature", "top_k", "top_p"))
choose_traced = jax.jit(decoding.choose_token, static_argnames=("top_k", "top_p"))
filter_logits = jax.jit(decoding.filter_logits, static_argnames=("top_k", "top_p"))

P = np.array([[0.1, 0.4, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25], [0.0, 0.9, 0.1, 0.0]])


def log(p):
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(p), jnp.float32)


def probabilities(logits, temperature=1.0):
    logits = np.asarray(logits, np.float64) / temperature
    p = np.exp(logits - logits.max())
    return p / p.sum()


def kept(filtered):
    return np.flatnonzero(np.asarray(filtered) > -np.inf).tolist()


def order(logits):
    """Indices from the most likely to the least; of equals, the first first."""
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))


# Filters


@settings(max_examples=25)
@given(
    st.lists(st.integers(-12, 12), min_size=5, max_size=5),
    st.none() | st.integers(1, 7),
    st.none() | st.floats(0.001, 1),
)
def test_filters_equal_brute_force(wholes, top_k, top_p):
    logits = np.array(wholes, np.float32) / 4  # many are equal
    likely = order(logits)[: top_k or 5]
    p = probabilities(logits[likely])
    wanted = []  # the candidates: rounding decides where a sum meets top_p exactly
    for slack in (-1e-6, 1e-6):
        count = len(likely)
        if top_p not in (None, 1.0):
            count = next((i for i in range(1, count) if p[:i].sum() >= top_p + slack), count)
        wanted.append(sorted(likely[:count]))
    found = decoding.filter_logits(jnp.asarray(logits), top_k=top_k, top_p=top_p)
    assert kept(found) in wanted
    np.testing.assert_array_equal(found[np.array(kept(found))], logits[kept(found)])


@pytest.mark.smoke
def test_filters_by_hand():
    logits = log(P)
    found = [kept(row) for row in filter_logits(logits, top_k=2)]
    assert found == [[1, 2], [0, 1], [1, 2]]  # equals: the first two
    found = [kept(row) for row in filter_logits(logits, top_p=0.75)]
    assert found == [[1, 2, 3], [0, 1, 2], [1]]
    # top-p counts within what top-k has left: 4/7, 3/7
    assert kept(filter_logits(logits[0], top_p=0.5)) == [1, 2]
    assert kept(filter_logits(logits[0], top_k=2, top_p=0.5)) == [1]
    np.testing.assert_array_equal(filter_logits(logits, top_k=99, top_p=1), logits)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_one_token_always_stays_and_the_dtype_too(dtype, x64, strict_promotion):
    logits = jnp.asarray(np.random.RandomState(0).randn(3, 9), dtype)
    for options in ({"top_k": 1}, {"top_p": 1e-30}, {"top_k": 3, "top_p": 1e-6}):
        found = filter_logits(logits, **options)
        assert found.dtype == dtype
        assert [kept(row) for row in found] == [[i] for i in logits.argmax(1).tolist()]


def test_top_p_of_1_keeps_what_a_float_cannot_add():
    logits = jnp.array([0.0, -30.0, -80.0])  # the first probability already rounds to 1
    assert kept(filter_logits(logits, top_p=1.0)) == [0, 1, 2]
    assert kept(filter_logits(logits, top_p=0.999)) == [0]


def test_filters_leave_no_doubt_about_broken_rows():
    rows = jnp.array([[0.0, jnp.nan, 1.0], [0.0, jnp.inf, 1.0], [-jnp.inf] * 3, [0.0, -jnp.inf, 1]])
    for options in ({}, {"top_k": 2}, {"top_p": 0.999}):
        found = np.asarray(filter_logits(rows, **options))
        assert np.isnan(found[:2]).all()
        assert np.isneginf(found[2]).all()
        assert kept(found[3]) == [0, 2]


# Drawing

DRAWS = 20_000
SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0, "top_k": 3},
    {"top_p": 0.65},
    {"temperature": 2.0, "top_k": 3, "top_p": 0.7},
]


def all_settings(settings):
    """One compiled program that chooses with each of the settings."""
    return jax.jit(
        lambda key, logits: [decoding.choose_token(key, logits, **options) for options in settings]
    )


@pytest.mark.smoke
def test_frequencies_are_the_renormalised_probabilities(key):
    rows = jnp.broadcast_to(log(P[0]), (DRAWS, 4))
    for options, tokens in zip(SETTINGS, all_settings(SETTINGS)(key, rows), strict=True):
        found = np.bincount(tokens, minlength=4)
        p = probabilities(np.log(P[0]), options.get("temperature", 1.0))
        likely = np.array(order(p)[: options.get("top_k", 4)])
        p = np.where(np.isin(range(4), likely), p, 0) / p[likely].sum()
        before = np.cumsum(p[likely]) - p[likely]
        likely = likely[before < options.get("top_p", 1.0)]
        assert found.sum() == found[likely].sum() == DRAWS
        wanted = DRAWS * p[likely] / p[likely].sum()
        assert len(likely) == {0.65: 2, 0.7: 2}.get(options.get("top_p"), options.get("top_k", 4))
        assert stats.chisquare(found[likely], wanted).pvalue > 0.001, options


def test_a_temperature_near_0_and_narrow_filters_are_greedy(key):
    logits = jnp.asarray(np.random.RandomState(1).randn(50, 12), jnp.float32)
    wanted = logits.argmax(1)
    settings = [
        {"temperature": 0},
        {"temperature": 0.0, "top_k": 5, "top_p": 0.9},
        {"temperature": 1e-4},
        {"temperature": 1e-45},  # its reciprocal is infinite
        {"top_k": 1, "temperature": 50.0},
        {"top_p": 1e-9},
    ]
    for found in all_settings(settings)(key, logits):
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, wanted)
    assert choose_token(None, jnp.zeros((2, 3)), temperature=0).tolist() == [0, 0]
    # a high temperature: nearly uniform
    rows = jnp.broadcast_to(logits[0], (6000, 12))
    found = np.bincount(choose_token(key, rows, temperature=1e6), minlength=12)
    assert stats.chisquare(found).pvalue > 0.001


def test_a_row_depends_on_its_own_key_alone(key):
    logits = jnp.asarray(np.random.RandomState(2).randn(8, 6), jnp.float32)
    whole = choose_token(key, logits)
    rows = np.array([6, 1, 3])
    found = choose_token(key, logits[rows], examples=jnp.asarray(rows))
    np.testing.assert_array_equal(found, whole[rows])
    other = choose_token(jax.random.key(1), logits)
    assert (np.asarray(other) != np.asarray(whole)).any()


def test_four_devices_draw_what_one_draws(key):
    logits = jnp.asarray(np.random.RandomState(3).randn(8, 6), jnp.float32)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))

    def shard(logits):
        local = logits.shape[0]
        examples = jax.lax.axis_index("data") * local + jnp.arange(local)
        return decoding.choose_token(key, logits, top_k=3, top_p=0.9, examples=examples)

    spec = jax.sharding.PartitionSpec("data")
    sharded = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=spec, out_specs=spec))
    np.testing.assert_array_equal(sharded(logits), choose_token(key, logits, top_k=3, top_p=0.9))


def test_jit_vmap_and_scan_with_a_traced_temperature(key, strict_promotion):
    logits = jnp.asarray(np.random.RandomState(4).randn(2, 3, 7), jnp.float32)
    keys = jax.random.split(key, 2)
    t = jnp.array([0.0, 0.7])

    def choose(key, logits, temperature):
        return decoding.choose_token(key, logits, temperature=temperature, top_k=5, top_p=0.9)

    @jax.jit
    def everything(keys, logits, t):
        mapped = jax.vmap(choose)(keys, logits, t)
        scanned = jax.lax.scan(lambda carry, xs: (carry, choose(*xs)), 0, (keys, logits, t))[1]
        return mapped, scanned, [choose(keys[i], logits[i], [0.0, 0.7][i]) for i in range(2)]

    mapped, scanned, wanted = everything(keys, logits, t)
    np.testing.assert_array_equal(mapped, wanted)
    np.testing.assert_array_equal(scanned, wanted)
    np.testing.assert_array_equal(wanted[0], logits[0].argmax(1))


def test_rows_without_a_token_give_minus_1_and_go_on_to_do_so(key):
    nan, inf = jnp.nan, jnp.inf
    rows = jnp.array([[0.0, nan], [inf, 0.0], [-inf, -inf], [-inf, 0.0]])
    wanted = [NO_TOKEN, NO_TOKEN, NO_TOKEN, 1]
    settings = [{}, {"temperature": 0}, {"top_k": 1}, {"top_p": 0.5}]
    for found in all_settings(settings)(key, rows):
        assert found.tolist() == wanted
    good = jnp.zeros((1, 4))
    for t in (-1.0, nan, inf):
        assert choose_traced(key, good, temperature=jnp.float32(t)).tolist() == [NO_TOKEN]
    after = linear.embedding(jnp.array([NO_TOKEN]), jnp.ones((4, 4)))
    assert choose_traced(key, after).tolist() == [NO_TOKEN]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_other_dtypes(dtype, x64, strict_promotion, key):
    logits = jnp.asarray(log(P), dtype)
    found = choose_traced(key, logits, temperature=jnp.float32(0.7), top_k=2, top_p=0.95)
    assert found.dtype == jnp.int32
    assert (np.asarray(logits)[range(3), found] > -np.inf).all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"top_k": 0}, ValueError, "top_k must be at least 1, got 0"),
        ({"top_k": 2.0}, TypeError, "top_k must be an integer"),
        ({"top_p": 0.0}, ValueError, r"top_p is a probability in \(0, 1\], got 0"),
        ({"top_p": 1.1}, ValueError, "got 1.1"),
        ({"top_p": float("nan")}, ValueError, "got nan"),
        ({"top_p": True}, TypeError, "top_p must be a Python number, got bool"),
        ({"temperature": -1}, ValueError, "temperature must be 0"),
        ({"temperature": float("inf")}, ValueError, "positive finite number, got inf"),
        ({"temperature": "hot"}, TypeError, "a number or a scalar array, got str"),
        ({"temperature": jnp.ones(2)}, TypeError, r"scalar array, got \(2,\)"),
        ({"temperature": jnp.int32(1)}, TypeError, "temperature must be floating point"),
        ({"key": None}, ValueError, "key is None"),
        ({"key": None, "temperature": jnp.float32(0)}, ValueError, "key is None"),
        ({"logits": jnp.zeros(3)}, ValueError, r"must have shape \(n, vocabulary\), got \(3,\)"),
        ({"logits": jnp.zeros((2, 0))}, ValueError, "at least one token"),
        ({"logits": jnp.zeros((2, 3), int)}, TypeError, "logits must be floating point"),
        ({"examples": jnp.arange(3)}, ValueError, "one index per example"),
    ],
)
def test_mistakes_are_told(options, error, words, key):
    options = {"key": key, "logits": jnp.zeros((2, 3)), **options}
    with pytest.raises(error, match=words):
        decoding.choose_token(options.pop("key"), options.pop("logits"), **options)
