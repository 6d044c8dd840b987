"""Kernel regression: its formula, its limits, learning the bandwidth; the claims of pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxd2l.ops.attention import (
    additive_weights,
    attention_weights,
    dot_product_attention,
    nadaraya_watson,
    nadaraya_watson_weights,
)

pool = jax.jit(nadaraya_watson)


def by_hand(query, key, value, scale, seen=None):
    """Plain numbers, one query after the other."""
    y = []
    for i, q in enumerate(query):
        weights = np.exp(-(((q - key) * scale) ** 2) / 2)
        if seen is not None:
            weights = weights * seen[i]
        y.append(weights @ value / weights.sum() if weights.any() else 0.0)
    return np.array(y)


def numbers(seed=0, q=7, k=5):
    draw = np.random.RandomState(seed)
    return draw.uniform(0, 5, q), draw.uniform(0, 5, k), draw.randn(k)


def float32(*given):
    return [jnp.asarray(a, jnp.float32) for a in given]


@pytest.mark.smoke
@pytest.mark.parametrize("scale", [1.0, 0.3, 4.0])
def test_it_is_the_formula_of_the_book(scale, x64, strict_promotion):
    query, key, value = numbers()
    y = pool(*map(jnp.asarray, (query, key, value)), jnp.float64(scale))
    np.testing.assert_allclose(y, by_hand(query, key, value, scale), rtol=1e-12)
    weights = nadaraya_watson_weights(jnp.asarray(query), jnp.asarray(key), scale)
    assert weights.shape == (7, 5)
    np.testing.assert_allclose(weights @ value, y, rtol=1e-12)


def test_one_call_is_both_forms_of_the_notes(x64):
    """F46: fixed, softmax(-(q-k)^2 / 2) v; with a weight to learn, softmax(-((q-k) w)^2 / 2) v."""
    query, key, value = numbers(1)
    scores = -((query[:, None] - key) ** 2) / 2
    fixed = np.asarray(jax.nn.softmax(scores) @ value)
    np.testing.assert_allclose(pool(query, key, value), fixed, rtol=1e-12)
    w = 1.7
    learned = np.asarray(jax.nn.softmax(-(((query[:, None] - key) * w) ** 2) / 2) @ value)
    np.testing.assert_allclose(pool(query, key, value, w), learned, rtol=1e-12)
    np.testing.assert_allclose(pool(query, key, value, -w), learned, rtol=1e-12)


def test_vectors_are_compared_by_their_distance(x64):
    draw = np.random.RandomState(2)
    query, key, value = draw.randn(2, 3, 4), draw.randn(2, 5, 4), draw.randn(2, 5, 6)
    distance = np.linalg.norm(query[:, :, None] - key[:, None], axis=-1)
    weights = np.exp(-((0.8 * distance) ** 2) / 2)
    want = weights / weights.sum(-1, keepdims=True) @ value
    y = pool(*map(jnp.asarray, (query, key, value)), 0.8)
    np.testing.assert_allclose(y, want, rtol=1e-12)
    np.testing.assert_allclose(pool(query[0], key[0], value[0], 0.8), want[0], rtol=1e-12)
    mapped = jax.vmap(lambda q, k, v: nadaraya_watson(q, k, v, 0.8))(query, key, value)
    np.testing.assert_allclose(mapped, want, rtol=1e-12)


def test_dot_product_attention_is_the_same_where_all_keys_have_one_length(x64):
    """|q - k|^2 = |q|^2 - 2 q.k + |k|^2, of which only q.k distinguishes the keys."""
    draw = np.random.RandomState(3)
    query, key, value = draw.randn(1, 3, 4), draw.randn(1, 5, 4), draw.randn(1, 5, 2)
    key = key / np.linalg.norm(key, axis=-1, keepdims=True)
    given = [jnp.asarray(a) for a in (query, key, value)]
    want = dot_product_attention(*given, scale=1.5**2)
    np.testing.assert_allclose(pool(*given, 1.5), want, rtol=1e-12)


# The claims


@pytest.mark.smoke
def test_the_limits_of_the_bandwidth():
    """C159: the nearest neighbour as it goes to 0, the mean of all as it goes to infinity."""
    query, key, value = numbers(4, q=30, k=8)
    given = float32(query, key, value)
    nearest = value[np.abs(query[:, None] - key).argmin(axis=1)]
    np.testing.assert_allclose(pool(*given, 1 / 1e-3), nearest, atol=1e-6)
    np.testing.assert_allclose(pool(*given, 1e6), nearest, atol=1e-6)
    np.testing.assert_allclose(pool(*given, 1 / 1e4), np.full(30, value.mean()), atol=1e-6)
    np.testing.assert_allclose(pool(*given, 0.0), np.full(30, value.mean()), atol=1e-6)
    at_keys = pool(given[1], given[1], given[2], 1e3)
    np.testing.assert_allclose(at_keys, value, atol=1e-6)  # of training, each finds itself
    tie = pool(*float32([1.0], [0.0, 2.0, 9.0], [10.0, 30.0, 7.0]), 100.0)
    np.testing.assert_allclose(tie, [20], rtol=1e-6)  # equally near: their mean


def test_weights_sum_to_1_and_equal_scores_give_the_mean():
    """C158, for every kind of weights."""
    draw = np.random.RandomState(5)
    query, key, kernel = float32(draw.randn(2, 3, 4), draw.randn(2, 6, 4), draw.randn(4, 5))
    score = jnp.asarray(draw.randn(5), jnp.float32)
    equal = jnp.broadcast_to(key[:, :1], key.shape)
    for weigh in (
        attention_weights,
        nadaraya_watson_weights,
        lambda q, k: additive_weights(q, k, kernel, kernel, score),
    ):
        weights = weigh(query, key)
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum(-1), np.ones((2, 3)), rtol=1e-6)
        assert np.ptp(weights) > 0.05
        np.testing.assert_allclose(weigh(query, equal), np.full((2, 3, 6), 1 / 6), rtol=1e-6)
    value = jnp.asarray(draw.randn(2, 6, 2), jnp.float32)
    for pooled in (dot_product_attention(query, equal, value), pool(query, equal, value)):
        want = np.broadcast_to(np.mean(value, axis=1, keepdims=True), (2, 3, 2))
        np.testing.assert_allclose(pooled, want, atol=1e-6)


def test_the_root_of_d_keeps_the_variance_of_scores_at_1(x64):
    """C160 and F46: products of 64 normal numbers have variance 64; the notes measured 64.6, and
    1.01 after the division. Scores are read off the weights: log p_ij = s_ij + c_i."""
    draw = np.random.RandomState(0)
    query, key = (jnp.asarray(draw.randn(1, 400, 64)) for _ in range(2))

    def variance(scale):
        return float(jnp.log(attention_weights(query, key, scale=scale)).var(axis=-1).mean())

    plain, scaled = variance(1.0), variance(None)
    assert plain == pytest.approx(64, rel=0.03)
    assert scaled == pytest.approx(1, rel=0.03)
    assert plain / scaled == pytest.approx(64, rel=1e-9)
    # why it matters: unscaled, one key takes nearly all
    largest = [float(attention_weights(query, key, scale=s).max(-1).mean()) for s in (1.0, None)]
    assert largest[0] > 0.6
    assert largest[1] < 0.1


# Masks and learning


def test_leave_one_out_equals_arrays_that_lack_the_own_key():
    _, key, value = numbers(6)
    other = ~np.eye(5, dtype=bool)
    keys, values = (np.stack([a[row] for row in other]) for a in (key, value))  # (5, 4)
    want = [by_hand(key[i : i + 1], keys[i], values[i], 1.3)[0] for i in range(5)]
    x, y = float32(key, value)
    np.testing.assert_allclose(pool(x, x, y, 1.3, mask=jnp.asarray(other)), want, rtol=1e-5)
    own = float(jnp.abs(pool(x, x, y, 50.0) - y).max())
    left = float(jnp.abs(pool(x, x, y, 50.0, mask=jnp.asarray(other)) - y).min())
    assert own < 1e-4 < 0.05 < left


def test_a_query_without_keys_gives_zeros_and_finite_gradients():
    x, y = float32([0.0, 1.0, 4.0], [1.0, 2.0, 3.0])
    mask = jnp.array([[True, True, False], [False, False, False], [False, True, True]])
    np.testing.assert_allclose(
        pool(x, x, y, 2.0, mask=mask), by_hand(x, np.array(x), np.array(y), 2.0, mask), rtol=1e-5
    )
    gradients = jax.grad(lambda *a: pool(*a, mask=mask).sum(), (0, 1, 2, 3))(x, x, y, 2.0)
    assert gradients[0][1] == 0
    assert all(np.isfinite(g).all() for g in gradients)


def test_derivatives_also_by_the_scale(x64):
    query, key, value = map(jnp.asarray, numbers(7, q=3, k=4))
    mask = jnp.array([True, True, True, False])
    f = jax.jit(lambda *a: nadaraya_watson(*a, mask=mask))
    slope = jax.jit(jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1, 2, 3)))
    for scale in (0.0, 0.7):  # at 0 as well, where the bandwidth is infinite
        check_grads(f, (query, key, value, scale), order=1, modes=("fwd", "rev"))
        check_grads(slope, (query, key, value, scale), order=1, modes=("fwd",))
    assert abs(slope(query, key, value, 0.7)[3]) > 1e-3


@pytest.mark.parametrize(("dtype", "tol"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.02)])
def test_dtypes(dtype, tol, strict_promotion):
    given = [jnp.asarray(a, dtype) for a in numbers(8)]
    y = pool(*given, jnp.float32(1.5))
    assert y.dtype == dtype
    assert nadaraya_watson_weights(*given[:2]).dtype == dtype
    exact = [np.float64(a) for a in given]
    np.testing.assert_allclose(np.float32(y), by_hand(*exact, 1.5), atol=tol)


def test_gradient_descent_finds_the_bandwidth():
    """Leave-one-out error falls as the kernel gets narrower than the waves of the data."""
    x = jnp.linspace(0, 5, 40)
    y = jnp.sin(3 * x)
    mask = ~jnp.eye(40, dtype=bool)

    def loss(scale):
        return jnp.mean(jnp.square(nadaraya_watson(x, x, y, scale, mask=mask) - y))

    def step(scale, _):
        value, slope = jax.value_and_grad(loss)(scale)
        return scale - 20 * slope, value

    scale, losses = jax.jit(lambda s: jax.lax.scan(step, s, length=200))(jnp.float32(1.0))
    assert losses[0] > 0.3
    assert losses[-1] < 0.02
    assert 4 < scale < 20


# Errors


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ([(3,), (4, 1), (4,)], r"or \(q,\) and \(k,\), got \(3,\) and \(4, 1\)"),
        ([(3, 2), (4, 3), (4, 1)], r"\(..., q, d\) and \(..., k, d\).* got \(3, 2\) and \(4, 3\)"),
        ([(2, 3, 1), (1, 4, 1), (1, 4, 1)], r"got \(2, 3, 1\) and \(1, 4, 1\)"),
        ([(), (), ()], r"got \(\) and \(\)"),
        ([(3, 2), (4, 2), (4,)], r"value must .* got \(4,\) for key \(4, 2\)"),
        ([(3, 2), (4, 2), (5, 1)], r"value must .* got \(5, 1\) for key \(4, 2\)"),
        ([(3,), (4,), (4, 1)], r"value must .* got \(4, 1\) for key \(4,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, told):
    with pytest.raises(ValueError, match=f"nadaraya_watson: .*{told}"):
        nadaraya_watson(*map(jnp.ones, shapes))


@pytest.mark.parametrize(
    ("scale", "mask", "error", "told"),
    [
        (jnp.ones(2), None, ValueError, r"scale must be one number, got shape \(2,\)"),
        (1.0, jnp.ones((3, 4)), TypeError, "must be boolean"),
        (1.0, jnp.ones((3, 3), bool), ValueError, r"broadcast .*\(3, 4\), got \(3, 3\)"),
    ],
)
def test_wrong_options_are_refused(scale, mask, error, told):
    with pytest.raises(error, match=told):
        nadaraya_watson(jnp.ones(3), jnp.ones(4), jnp.ones(4), scale, mask=mask)


def test_integers_are_refused():
    for place, name in enumerate(("query", "key", "value")):
        given = [jnp.ones(4)] * 3
        given[place] = jnp.ones(4, int)
        with pytest.raises(TypeError, match=f"nadaraya_watson: {name} must be floating point"):
            nadaraya_watson(*given)
