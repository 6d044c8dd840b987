"""Dot-product attention and its weights: brute force, PyTorch, jax.nn, masks and errors."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l.ops import attention
from jaxd2l.ops.attention import dot_product, fused

attend = jax.jit(attention.dot_product_attention, static_argnames=("causal", "scale", "dropout"))
GOLDEN = np.load(Path(__file__).parent / "golden" / "attention.npz")
HEADS, SIZE = 2, 3


def draw(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), dtype)


def golden_inputs():
    draw = np.random.RandomState(0)
    q, k, v = (draw.randn(2, t, HEADS, SIZE) for t in (5, 7, 7))
    return (q, k, v), draw.randn(2, 5, HEADS, SIZE)


def brute_force(q, k, v, allowed, scale):
    """(n, q, heads, d), pair by pair in float64."""
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for n, i, h in np.ndindex(q.shape[:3]):
        seen = [j for j in range(k.shape[1]) if allowed[n, h, i, j]]
        if seen:
            scores = np.exp([scale * (q[n, i, h] @ k[n, j, h]) for j in seen])
            out[n, i, h] = sum(p * v[n, j, h] for p, j in zip(scores, seen, strict=True))
            out[n, i, h] /= scores.sum()
    return out


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "options"),
    [("all", {}), ("causal", {"causal": True}), ("lengths", {"lengths": jnp.array([7, 4])})],
)
def test_values_and_gradients_are_those_of_pytorch(name, options, strict_promotion):
    args, c = golden_inputs()
    args = tuple(jnp.asarray(x, jnp.float32) for x in args)

    @jax.jit
    def both(args):
        y, back = jax.vjp(lambda a: attention.dot_product_attention(*a, **options), args)
        return y, back(jnp.asarray(c, jnp.float32))[0]

    y, grads = both(args)
    np.testing.assert_allclose(y, GOLDEN[name], atol=1e-6)
    for got, part in zip(grads, "qkv", strict=True):
        np.testing.assert_allclose(got, GOLDEN[f"{name}_{part}"], atol=3e-6)


def test_every_condition_must_allow_a_pair():
    q, k, v = draw(2, 4, HEADS, 3), draw(2, 6, HEADS, 3, seed=1), draw(2, 6, HEADS, 5, seed=2)
    random = np.random.RandomState(4)
    mask = random.rand(2, HEADS, 4, 6) < 0.8
    lengths, offset = np.array([5, 6]), np.array([2, 1])
    ids = random.randint(0, 2, (2, 4)), random.randint(0, 2, (2, 6))
    i, j = np.arange(4)[:, None], np.arange(6)
    causal = j <= i + offset[:, None, None]
    valid = j < lengths[:, None, None]
    same = ids[0][:, :, None] == ids[1][:, None, :]
    allowed = (causal & valid & same)[:, None] & mask
    got = attention.dot_product_attention(
        q, k, v, causal=True, lengths=jnp.asarray(lengths), segments=ids, offset=offset,
        mask=jnp.asarray(mask), scale=0.3,
    )  # fmt: skip
    wide = (np.asarray(x, np.float64) for x in (q, k, v))
    np.testing.assert_allclose(got, brute_force(*wide, allowed, 0.3), atol=1e-6)
    assert not allowed.any(-1).all()  # some queries see nothing
    p = attention.attention_weights(
        q, k, causal=True, lengths=jnp.asarray(lengths), segments=ids, offset=offset,
        mask=jnp.asarray(mask), scale=0.3,
    )  # fmt: skip
    np.testing.assert_allclose(p.sum(-1), allowed.any(-1), atol=1e-6)
    assert not np.asarray(p)[~allowed].any()
    np.testing.assert_allclose(jnp.einsum("nhqk,nkhv->nqhv", p, v), got, atol=1e-6)


def test_it_is_the_attention_of_jax_nn():
    q, k, v = (draw(2, 9, HEADS, 8, seed=i) for i in range(3))
    lengths = jnp.array([9, 4])
    wanted = jax.nn.dot_product_attention(
        q, k, v, is_causal=True, key_value_seq_lengths=lengths.astype(jnp.int32)
    )
    got = attention.dot_product_attention(q, k, v, causal=True, lengths=lengths)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_without_heads_it_is_one_head():
    q, k, v = draw(2, 4, 3), draw(2, 6, 3, seed=1), draw(2, 6, 5, seed=2)
    mask = jnp.asarray(np.random.RandomState(4).rand(2, 4, 6) < 0.7)
    one = [x[:, :, None] for x in (q, k, v)]
    got = attention.dot_product_attention(q, k, v, mask=mask)
    wanted = attention.dot_product_attention(*one, mask=mask[:, None])
    assert (got == wanted[:, :, 0]).all()
    weights = attention.attention_weights(q, k, mask=mask[0])
    assert (weights == attention.attention_weights(*one[:2], mask=mask[0])[:, 0]).all()


@pytest.mark.parametrize("mask", [(4, 6), (1, 1, 4, 6), (2, 1, 1, 6), (1, HEADS, 4, 1)])
def test_a_mask_broadcasts(mask):
    q, k, v = draw(2, 4, HEADS, 3), draw(2, 6, HEADS, 3, seed=1), draw(2, 6, HEADS, 5, seed=2)
    mask = jnp.asarray(np.random.RandomState(4).rand(*mask) < 0.7)
    full = jnp.broadcast_to(mask, (2, HEADS, 4, 6))
    got = attend(q, k, v, mask=mask)
    np.testing.assert_allclose(got, attend(q, k, v, mask=full), atol=1e-6)


def test_a_query_that_sees_nothing_gets_zeros_and_finite_gradients():
    q, k, v = (draw(2, 4, 3, seed=i) for i in range(3))

    @jax.jit
    def both(args, options):
        y, back = jax.vjp(lambda a: attention.dot_product_attention(*a, **options), args)
        return y, back(jnp.cos(y))[0]

    mask = jnp.arange(4)[:, None] > jnp.zeros(4, int)[None]  # query 0 sees nothing
    lengths = jnp.array([0, 4])
    for options, empty in (({"lengths": lengths}, (0, ...)), ({"mask": mask}, (slice(None), 0))):
        y, grads = both((q, k, v), options)
        assert not y[empty].any()
        assert all(jnp.isfinite(g).all() for g in grads)
        assert not grads[0][empty].any()


def test_weights_sum_to_one_equal_scores_give_the_mean_and_scores_keep_their_variance():
    """C158 and C160."""
    q, k, v = draw(2, 4, 64), draw(2, 500, 64, seed=1), draw(2, 500, 3, seed=2)
    np.testing.assert_allclose(attention.attention_weights(q, k).sum(-1), 1, atol=1e-5)
    same = attention.dot_product_attention(q, jnp.ones_like(k), v)
    np.testing.assert_allclose(same, np.broadcast_to(v.mean(1)[:, None], same.shape), atol=1e-6)
    wide = draw(1, 1000, 64, seed=3), draw(1, 1000, 64, seed=4)
    scores = jnp.log(attention.attention_weights(*wide))
    assert abs(float(scores.std(-1).mean()) - 1) < 0.05
    raw = jnp.log(attention.attention_weights(*wide, scale=1.0).astype(jnp.float32))
    assert 6 < float(raw.std(-1).mean()) < 10  # sqrt(64) = 8


def test_huge_scores_do_not_overflow():
    x = jnp.array([[[1e4, 0.0], [0.0, 1e4]]])
    np.testing.assert_allclose(attention.dot_product_attention(x, x, x), x)
    grad = jax.jit(jax.grad(lambda x: attention.dot_product_attention(x, x, x).sum()))(x)
    assert jnp.isfinite(grad).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_types_are_summed_in_float32(dtype, strict_promotion):
    k = jnp.zeros((1, 3000, 8), dtype)
    v = jnp.ones((1, 3000, 8), dtype)  # a running sum in bfloat16 stops at 256
    y = attention.dot_product_attention(k[:, :3], k, v)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.astype(jnp.float32), 1, atol=2e-3)
    assert attention.masked_softmax(k[0, :2]).dtype == dtype
    assert attention.attention_weights(k[:, :3], k[:, :3]).dtype == dtype


def test_a_masked_softmax_leaves_out_what_is_masked():
    scores = draw(2, 3, 4)
    mask = jnp.array([[True, False, True, True], [False] * 4, [True] * 4])[None]
    p = attention.masked_softmax(scores, mask)
    wanted = np.array(np.exp(scores) * mask)
    wanted[:, 1] = 0
    wanted[:, [0, 2]] /= wanted[:, [0, 2]].sum(-1, keepdims=True)
    np.testing.assert_allclose(p, wanted, rtol=1e-5)
    grad = jax.grad(lambda s: attention.masked_softmax(s, mask)[..., 0].sum())(scores)
    assert jnp.isfinite(grad).all()
    assert not grad[:, 1].any()


# Dropout


def test_dropped_weights_are_zero_and_the_others_are_scaled():
    n, t = 3, 40
    eye = jnp.broadcast_to(jnp.eye(t)[None, :, None], (n, t, HEADS, t))
    x = jnp.zeros((n, t, HEADS, 4))
    drop = {"dropout": 0.25, "dropout_key": jax.random.key(1)}
    p = attend(x, x, eye, **drop)  # values 1: the weights themselves
    kept = 1 / (t * 0.75)
    np.testing.assert_allclose(np.unique(np.asarray(p).round(6)), [0, kept], atol=1e-6)
    share = float((p == 0).mean())
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / p.size)
    assert not (p[:, :, 0] == p[:, :, 1]).all()
    part = attend(x[2:, :7], x[2:], eye[2:], **drop, examples=jnp.array([2]))
    assert (part == p[2:, :7]).all()
    nothing = {"dropout": 0.0, "dropout_key": None}
    np.testing.assert_allclose(attend(x, x, eye, **nothing), 1 / t, atol=1e-6)
    everything = attend(x, x, eye, **{**drop, "dropout": 1.0})
    assert everything.shape == p.shape
    assert not everything.any()


# cuDNN


@pytest.fixture
def on_gpu(monkeypatch):
    """The decision of a machine with a kernel of cuDNN, whose place XLA's attention takes."""
    calls = []

    def stand_in(q, k, v, **options):
        calls.append({**options, "shape": q.shape})
        assert options.pop("implementation") == "cudnn"
        return original(q, k, v, **options)

    original = jax.nn.dot_product_attention
    monkeypatch.setattr(fused, "_has_kernel", lambda: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    return calls


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, {"is_causal": False, "key_value_seq_lengths": None}),
        ({"causal": True, "scale": 0.5}, {"is_causal": True, "scale": 0.5}),
        ({"lengths": jnp.array([20, 0]), "causal": True}, {"is_causal": True}),
    ],
)
def test_the_fused_kernel_gives_the_value_and_tiles_the_derivatives(options, told, on_gpu):
    args = tuple(draw(2, 20, HEADS, 8, seed=i, dtype=jnp.bfloat16) for i in range(3))
    wide = tuple(x.astype(jnp.float32) for x in args)

    def loss(args):
        return jnp.sum(jnp.square(attention.dot_product_attention(*args, **options)))

    @jax.jit
    def derivatives(args):
        y = attention.dot_product_attention(*args, **options)
        if "lengths" not in options:
            return [y]
        return y, *jax.jvp(jax.grad(loss), (args,), (args,))

    got = derivatives(args)
    assert on_gpu[0] | told == on_gpu[0]
    assert on_gpu[0]["shape"] == (2, 20, HEADS, 8)
    count = len(on_gpu)
    wanted = derivatives(wide)  # float32 does not fit
    assert len(on_gpu) == count
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == jnp.bfloat16
        assert float(jnp.abs(a.astype(jnp.float32) - b).max()) < 0.03 * float(jnp.abs(b).max())
    if "lengths" in options:
        assert not got[0][1].any()


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        ((2, 20, HEADS, 8), jnp.float32, {}),
        ((2, 20, HEADS, 12), jnp.bfloat16, {}),
        ((2, 20, HEADS, 136), jnp.bfloat16, {}),
        ((2, 20, HEADS, 8), jnp.float16, {"mask": jnp.ones((20, 20), bool)}),
        ((2, 20, HEADS, 8), jnp.float16, {"segments": (jnp.zeros((2, 20), int),) * 2}),
        ((2, 20, HEADS, 8), jnp.float16, {"causal": True, "offset": 1}),
        ((2, 20, HEADS, 8), jnp.float16, {"causal": True, "offset": jnp.array([0, 0])}),
        ((2, 20, HEADS, 8), jnp.float16, {"dropout": 0.5, "dropout_key": jax.random.key(0)}),
    ],
)
def test_the_fused_kernel_is_left_alone_where_it_does_not_fit(shape, dtype, options, on_gpu):
    x = jnp.ones(shape, dtype)
    jax.eval_shape(lambda x: attention.dot_product_attention(x, x, x, **options), x)
    assert on_gpu == []


def test_there_is_no_fused_kernel_on_a_cpu_or_an_old_gpu(monkeypatch):
    class Device:
        platform_version = "cuda 12090"
        compute_capability = "7.5"

        @property
        def client(self):
            return self

    assert not fused._has_kernel()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    device = Device()
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert not fused._has_kernel()
    device.compute_capability = "8.0"
    assert fused._has_kernel()
    device.platform_version = "rocm 6"
    assert not fused._has_kernel()


# Errors

X = jnp.zeros((2, 4, 3))


@pytest.mark.parametrize(
    ("args", "options", "error", "told"),
    [
        ((X[0], X, X), {}, ValueError, "query must have shape (n, q, [heads,] d), got (4, 3)"),
        ((X, X[:, :, None], X[:, :, None]), {}, ValueError, "key must have shape (n, k"),
        ((X, X[..., :2], X), {}, ValueError, "query and key must agree but in their lengths"),
        ((X, X, X[:, :2]), {}, ValueError, "value must have the shape of key but for the last"),
        ((X, X.astype(jnp.bfloat16), X.astype(jnp.bfloat16)), {}, TypeError, "convert one"),
        ((X, X, X.astype(jnp.bfloat16)), {}, TypeError, "value is bfloat16 but key float32"),
        ((X.astype(int),) * 3, {}, TypeError, "query must be floating point, got int32"),
        ((X, X, X), {"lengths": jnp.zeros(3, int)}, ValueError, "must have shape (2,), got (3,)"),
        ((X, X, X), {"lengths": 3}, ValueError, "lengths must have shape (2,), got ()"),
        ((X, X, X), {"lengths": jnp.zeros(2)}, TypeError, "lengths must be integers"),
        ((X, X, X), {"offset": 3}, ValueError, "but causal is False"),
        (
            (X, X, X),
            {"causal": True, "offset": jnp.zeros(3, int)},
            ValueError,
            "offset must be one integer or have shape (2,), got (3,)",
        ),
        ((X, X, X), {"mask": jnp.ones((4, 4))}, TypeError, "mask must be boolean"),
        ((X, X, X), {"mask": jnp.ones((4,), bool)}, ValueError, "mask must have shape (4, 4)"),
        ((X, X, X), {"mask": jnp.ones((3, 4, 4), bool)}, ValueError, "to (2, 4, 4)"),
        ((X, X, X), {"segments": jnp.zeros((2, 4), int)}, TypeError, "segments must be a pair"),
        (
            (X, X, X),
            {"segments": (jnp.zeros((2, 4), int), jnp.zeros((2, 5), int))},
            ValueError,
            "segments of the keys must have shape (2, 4), got (2, 5)",
        ),
        ((X, X, X), {"dropout": 0.1}, ValueError, "dropout_key is None; pass a PRNG key"),
        ((X, X, X), {"dropout": 2.0}, ValueError, "must be in [0, 1], got 2.0"),
        ((X, X, X), {"scale": jnp.ones(())}, TypeError, "scale must be a Python number"),
    ],
)
def test_errors_say_what_is_wanted(args, options, error, told):
    with pytest.raises(error) as caught:
        attention.dot_product_attention(*args, **options)
    assert str(caught.value).startswith("dot_product_attention: ")
    assert told in str(caught.value)


def test_the_plain_formula_is_for_short_sequences(monkeypatch):
    calls = []
    monkeypatch.setattr(dot_product, "tiled_attention", lambda q, *_: calls.append(q.shape[1]) or q)
    for t in (dot_product.PLAIN, dot_product.PLAIN + 1):
        x = jnp.zeros((1, t, 4))
        for options in ({}, {"mask": jnp.ones((t, t), bool)}):
            jax.eval_shape(lambda x, o: attention.dot_product_attention(x, x, x, **o), x, options)
    assert calls == [dot_product.PLAIN + 1]
