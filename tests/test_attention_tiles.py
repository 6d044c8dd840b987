"""Attention in tiles is the plain formula, in every transform, with memory linear in the length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    "causal, offsets": {"causal": True, "offset": jnp.array([20, -3])},
    "mixed segments": {"segments": (segment_ids(Q)[:, ::-1], jnp.arange(2 * K).reshape(N, K) % 3)},
    "everything": {
        "causal": True,
        "lengths": jnp.array([K - 3, 0]),  # nothing to see for the second
        "segments": (segment_ids(Q), segment_ids(K)),
        "offset": jnp.array([2, 8]),
        "dropout": 0.3,
        "dropout_key": jax.random.key(7),
    },
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
def test_tiles_are_the_plain_formula_with_tangents_and_gradients(tiled, strict_promotion):
    options = PATTERNS["everything"]
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
    assert not got[0][1].any()
    assert not any(g[1].any() for g in got[2])


@pytest.mark.parametrize("name", list(PATTERNS)[:-1])
def test_every_pattern_is_that_of_the_plain_formula(name, tiled, strict_promotion):
    args = inputs()
    got, wanted = (
        jax.jit(functools.partial(attend, **PATTERNS[name]))(*args) for attend in (tiled, plain)
    )
    assert_close(got, wanted, 3e-6)


def forward_over_reverse(gradient, args, tangents):
    return jax.jvp(gradient, args, tangents)[1]


def reverse_over_reverse(gradient, args, tangents):
    along = lambda *a: sum(map(jnp.vdot, gradient(*a), tangents))  # noqa: E731
    return jax.grad(along, (0, 1, 2))(*args)


@pytest.mark.parametrize(
    "order", [forward_over_reverse, pytest.param(reverse_over_reverse, marks=pytest.mark.slow)]
)
def test_second_derivatives_are_those_of_the_plain_formula(order, tiled, x64):
    args = inputs(jnp.float64)
    tangents = tuple(draw(*x.shape, seed=i, dtype=jnp.float64) for i, x in enumerate(args, 10))
    weight = draw(N, Q, HEADS, V, seed=5, dtype=jnp.float64)

    def second(attend):
        def loss(*args):
            return jnp.sum(jnp.sin(attend(*args, **PATTERNS["everything"])) * weight)

        return jax.jit(functools.partial(order, jax.grad(loss, (0, 1, 2))))(args, tangents)

    assert_close(second(tiled), second(plain), 1e-12)


@pytest.mark.slow
def test_derivatives_of_orders_one_and_two_are_those_of_differences(tiled, x64):
    args = inputs(jnp.float64, 9, 10)
    options = {"causal": True, "lengths": jnp.array([10, 7])}
    check_grads(jax.jit(functools.partial(tiled, **options)), args, 2, atol=1e-4, rtol=1e-4)


def test_vmap_over_examples_is_the_batch(tiled):
    args = inputs()
    lengths = jnp.array([K, 9])

    def one(q, k, v, length):
        return tiled(q[None], k[None], v[None], causal=True, lengths=length[None])[0]

    def gradient(*a):
        return jax.vjp(lambda *b: one(*b, a[3]), *a[:3])[1](jnp.ones((Q, HEADS, V)))

    got = jax.jit(jax.vmap(lambda *a: (one(*a), gradient(*a))))(*args, lengths)
    whole = functools.partial(tiled, causal=True, lengths=lengths)

    @jax.jit
    def batch(*args):
        y, back = jax.vjp(whole, *args)
        return y, back(jnp.ones_like(y))

    assert_close(got, batch(*args), 2e-6)


def test_shards_of_the_batch_are_the_batch(tiled):
    q, k, v = draw(1, 9, 1, 2), draw(4, 10, 1, 2, seed=1), draw(4, 10, 1, 2, seed=2)
    lengths = jnp.array([10, 3, 0, 9])

    def both(q, k, v, lengths):
        y, back = jax.vjp(lambda k, v: tiled(q, k, v, lengths=lengths), k, v)
        return y, back(jnp.ones_like(y))

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (jax.P(), *[jax.P("data")] * 3)  # the queries are everybody's
    shards = jax.shard_map(both, mesh=mesh, in_specs=specs, out_specs=jax.P("data"))
    batch = jax.jit(both)(jnp.broadcast_to(q, (4, 9, 1, 2)), k, v, lengths)
    assert_close(jax.jit(shards)(q, k, v, lengths), batch, 2e-6)


def test_half_types_keep_their_dtype_and_are_summed_in_float32(tiled, strict_promotion):
    args = (*inputs(jnp.bfloat16), draw(N, Q, HEADS, V, seed=5, dtype=jnp.bfloat16))

    def both(attend, *args):
        y, back = jax.vjp(functools.partial(attend, causal=True), *args[:3])
        return y, back(args[3])

    got = jax.jit(functools.partial(both, tiled))(*args)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}
    single = (x.astype(jnp.float32) for x in args)
    assert_close(got, jax.jit(functools.partial(both, plain))(*single), 0.02)


def test_tiles_without_a_pair_are_passed_over(tiled):
    q, k, v = inputs()
    seen = jnp.arange(K)[None, :, None, None] < 16  # two tiles of 8
    broken = jnp.where(seen, v, jnp.nan)  # 0 * nan is nan, so these must not be touched
    attend = jax.jit(functools.partial(tiled, lengths=jnp.array([9, 16])))
    assert (attend(q, k, broken) == attend(q, k, v)).all()
    ids = jnp.broadcast_to((jnp.arange(K) >= 16).astype(int), (N, K))
    blocks = jax.jit(functools.partial(tiled, segments=(jnp.zeros((N, Q), int), ids)))
    assert (blocks(q, k, broken) == blocks(q, k, v)).all()


@given(st.integers(1, 5000))
def test_tiles_are_of_even_size_and_little_is_padding(length):
    size = tiles.tile_size(length)
    count = -(-length // size)
    assert size % 8 == 0
    assert size <= 256
    assert 0 <= count * size - length <= 8 * count
    assert size >= 64 or count == 1


# Memory


def kept(function, t, **options):
    """Bytes that the compiled function holds beside its arguments and results."""
    x = jax.ShapeDtypeStruct((1, t, 1, 64), jnp.float32)
    attend = functools.partial(attention.dot_product_attention, causal=True, **options)
    program = jax.jit(functools.partial(function, attend)).lower(x, x, x).compile()
    return program.memory_analysis().temp_size_in_bytes


def output(attend, *args):
    return attend(*args)


def gradient(attend, *args):
    return jax.grad(lambda args: jnp.sum(jnp.square(attend(*args))))(args)


def tangents(attend, *args):
    return jax.jvp(attend, args, args)


def hessian_vector(attend, *args):
    return jax.jvp(functools.partial(gradient, attend), args, args)


def twice_backward(attend, *args):
    return jax.grad(lambda args: sum(map(jnp.sum, jax.tree.map(jnp.sin, gradient(attend, *args)))))(
        args
    )


SLOW = [pytest.param(f, marks=pytest.mark.slow) for f in (tangents, hessian_vector, twice_backward)]


@pytest.mark.parametrize("function", [output, gradient, *SLOW])
def test_memory_is_linear_in_the_length(function):
    short, long = (kept(function, t) for t in (2048, 4096))
    assert long < 2.2 * short
    table = 4 * 4096**2
    assert long < table / 2


@pytest.mark.slow
@pytest.mark.parametrize("function", [output, gradient])
def test_memory_is_linear_with_dropout_lengths_and_segments(function):
    def options(t):
        ids = jnp.zeros((1, t), int)
        drop = {"dropout": 0.1, "dropout_key": jax.random.key(0)}
        return {"lengths": jnp.array([t]), "segments": (ids, ids), **drop}

    short, long = (kept(function, t, **options(t)) for t in (2048, 4096))
    assert long < 2.2 * short


def test_memory_with_a_mask_is_quadratic_as_the_docstring_says():
    def masked(attend, *args):
        return attend(*args, mask=jnp.ones((args[0].shape[1],) * 2, bool))

    assert kept(masked, 1024) > 3.5 * kept(masked, 512)
