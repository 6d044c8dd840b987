"""Attention in tiles is the plain formula, in every transform, with memory linear in the length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxd2l.ops import attention
from jaxd2l.ops.attention import dot_product, tiles

N, Q, K, HEADS, D, V = 2, 21, 29, 2, 4, 3


def draw(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), dtype)


def inputs(dtype=jnp.float32, q=Q, k=K):
    return (
        draw(N, q, HEADS, D, dtype=dtype),
        draw(N, k, HEADS, D, seed=1, dtype=dtype),
        draw(N, k, HEADS, V, seed=2, dtype=dtype),
    )


def segment_ids(t):
    return jnp.sort(jnp.asarray(np.random.RandomState(3).randint(0, 3, (N, t))), axis=1)


PATTERNS = {
    "all": {},
    "causal": {"causal": True},
    "causal, offset": {"causal": True, "offset": 5},
    "causal, offsets": {"causal": True, "offset": jnp.array([8, -3])},
    "lengths": {"lengths": jnp.array([K, 9])},
    "nothing to see": {"lengths": jnp.array([0, 12])},
    "segments": {"segments": (segment_ids(Q), segment_ids(K))},
    "mixed segments": {"segments": (segment_ids(Q)[:, ::-1], jnp.arange(2 * K).reshape(N, K) % 3)},
    "all together": {
        "causal": True,
        "lengths": jnp.array([K, 0]),
        "segments": (segment_ids(Q), segment_ids(K)),
        "offset": jnp.array([2, 8]),
    },
    "dropout": {"causal": True, "dropout": 0.4, "dropout_key": jax.random.key(7)},
}


@pytest.fixture
def tiled(monkeypatch):
    """Attention in tiles of 8, whatever the size."""

    def attend(*args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(dot_product, "PLAIN", 0)
            patch.setattr(tiles, "tile_size", lambda length: 8)
            return attention.dot_product_attention(*args, **options)

    return attend


def plain(*args, **options):
    assert K <= dot_product.PLAIN
    return attention.dot_product_attention(*args, **options)


def with_derivatives(function, **options):
    """One compiled function that gives the output, a tangent and the gradients."""
    attend = functools.partial(function, **options)

    @jax.jit
    def all_of(args, tangents, weight):
        y, dy = jax.jvp(attend, args, tangents)
        return y, dy, jax.vjp(attend, *args)[1](weight)

    return all_of


def assert_close(got, wanted, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.isfinite(b).all()
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.smoke
@pytest.mark.parametrize("name", PATTERNS)
def test_tiles_are_the_plain_formula_with_tangents_and_gradients(name, tiled, strict_promotion):
    options = PATTERNS[name]
    args = inputs()
    tangents = tuple(draw(*x.shape, seed=i) for i, x in enumerate(args, 10))
    weight = draw(N, Q, HEADS, V, seed=5)
    got = with_derivatives(tiled, **options)(args, tangents, weight)
    with jax.enable_x64(True):
        double = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x), jnp.float64), (args, tangents, weight)
        )
        wanted = with_derivatives(plain, **options)(*double)
    assert_close(got, wanted, 1e-5)
    if "nothing" in name:
        assert not got[0][0].any()
        assert not got[2][0][0].any()


def loss(attend, weight, **options):
    return lambda *args: jnp.sum(jnp.sin(attend(*args, **options)) * weight)


@pytest.mark.parametrize("name", ["all together", "dropout"])
def test_second_derivatives_are_those_of_the_plain_formula(name, tiled, x64):
    args = inputs(jnp.float64)
    tangents = tuple(draw(*x.shape, seed=i, dtype=jnp.float64) for i, x in enumerate(args, 10))
    weight = draw(N, Q, HEADS, V, seed=5, dtype=jnp.float64)

    def second(attend):
        gradient = jax.grad(loss(attend, weight, **PATTERNS[name]), (0, 1, 2))
        forward_over_reverse = lambda args: jax.jvp(gradient, args, tangents)[1]  # noqa: E731
        reverse_over_reverse = jax.grad(
            lambda args: sum(jnp.vdot(g, t) for g, t in zip(gradient(*args), tangents, strict=True))
        )
        return jax.jit(lambda args: (forward_over_reverse(args), reverse_over_reverse(args)))

    got, wanted = second(tiled)(args), second(plain)(args)
    assert_close(got, wanted, 1e-12)
    assert_close(got[0], got[1], 1e-12)


def test_derivatives_of_orders_one_and_two_are_those_of_differences(tiled, x64):
    args = inputs(jnp.float64, 9, 10)
    options = {"causal": True, "lengths": jnp.array([10, 7])}
    check_grads(jax.jit(functools.partial(tiled, **options)), args, 2, atol=1e-4, rtol=1e-4)


def test_vmap_over_examples_is_the_batch(tiled):
    args = inputs()
    lengths = jnp.array([K, 9])

    def one(q, k, v, length):
        return tiled(q[None], k[None], v[None], causal=True, lengths=length[None])[0]

    weight = draw(N, Q, HEADS, V, seed=5)
    gradient = jax.grad(lambda *a: jnp.sum(one(*a[:4]) * a[4]), (0, 1, 2))
    got = jax.jit(jax.vmap(lambda *a: (one(*a[:4]), gradient(*a))))(*args, lengths, weight)
    whole = functools.partial(tiled, causal=True, lengths=lengths)
    assert_close(got[0], whole(*args), 1e-6)
    assert_close(got[1], jax.jit(lambda a: jax.vjp(whole, *a)[1](weight))(args), 1e-6)
