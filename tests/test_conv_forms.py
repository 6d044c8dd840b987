"""Forms of convolution against each other, the printed edge images, the claims of the notes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import linalg, signal

from jaxd2l.ops.conv import conv, conv_transpose
from jaxd2l.ops.conv_forms import (
    corr2d,
    edge_kernel,
    learn_kernel,
    locally_connected,
    tiled_conv,
    true_convolution,
)
from jaxd2l.ops.conv_matrix import conv_as_matmul, im2col, toeplitz_matrix
from jaxd2l.testing import assert_gradients_match

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def draw(seed, *shapes, dtype=np.float32):
    rs = np.random.RandomState(seed)
    return [jnp.asarray(rs.randn(*shape).astype(dtype)) for shape in shapes]


# options, size, kernel
FORMS = [
    ({}, (6,), (3,)),
    ({"stride": 2, "padding": 1, "dilation": 2}, (8,), (3,)),
    ({"padding": "full"}, (4, 5), (3, 2)),
    ({"stride": (2, 3), "padding": ((0, 2), 1), "dilation": (1, 2)}, (6, 8), (2, 3)),
    ({"padding": "same"}, (3, 4, 3), (2, 3, 2)),
]


@pytest.mark.parametrize(("options", "size", "k"), FORMS)
def test_convolution_is_a_matrix_product(options, size, k, strict_promotion):
    """L5, C111, CA11: with im2col, and with the (doubly blocked) Toeplitz matrix."""
    x, kernel, bias = draw(0, (2, *size, 3), (*k, 3, 4), (4,))
    y = conv(x, kernel, **options)
    np.testing.assert_allclose(
        conv_as_matmul(x, kernel, bias, **options), conv(x, kernel, bias, **options), **CLOSE
    )
    assert im2col(x, k, **options).shape == (*y.shape[:-1], np.prod(k) * 3)
    matrix = toeplitz_matrix(kernel, (*size, 3), **options)
    assert matrix.shape == (y[0].size, x[0].size)
    np.testing.assert_allclose(x.reshape(2, -1) @ matrix.T, y.reshape(2, -1), **CLOSE)


def test_the_matrix_is_toeplitz_with_toeplitz_blocks():
    """L5: in one dimension scipy's matrix; in two, blocks that are equal along the diagonals."""
    k = jnp.asarray([1.0, 2.0, 3.0])
    matrix = toeplitz_matrix(k.reshape(3, 1, 1), (6, 1))
    wanted = linalg.toeplitz([1.0, 0, 0, 0], [1.0, 2.0, 3.0, 0, 0, 0])
    np.testing.assert_array_equal(matrix, wanted)
    kernel = jnp.arange(1.0, 7.0).reshape(3, 2, 1, 1)
    blocks = toeplitz_matrix(kernel, (5, 4, 1)).reshape(3, 3, 5, 4).transpose(0, 2, 1, 3)
    for i, j in np.ndindex(3, 5):
        if 0 <= j - i < 3:
            a, b = kernel[j - i, :, 0, 0]
            wanted = linalg.toeplitz([a, 0, 0], [a, b, 0, 0])
            np.testing.assert_array_equal(blocks[i, j], wanted)
        else:
            assert not blocks[i, j].any()


def test_the_transposed_matrix_is_the_transposed_convolution(x64):
    """L9."""
    (kernel,) = draw(1, (3, 2, 1, 1), dtype=np.float64)
    matrix = toeplitz_matrix(kernel, (7, 6, 1), stride=2, padding=1)
    (y,) = draw(2, (1, 4, 4, 1), dtype=np.float64)
    up = conv_transpose(y, kernel, stride=2, padding=1)
    np.testing.assert_allclose((matrix.T @ y.ravel()).reshape(up.shape), up, atol=1e-12)


def test_im2col_orders_features_as_the_kernel_does():
    x = jnp.arange(12.0).reshape(1, 3, 2, 2)
    assert im2col(x, 2)[0, :, 0].tolist() == [
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
        [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0],
    ]


@pytest.mark.parametrize(("options", "size", "k"), FORMS)
def test_equal_kernels_make_the_unshared_and_the_tiled_form_a_convolution(
    options, size, k, strict_promotion
):
    """L22, L23: between them only the number of kernels differs."""
    x, kernel, bias = draw(3, (2, *size, 2), (*k, 2, 3), (3,))
    y = conv(x, kernel, bias, **options)
    rank, out_space = len(size), y.shape[1:-1]
    flat = kernel.reshape((1,) * rank + (-1, 3))
    unshared = jnp.broadcast_to(flat, (*out_space, *flat.shape[-2:]))
    np.testing.assert_allclose(
        locally_connected(x, unshared, bias, kernel_size=k, **options), y, **CLOSE
    )
    single = kernel.reshape((1,) * rank + kernel.shape)
    np.testing.assert_allclose(tiled_conv(x, single, bias, **options), y, **CLOSE)
    many = jnp.broadcast_to(single, (*out_space, *kernel.shape))
    np.testing.assert_allclose(tiled_conv(x, many, bias, **options), y, **CLOSE)


def test_each_position_of_the_unshared_form_has_its_own_kernel(x64):
    x, kernel, bias = draw(4, (2, 5, 4, 2), (4, 3, 8, 3), (4, 3, 3), dtype=np.float64)
    y = locally_connected(x, kernel, bias, kernel_size=2)
    for i, j in np.ndindex(4, 3):
        patch = x[:, i : i + 2, j : j + 2].reshape(2, -1)
        np.testing.assert_allclose(y[:, i, j], patch @ kernel[i, j] + bias[i, j], atol=1e-12)
    # the gradient of a kernel comes from its position alone
    grad = jax.grad(lambda k: locally_connected(x, k, kernel_size=2)[:, 1, 2].sum())(kernel)
    assert bool(grad[1, 2].any())
    assert not grad.at[1, 2].set(0.0).any()


@pytest.mark.parametrize("tiles", [(1, 1), (2, 3), (3, 2), (5, 4)])
def test_the_tiled_form_uses_its_kernels_in_turn(tiles, x64):
    x, kernel, bias = draw(5, (2, 6, 6, 2), (*tiles, 2, 3, 2, 3), (*tiles, 3), dtype=np.float64)
    y = tiled_conv(x, kernel, bias)
    for i, j in np.ndindex(5, 4):
        turn = (i % tiles[0], j % tiles[1])
        shared = conv(x, kernel[turn], bias[turn])
        np.testing.assert_allclose(y[:, i, j], shared[:, i, j], atol=1e-12)


def test_transforms_and_gradients(x64):
    x, kernel = draw(6, (1, 4, 4, 1), (2, 1, 2, 2, 1, 2), dtype=np.float64)
    check_grads(jax.jit(lambda x, k: jnp.sin(tiled_conv(x, k))), (x, kernel), order=1)
    check_grads(jax.jit(lambda k: jnp.sin(toeplitz_matrix(k, (4, 4, 1)))), (kernel[0, 0],), order=1)
    xs = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(
        jax.vmap(lambda x: tiled_conv(x, kernel))(xs)[1], tiled_conv(2 * x, kernel), atol=1e-12
    )


def test_true_convolution_reverses_the_kernel():
    """L4: scipy's convolve2d; convolution with the reversed kernel is correlation."""
    x, k = draw(7, (5, 6), (3, 2))
    image, kernel = x[None, ..., None], k[..., None, None]
    for mode in ("valid", "full"):
        np.testing.assert_allclose(
            true_convolution(image, kernel, padding=mode)[0, ..., 0],
            signal.convolve2d(x, k, mode),
            **CLOSE,
        )
    np.testing.assert_allclose(
        true_convolution(image, kernel[::-1, ::-1])[0, ..., 0], corr2d(x, k), **CLOSE
    )
    # it commutes, which correlation does not
    full = true_convolution(image, kernel, padding="full")[0, ..., 0]
    swapped = true_convolution(k[None, ..., None], x[..., None, None], padding="full")[0, ..., 0]
    np.testing.assert_allclose(full, swapped, **CLOSE)


# --- corr2d and edges ------------------------------------------------------------------------


def test_the_loop_is_the_reference_of_conv():
    """L2: D2L 7.2 prints 19, 25, 37, 43."""
    x, k = jnp.arange(9.0).reshape(3, 3), jnp.arange(4.0).reshape(2, 2)
    assert corr2d(x, k).tolist() == [[19.0, 25.0], [37.0, 43.0]]
    x, k = draw(8, (6, 5), (3, 2))
    np.testing.assert_allclose(
        conv(x[None, ..., None], k[..., None, None])[0, ..., 0], corr2d(x, k), **CLOSE
    )
    np.testing.assert_allclose(corr2d(x, k), signal.correlate2d(x, k, "valid"), **CLOSE)


def test_assignment_is_differentiable(x64):
    """C120 ("the loop that assigns cannot be differentiated") is false in JAX."""

    def through_conv(x, k):
        return conv(x[None, ..., None], k[..., None, None])[0, ..., 0]

    x, k = draw(9, (3, 4), (2, 2), dtype=np.float64)
    assert_gradients_match(corr2d, through_conv, x, k, rtol=1e-12)


def test_edge_images_are_as_printed():
    """L10, C118, D7."""
    x = jnp.ones((8, 6)).at[2:6].set(0.0)
    wanted = np.zeros((7, 6))
    wanted[1], wanted[5] = 1, -1
    np.testing.assert_array_equal(corr2d(x, edge_kernel("horizontal")), wanted)
    assert corr2d(jnp.eye(6), edge_kernel("diagonal")).tolist() == [
        [2.0, -1.0, 0.0, 0.0, 0.0],
        [-1.0, 2.0, -1.0, 0.0, 0.0],
        [0.0, -1.0, 2.0, -1.0, 0.0],
        [0.0, 0.0, -1.0, 2.0, -1.0],
        [0.0, 0.0, 0.0, -1.0, 2.0],
    ]
    x = jnp.ones((6, 8)).at[:, 2:6].set(0.0)
    wanted = np.zeros((6, 7))
    wanted[:, 1], wanted[:, 5] = 1, -1
    np.testing.assert_array_equal(corr2d(x, edge_kernel("vertical")), wanted)
    # across its direction a detector sees nothing (D2L 7.2.3)
    assert not corr2d(x.T, edge_kernel("vertical")).any()


def test_the_diagonal_kernel_is_blind_to_straight_edges():
    """C118: it answers to either diagonal, and to neither row nor column edges."""
    diagonal = edge_kernel("diagonal")
    stripes = jnp.ones((6, 8)).at[:, 2:6].set(0.0)
    assert not corr2d(stripes, diagonal).any()
    assert not corr2d(stripes.T, diagonal).any()
    other = corr2d(jnp.eye(6)[:, ::-1], diagonal)
    np.testing.assert_array_equal(jnp.diagonal(other[:, ::-1]), -2.0)
    assert set(np.unique(other)) == {-2.0, 0.0, 1.0}


def test_sobel_kernels():
    ramp = jnp.arange(5.0).reshape(1, 5) + jnp.zeros((4, 1))
    np.testing.assert_array_equal(corr2d(ramp, edge_kernel("sobel_x")), -8.0)
    assert not corr2d(ramp, edge_kernel("sobel_y")).any()
    np.testing.assert_array_equal(edge_kernel("sobel_y"), edge_kernel("sobel_x").T)
    assert edge_kernel("vertical", jnp.bfloat16).dtype == jnp.bfloat16


# --- learning a kernel -----------------------------------------------------------------------


def test_a_kernel_is_learned_from_images():
    """L11, C119: [1, -1] from the striped image, to 0.1 in D2L's ten steps, then exactly."""
    x = jnp.ones((6, 8)).at[:, 2:6].set(0.0)
    y = corr2d(x, edge_kernel("vertical"))
    rough, losses = learn_kernel(x, y, (1, 2), steps=10)
    np.testing.assert_allclose(rough, [[1.0, -1.0]], atol=0.1)
    assert losses.shape == (10,)
    assert bool((jnp.diff(losses) < 0).all())
    exact, losses = learn_kernel(x, y, (1, 2))
    np.testing.assert_allclose(exact, [[1.0, -1.0]], atol=1e-4)
    assert float(losses[-1]) < 1e-6
    # a larger kernel from a random image; the least-squares solution is the oracle
    x, k = draw(10, (8, 8), (2, 3))
    y = corr2d(x, k)
    learned, _ = learn_kernel(x, y, (2, 3), steps=400, learning_rate=0.005)
    rows = im2col(x[None, ..., None], (2, 3)).reshape(-1, 6)
    solved = np.linalg.lstsq(np.asarray(rows), np.asarray(y).ravel(), rcond=None)[0]
    np.testing.assert_allclose(learned.ravel(), solved, atol=1e-3)


# --- errors ----------------------------------------------------------------------------------

X = jnp.zeros((2, 5, 4, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: im2col(jnp.zeros((3, 2)), 2), ValueError, r"\(n, \*space, c\), got \(3, 2\)"),
        (lambda: im2col(X, (2, 5)), ValueError, "im2col: spatial axis 1: kernel 5 is larger"),
        (
            lambda: conv_as_matmul(X, jnp.zeros((2, 2, 3, 1))),
            ValueError,
            r"conv_as_matmul: x \(2, 5, 4, 2\) has 2 channels.* takes 3",
        ),
        (
            lambda: toeplitz_matrix(jnp.zeros((2, 2, 3, 1)), (5, 4, 2)),
            ValueError,
            r"must agree, got \(2, 2, 3, 1\) and \(5, 4, 2\)",
        ),
        (lambda: toeplitz_matrix(jnp.zeros((1, 1)), (1,)), ValueError, "must agree"),
        (lambda: toeplitz_matrix(jnp.zeros((3, 1, 1), int), (4, 1)), TypeError, "floating point"),
        (lambda: toeplitz_matrix(jnp.zeros((3, 1, 1)), (2, 1)), ValueError, "kernel 3 is larger"),
        (
            lambda: locally_connected(X, jnp.zeros((4, 3, 4, 1)), kernel_size=2),
            ValueError,
            r"kernel must have shape \(4, 3, 8, 'out'\).*got \(4, 3, 4, 1\)",
        ),
        (
            lambda: locally_connected(X, jnp.zeros((4, 8, 1)), kernel_size=2),
            ValueError,
            r"got \(2, 5, 4, 2\) and \(4, 8, 1\)",
        ),
        (
            lambda: locally_connected(X, jnp.zeros((4, 3, 8, 1), jnp.bfloat16), kernel_size=2),
            TypeError,
            "float32 and bfloat16",
        ),
        (
            lambda: locally_connected(X, jnp.zeros((4, 3, 8, 1)), jnp.zeros(2), kernel_size=2),
            ValueError,
            r"bias must have shape \(1,\) or \(4, 3, 1\), got \(2,\)",
        ),
        (
            lambda: tiled_conv(X, jnp.zeros((2, 2, 2, 2, 3, 1))),
            ValueError,
            r"\(\*t, \*k, c, out\), got",
        ),
        (
            lambda: tiled_conv(X, jnp.zeros((5, 1, 2, 2, 2, 1))),
            ValueError,
            r"more kernels \(5, 1\) than output positions \(4, 3\)",
        ),
        (lambda: tiled_conv(X.astype(int), jnp.zeros((1, 1, 2, 2, 2, 1))), TypeError, "floating"),
        (lambda: corr2d(jnp.zeros((3, 3)), jnp.zeros((4, 1))), ValueError, "is larger than x"),
        (lambda: corr2d(jnp.zeros(3), jnp.zeros((1, 1))), ValueError, r"corr2d: x must have"),
        (lambda: edge_kernel("round"), ValueError, "'round' is not one of"),
        (
            lambda: learn_kernel(jnp.zeros((4, 4)), jnp.zeros((4, 4)), 2),
            ValueError,
            r"need y of shape \(3, 3\)",
        ),
        (lambda: learn_kernel(jnp.zeros((2, 4)), jnp.zeros((4, 4)), 3), ValueError, "is larger"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
