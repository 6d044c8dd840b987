"""Dense, embedding, cosine and weight-normalised layers: parity, gradients, errors, claims."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxd2l.ops.activations import relu
from jaxd2l.ops.linear import check_tokens, cosine_dense, dense, embedding, weight_norm

GOLDEN = Path(__file__).parent / "golden" / "linear.npz"


def golden():
    return np.load(GOLDEN, allow_pickle=False)


def close(got, want, rtol=1e-12):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-14)


# ---- PyTorch -----------------------------------------------------------------------------------


def test_dense_equals_pytorch(x64):
    draw, want = np.random.RandomState(0), golden()
    x, w, b = map(jnp.asarray, (draw.randn(2, 3, 5), draw.randn(5, 4), draw.randn(4)))
    c = jnp.asarray(draw.randn(2, 3, 4))
    y, pull = jax.vjp(jax.jit(dense), x, w, b)
    close(y, want["dense"])
    for got, name in zip(pull(c), ("x", "kernel", "bias"), strict=True):
        close(got, want[f"dense_{name}"])


def test_embedding_equals_pytorch_and_a_one_hot_product(x64):
    draw, want = np.random.RandomState(1), golden()
    tokens, table = jnp.asarray(draw.randint(0, 6, (2, 4))), jnp.asarray(draw.randn(6, 3))
    c = jnp.asarray(draw.randn(2, 4, 3))
    y, pull = jax.vjp(jax.jit(lambda table: embedding(tokens, table)), table)
    close(y, want["embedding"])
    close(pull(c)[0], want["embedding_table"])  # a token that occurs twice gets the sum
    close(y, jax.nn.one_hot(tokens, 6, dtype=table.dtype) @ table)


def test_cosine_dense_equals_pytorch(x64):
    draw, want = np.random.RandomState(2), golden()
    x, w, c = map(jnp.asarray, (draw.randn(3, 5), draw.randn(5, 4), draw.randn(3, 4)))
    y, pull = jax.vjp(jax.jit(cosine_dense), x, w)
    close(y, want["cosine"])
    for got, name in zip(pull(c), ("x", "kernel"), strict=True):
        close(got, want[f"cosine_{name}"], rtol=1e-11)


def test_weight_norm_equals_pytorch(x64):
    draw, want = np.random.RandomState(3), golden()
    v, g, c = map(jnp.asarray, (draw.randn(3, 2, 2, 4), draw.randn(4), draw.randn(3, 2, 2, 4)))
    y, pull = jax.vjp(jax.jit(weight_norm), v, g)
    close(y, want["weight_norm"])
    for got, name in zip(pull(c), ("v", "g"), strict=True):
        close(got, want[f"weight_norm_{name}"], rtol=1e-11)


# ---- Transforms --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (dense, [(2, 3), (3, 4), (4,)]),
        (cosine_dense, [(2, 3), (3, 4)]),
        (weight_norm, [(2, 3, 4), (4,)]),
        (lambda table: embedding(jnp.array([[1, 1], [0, 2]]), table), [(3, 2)]),
    ],
    ids=["dense", "cosine_dense", "weight_norm", "embedding"],
)
def test_derivatives_jit_dtype_and_strict_promotion(f, shapes):
    draw = np.random.RandomState(4)
    arrays = [draw.randn(*shape) for shape in shapes]
    f = jax.jit(f)
    with jax.enable_x64(True):
        check_grads(f, [jnp.asarray(a) for a in arrays], order=2, modes=("fwd", "rev"))
        want = f(*map(jnp.asarray, arrays))
        assert want.dtype == jnp.float64
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for dtype, tol in ((jnp.float32, 1e-5), (jnp.bfloat16, 0.05)):
            y = f(*(jnp.asarray(a, dtype) for a in arrays))
            assert y.dtype == dtype
            np.testing.assert_allclose(np.float32(y), want, atol=tol, rtol=tol)


def test_vmap_equals_the_batch():
    draw = np.random.RandomState(5)
    x, w, b = (jnp.asarray(draw.randn(*s), jnp.float32) for s in ((3, 5), (5, 4), (4,)))
    mapped = jax.vmap(dense, (0, None, None))(x, w, b)
    np.testing.assert_allclose(mapped, dense(x, w, b), rtol=1e-5, atol=1e-6)
    mapped = jax.vmap(cosine_dense, (0, None))(x, w)
    np.testing.assert_allclose(mapped, cosine_dense(x, w), rtol=1e-5, atol=1e-6)
    tokens = jnp.array([[0, 4], [2, 2]])
    mapped = jax.vmap(embedding, (0, None))(tokens, w)
    np.testing.assert_array_equal(mapped, embedding(tokens, w))
    units = jax.vmap(weight_norm)(jnp.stack([w, 2 * w]), jnp.stack([b, b]))
    np.testing.assert_allclose(units[0], weight_norm(w, b), rtol=1e-5)
    np.testing.assert_allclose(units[1], weight_norm(w, b), rtol=1e-5)  # the size of v is free


# ---- Properties --------------------------------------------------------------------------------


def test_dense_takes_a_single_vector_and_no_bias():
    w = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(dense(jnp.array([1.0, 2.0]), w), [6, 9, 12])


def test_cosines_ignore_magnitude_and_stay_within_1():
    draw = np.random.RandomState(6)
    x, w = jnp.asarray(draw.randn(50, 3), jnp.float32), jnp.asarray(draw.randn(3, 8), jnp.float32)
    y = cosine_dense(x, w)
    assert (jnp.abs(y) <= 1 + 1e-6).all()
    want = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (w / np.linalg.norm(w, axis=0))
    np.testing.assert_allclose(y, want, atol=1e-6)
    np.testing.assert_allclose(cosine_dense(1e3 * x, 1e-3 * w), y, atol=1e-5)
    np.testing.assert_allclose(cosine_dense(1e25 * x, 1e25 * w), y, atol=1e-5)  # squares overflow
    np.testing.assert_allclose(cosine_dense(x, w, eps=1e3), (x @ w) / 1e6, atol=1e-9)


def test_zero_vectors_have_value_0_and_gradient_0():
    x, w = jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([[0.0, 3.0], [0.0, 4.0]])
    np.testing.assert_allclose(cosine_dense(x, w), [[0, 0], [0, 1]], atol=1e-6)
    gx, gw = jax.jit(jax.grad(lambda x, w: cosine_dense(x, w).sum(), (0, 1)))(x, w)
    np.testing.assert_allclose(gx, 0, atol=1e-6)
    np.testing.assert_array_equal(gw[:, 0], 0)
    assert jnp.isfinite(gw).all()
    gv = jax.jit(jax.grad(lambda v: weight_norm(v, jnp.ones(2)).sum()))(w)
    assert jnp.isfinite(gv).all()
    np.testing.assert_array_equal(gv[:, 0], 0)
    np.testing.assert_array_equal(weight_norm(w, jnp.ones(2))[:, 0], 0)


def test_a_gradient_near_zero_is_bounded_by_eps():
    x, w = jnp.array([1e-12, 1e-12]), jnp.eye(2)
    g = jax.jit(jax.grad(lambda x: cosine_dense(x, w, eps=1e-3).sum()))(x)
    assert (jnp.abs(g) <= 1e3 * (1 + 1e-6)).all()


def test_weight_norm_sets_the_length_of_each_unit():
    v = jnp.asarray(np.random.RandomState(7).randn(3, 3, 2, 5), jnp.float32)
    g = jnp.array([1.0, 2.0, 0.5, -1.0, 0.0])
    w = np.asarray(weight_norm(v, g))
    np.testing.assert_allclose(np.sqrt((w**2).sum((0, 1, 2))), np.abs(g), rtol=1e-5)
    gv = jax.jit(jax.grad(lambda v: (weight_norm(v, g) ** 3).sum()))(v)
    np.testing.assert_allclose((gv * v).sum((0, 1, 2)), 0, atol=1e-5)  # orthogonal to v


def test_a_token_out_of_range_gives_nan_and_no_gradient():
    """Plain indexing clamps it to the last row, or counts from the end, in silence."""
    table = jnp.arange(6.0).reshape(3, 2)
    bad = jnp.array([3, -1, 1])
    np.testing.assert_array_equal(table[bad][:2], [[4, 5], [4, 5]])  # the trap
    y, pull = jax.vjp(lambda t: jax.jit(embedding)(bad, t), table)
    np.testing.assert_array_equal(y, [[np.nan] * 2, [np.nan] * 2, [2, 3]])
    np.testing.assert_array_equal(pull(jnp.ones((3, 2)))[0], [[0, 0], [1, 1], [0, 0]])
    for dtype in (jnp.uint8, jnp.int8, jnp.int16):
        np.testing.assert_array_equal(embedding(jnp.array([2], dtype), table), [[4, 5]])


@given(st.lists(st.integers(-3, 12), max_size=12), st.integers(1, 10))
def test_check_tokens_against_a_loop(tokens, size):
    first = next((i for i, t in enumerate(tokens) if not 0 <= t < size), None)
    if first is None:
        check_tokens(tokens, size)
    else:
        message = (
            rf"^check_tokens: token {tokens[first]} at index \({first},\) is outside \[0, {size}\)"
        )
        with pytest.raises(ValueError, match=message):
            check_tokens(tokens, size)


def test_check_tokens_takes_device_arrays_and_refuses_floats():
    check_tokens(jnp.array([[0, 1]]), 2)
    check_tokens([], 2)
    with pytest.raises(TypeError, match="check_tokens: tokens must be integers, got float64"):
        check_tokens([0.5], 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: dense(jnp.ones((2, 3)), jnp.ones((4, 5))),
            r"dense: x must have shape \(\.\.\., 4\) for a kernel of shape \(4, 5\), got \(2, 3\)",
        ),
        (
            lambda: dense(jnp.ones((2, 3)), jnp.ones(3)),
            r"dense: kernel must have shape \(in, out\), got \(3,\)",
        ),
        (
            lambda: dense(jnp.ones((2, 3)), jnp.ones((3, 5)), jnp.ones(1)),
            r"dense: bias must have shape \(5,\) for a kernel of shape \(3, 5\), got \(1,\)",
        ),
        (lambda: dense(jnp.float32(1), jnp.ones((3, 5))), r"dense: x must .* got \(\)"),
        (lambda: cosine_dense(jnp.ones(2), jnp.ones((3, 5))), r"cosine_dense: x must have shape"),
        (
            lambda: weight_norm(jnp.ones((2, 3)), jnp.ones(2)),
            r"weight_norm: g must have shape \(3,\) for v of shape \(2, 3\), got \(2,\)",
        ),
        (lambda: weight_norm(jnp.ones(3), jnp.ones(3)), r"weight_norm: v must .* got \(3,\)"),
        (
            lambda: embedding(jnp.array([1]), jnp.ones(3)),
            r"embedding: table must have shape \(size, d\), got \(3,\)",
        ),
    ],
)
def test_errors_say_what_was_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_float_tokens_are_refused():
    with pytest.raises(TypeError, match="embedding: tokens must be integers, got float32"):
        embedding(jnp.ones(2), jnp.ones((3, 2)))


# ---- Claims of the notes -----------------------------------------------------------------------


def test_100_linear_layers_are_one_and_relu_breaks_it(x64):
    draw = np.random.RandomState(8)
    kernels = jnp.asarray(draw.randn(100, 4, 4) / 2)
    biases, x = jnp.asarray(draw.randn(100, 4)), jnp.asarray(draw.randn(6, 4))

    def stack(x, activation, depth=100):
        step = lambda h, layer: (activation(dense(h, *layer)), None)  # noqa: E731
        return jax.lax.scan(step, x, (kernels[:depth], biases[:depth]))[0]

    bias = stack(jnp.zeros((1, 4)), lambda h: h)[0]
    kernel = stack(jnp.eye(4), lambda h: h) - bias
    np.testing.assert_allclose(stack(x, lambda h: h), dense(x, kernel, bias), rtol=1e-9)

    bias = stack(jnp.zeros((1, 4)), relu, depth=3)[0]
    kernel = stack(jnp.eye(4), relu, depth=3) - bias
    assert float(jnp.abs(stack(x, relu, depth=3) - dense(x, kernel, bias)).max()) > 0.1


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5), st.integers(1, 6))
def test_composed_affine_maps(a, b, x, n):
    """n times f(x) = a x + b is a^n x + b (a^n - 1) / (a - 1); 2x + 3 three times is 8x + 21."""
    kernel, bias = jnp.full((1, 1), float(a)), jnp.full(1, float(b))
    y = jnp.full((1, 1), float(x))
    for _ in range(n):
        y = dense(y, kernel, bias)
    geometric = n if a == 1 else (a**n - 1) / (a - 1)
    assert float(y[0, 0]) == a**n * x + b * geometric
    assert (2 * (2 * (2 * x + 3) + 3) + 3) == 8 * x + 21


def test_the_gradient_of_a_shared_weight_is_the_sum():
    """The notes say the second use overwrites the first: false."""
    draw = np.random.RandomState(9)
    x, w = jnp.asarray(draw.randn(3, 4), jnp.float32), jnp.asarray(draw.randn(4, 4), jnp.float32)

    def two_layers(first, second):
        return jnp.sum(jnp.tanh(dense(jnp.tanh(dense(x, first)), second)) ** 2)

    g1, g2 = jax.grad(two_layers, (0, 1))(w, w)
    shared = jax.grad(lambda w: two_layers(w, w))(w)
    np.testing.assert_allclose(shared, g1 + g2, rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(shared - g2).max()) > 1e-2
