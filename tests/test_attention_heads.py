"""Multi-head attention against PyTorch, and decoding with its cache against one full pass."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l.ops import attention
from jaxd2l.ops.attention import Cache, HeadWeights

attend = jax.jit(attention.multi_head_attention, static_argnames=("causal", "dropout", "rotary"))
GOLDEN = np.load(Path(__file__).parent / "golden" / "attention.npz")
HEADS, SIZE = 2, 3
BIASES = ("query_bias", "key_bias", "value_bias")


def golden(seed, sizes):
    """The weights and inputs of make_attention.py."""
    d = HEADS * SIZE
    draw = np.random.RandomState(seed)
    kernels = [(draw.randn(size, d) / 2).reshape(size, HEADS, SIZE) for size in sizes]
    output, biases, output_bias = draw.randn(d, d) / 2, draw.randn(3 * d), draw.randn(d)
    biases = biases.reshape(3, HEADS, SIZE)
    weights = HeadWeights(*kernels, output.reshape(HEADS, SIZE, d), *biases, output_bias)
    lengths = (4,) if len(set(sizes)) == 1 else (4, 5, 5)
    inputs = [draw.randn(2, t, size) for t, size in zip(lengths, sizes, strict=False)]
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32), (weights, inputs, draw.randn(2, 4, d))
    )


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "seed", "sizes", "options"),
    [
        ("self", 1, (6, 6, 6), {"causal": True}),
        ("cross", 2, (6, 5, 4), {"lengths": jnp.array([5, 2])}),
    ],
)
def test_outputs_and_gradients_are_those_of_pytorch(name, seed, sizes, options, strict_promotion):
    weights, inputs, c = golden(seed, sizes)

    @jax.jit
    def both(weights, inputs):
        def function(weights, inputs):
            query, key, value = inputs if len(inputs) == 3 else inputs * 3
            return attention.multi_head_attention(query, key, value, weights, **options)[0]

        y, back = jax.vjp(function, weights, inputs)
        return y, *back(c)

    y, grads, inner = both(weights, inputs)
    np.testing.assert_allclose(y, GOLDEN[name], atol=3e-6)
    for got, part in zip(inner, "xzu", strict=False):
        np.testing.assert_allclose(got, GOLDEN[f"{name}_{part}"], atol=1e-5)
    for part in ("query", "key", "value"):
        np.testing.assert_allclose(getattr(grads, part), GOLDEN[f"{name}_{part[0]}"], atol=1e-5)
    for part in ("output", "output_bias"):
        np.testing.assert_allclose(getattr(grads, part), GOLDEN[f"{name}_{part}"], atol=1e-5)
    biases = jnp.stack([getattr(grads, bias) for bias in BIASES])
    np.testing.assert_allclose(biases, GOLDEN[f"{name}_biases"], atol=1e-5)


def test_the_weights_of_each_head_are_those_of_pytorch():
    weights, (x,), _ = golden(1, (6, 6, 6))
    q, k = (
        jnp.einsum("ntd,dhe->nthe", x, kernel) + bias
        for kernel, bias in ((weights.query, weights.query_bias), (weights.key, weights.key_bias))
    )
    got = attention.attention_weights(q, k, causal=True)
    np.testing.assert_allclose(got, GOLDEN["self_weights"], atol=2e-6)


# Decoding


@pytest.fixture(scope="module")
def model():
    """(weights, a sequence, its full causal pass, one compiled step) with rotary positions."""
    weights, _, _ = golden(1, (6, 6, 6))
    weights = weights._replace(
        query=jnp.concatenate([weights.query, weights.value[..., :1]], -1),  # rotary: even size
        key=jnp.concatenate([weights.key, weights.query[..., :1]], -1),
        query_bias=None,
        key_bias=None,
    )
    x = jnp.asarray(np.random.RandomState(5).randn(2, 8, 6), jnp.float32)
    full, none = attend(x, x, x, weights, causal=True, rotary=100.0)
    assert none is None

    @jax.jit
    def step(x, cache, lengths=None):
        return attention.multi_head_attention(
            x, x, x, weights, lengths=lengths, rotary=100.0, cache=cache
        )

    return weights, x, full, step


@pytest.mark.smoke
@pytest.mark.parametrize("chunks", [[1] * 8, [3, 1, 4]])
def test_decoding_in_pieces_is_the_full_causal_pass(chunks, model):
    weights, x, full, step = model
    cache, at = attention.empty_cache(weights, 2, 8), 0
    for size in chunks:
        y, cache = step(x[:, at : at + size], cache)
        np.testing.assert_allclose(y, full[:, at : at + size], atol=3e-6)
        at += size
        assert cache.position.tolist() == [at, at]
    if chunks == [1] * 8:
        assert step._cache_size() == 1


def test_prompts_of_several_lengths_go_on_where_each_of_them_ended(model):
    weights, x, full, step = model
    lengths = jnp.array([5, 2])
    padded = jnp.where(jnp.arange(5)[None, :, None] < lengths[:, None, None], x[:, :5], 99.0)
    y, cache = step(padded, attention.empty_cache(weights, 2, 8), lengths)
    assert cache.position.tolist() == [5, 2]
    np.testing.assert_allclose(y[0], full[0, :5], atol=3e-6)
    np.testing.assert_allclose(y[1, :2], full[1, :2], atol=3e-6)
    assert jnp.isfinite(y).all()
    for i in range(3):
        new = jnp.stack([x[0, 5 + i], x[1, 2 + i]])[:, None]
        y, cache = step(new, cache)
        np.testing.assert_allclose(y[0, 0], full[0, 5 + i], atol=3e-6)
        np.testing.assert_allclose(y[1, 0], full[1, 2 + i], atol=3e-6)
    y, after = step(x[:, :1], cache, jnp.array([0, 1]))  # nothing new for the first
    assert after.position.tolist() == [8, 6]


def test_a_token_without_room_gives_nan_and_overwrites_nothing(model):
    weights, x, full, step = model
    y, cache = step(x[:, :6], attention.empty_cache(weights, 2, 7), jnp.array([6, 3]))
    y, cache = step(x[:, 6:], cache)  # two more: the first example has room for one
    np.testing.assert_allclose(y[0, 0], full[0, 6], atol=3e-6)
    assert jnp.isnan(y[0, 1]).all()
    assert jnp.isfinite(y[1]).all()
    assert cache.position.tolist() == [8, 5]
    y, later = step(x[:, :1], cache)
    assert jnp.isnan(y[0]).all()
    assert jnp.isfinite(y[1]).all()
    assert (later.key[0] == cache.key[0]).all()
    padding = attention.empty_cache(weights, 2, 3)
    y, _ = step(x[:, :6], padding, jnp.array([3, 1]))  # what does not fit is padding
    assert jnp.isfinite(y).all()


def test_a_mask_with_a_cache_is_over_its_length(model):
    weights, x, _, _ = model
    mask = jnp.asarray(np.random.RandomState(2).rand(8, 8) < 0.7)
    full, _ = attend(x, x, x, weights, causal=True, mask=mask)
    cache, parts = attention.empty_cache(weights, 2, 8), []
    for at in (0, 4):
        part = x[:, at : at + 4]
        y, cache = attend(part, part, part, weights, mask=mask[at : at + 4], cache=cache)
        parts.append(y)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), full, atol=3e-6)


def test_segments_and_dropout_reach_the_attention():
    weights, (x,), _ = golden(1, (6, 6, 6))
    ids = jnp.array([[0, 0, 1, 1], [0, 1, 1, 1]])
    y, _ = attend(x, x, x, weights, segments=(ids, ids), causal=True)
    alone, _ = attend(*[x[:1, 2:]] * 3, weights, causal=True)
    np.testing.assert_allclose(y[0, 2:], alone[0], atol=2e-6)
    drop = {"dropout": 0.5, "dropout_key": jax.random.key(3)}
    whole, _ = attend(x, x, x, weights, **drop)
    part, _ = attend(*[x[1:]] * 3, weights, **drop, examples=jnp.array([1]))
    np.testing.assert_allclose(part, whole[1:], atol=2e-6)
    none, _ = attend(x, x, x, weights)
    assert not np.allclose(whole, none, atol=1e-2)


# Errors

X = jnp.zeros((2, 4, 6))
W = jnp.zeros((6, HEADS, SIZE))
WEIGHTS = HeadWeights(W, W, W, jnp.zeros((HEADS, SIZE, 6)))
CACHE = Cache(jnp.zeros((2, 8, HEADS, SIZE)), jnp.zeros((2, 8, HEADS, SIZE)), jnp.zeros(2, int))


@pytest.mark.parametrize(
    ("args", "options", "error", "told"),
    [
        ((X[0], X, X, WEIGHTS), {}, ValueError, "query must have shape (n, t, 6)"),
        ((X, X[..., :5], X, WEIGHTS), {}, ValueError, "key must have shape (n, t, 6)"),
        ((X, X, X.astype(int), WEIGHTS), {}, TypeError, "value must be floating point"),
        ((X, X, X, WEIGHTS._replace(query=W[0])), {}, ValueError, "weights.query must have shape"),
        ((X, X, X, WEIGHTS._replace(key=W[..., :2])), {}, ValueError, "must agree in heads"),
        ((X, X, X, WEIGHTS._replace(output=W)), {}, ValueError, "must have shape (2, 3, o)"),
        ((X, X[:, :3], X[:, :3], WEIGHTS), {"cache": CACHE}, ValueError, "a cache is for self-"),
        (
            (X[:1], X[:1], X[:1], WEIGHTS),
            {"cache": CACHE},
            ValueError,
            "cache.key must have shape (1, length, 2, 3), got (2, 8, 2, 3)",
        ),
        (
            (X, X, X, WEIGHTS),
            {"cache": CACHE._replace(value=CACHE.value.astype(jnp.bfloat16))},
            TypeError,
            "cache.value is bfloat16, but the new one float32",
        ),
        (
            (X, X, X, WEIGHTS),
            {"cache": CACHE, "segments": (jnp.zeros((2, 4), int),) * 2},
            ValueError,
            "segments with a cache are not supported",
        ),
        (
            (X, X, X, WEIGHTS),
            {"cache": CACHE, "lengths": jnp.zeros((2, 1), int)},
            ValueError,
            "lengths must have shape (2,), got (2, 1)",
        ),
    ],
)
def test_errors_say_what_is_wanted(args, options, error, told):
    with pytest.raises(error) as caught:
        attention.multi_head_attention(*args, **options)
    assert str(caught.value).startswith("multi_head_attention: ")
    assert told in str(caught.value)


def test_an_empty_cache_has_room():
    cache = attention.empty_cache(WEIGHTS._replace(value=W[..., :2]), 3, 5)
    assert (cache.key.shape, cache.value.shape) == ((3, 5, HEADS, SIZE), (3, 5, HEADS, 2))
    assert cache.position.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="n and length must be at least 1, got 3 and 0"):
        attention.empty_cache(WEIGHTS, 3, 0)
