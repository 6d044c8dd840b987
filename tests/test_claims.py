"""What the notes claim and the tests of single operations do not show; the list: docs/claims.md."""

import math
import time
from fractions import Fraction
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

import jaxd2l
from jaxd2l import layers
from jaxd2l.geometry import conv_macs, conv_parameters
from jaxd2l.ops.conv import conv
from jaxd2l.ops.conv_matrix import conv_as_matmul, im2col
from jaxd2l.ops.initializers import Normal
from jaxd2l.ops.pool import avg_pool, global_avg_pool, global_max_pool, max_pool


def draw(seed, *shape, dtype=np.float32):
    return jnp.asarray(np.random.RandomState(seed).randn(*shape).astype(dtype))


def start(net, shape):
    return jaxd2l.init(net, jax.random.key(0), shape)


def parameters(net, shape):
    """Shapes by path, without a compilation, and how many numbers they are."""
    shapes = jax.eval_shape(lambda key: jaxd2l.init(net, key, shape)[0], jax.random.key(0))
    return shapes, sum(leaf.size for leaf in jax.tree.leaves(shapes))


# Dropout and batch normalisation in evaluation


def test_dropout_uses_every_unit_as_it_is_at_test_time():
    """C70: the inverted form needs no factor, so nothing is left to do."""
    net, x = layers.Dropout("drop", 0.8), draw(0, 4, 5)

    def run(x, **call):
        return jaxd2l.apply(net, {}, {}, x, **call)[0]

    np.testing.assert_array_equal(run(x), x)
    np.testing.assert_array_equal(jax.grad(lambda x: run(x).sum())(x), 1)
    assert (run(x, train=True, key=jax.random.key(0)) == 0).any()


def test_a_bias_before_batch_norm_does_nothing_once_the_running_mean_has_settled():
    """C92: before that it does, since evaluation subtracts a mean that lacks the bias."""
    net = layers.Serial([layers.Dense("dense", 4), layers.BatchNorm("bn", decay=0.5)])
    params, state = start(net, (5,))
    biased = {**params, "dense": {**params["dense"], "bias": 10 * draw(1, 4)}}
    x = draw(0, 16, 5)

    @jax.jit
    def train(params, state):
        return jaxd2l.apply(net, params, state, x, train=True)[1]

    @jax.jit
    def evaluate(params, state):
        return jaxd2l.apply(net, params, state, x)[0]

    assert np.abs(evaluate(biased, state) - evaluate(params, state)).max() > 1
    with_bias = without = state
    for _ in range(40):
        with_bias, without = train(biased, with_bias), train(params, without)
    np.testing.assert_allclose(evaluate(biased, with_bias), evaluate(params, without), atol=1e-4)


def test_batch_norm_may_stand_on_either_side_of_the_activation():
    """N5: before it half of the outputs are cut off; after it they have mean 0 and variance 1."""
    norm, bend = layers.BatchNorm("bn"), layers.Activation("relu")
    x = 3 + 2 * draw(0, 512, 2)

    def run(*order):
        net = layers.Serial(order)
        return np.asarray(jaxd2l.apply(net, *start(net, (2,)), x, train=True)[0])

    before, after = run(norm, bend), run(bend, norm)
    assert before.min() == 0
    assert (before == 0).mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(after.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(after.var(0), 1, atol=1e-3)
    assert after.min() < 0


def test_batch_norm_has_two_parameters_a_channel():
    """F7; its running statistics are not parameters."""
    for shape in ((7,), (4, 4, 7)):
        shapes, count = parameters(layers.BatchNorm("bn"), shape)
        assert set(shapes["bn"]) == {"scale", "bias"}
        assert count == jaxd2l.summarize(layers.BatchNorm("bn"), shape).rows[-1].parameters == 14


# Convolution and pooling


def test_two_small_convolutions_bend_twice_but_reach_fewer_kernels(x64):
    """C109: the field and output of one 5x5 with 0.72 of its weights and two activations, not one;
    what they reach without activations is a surface of dimension 17 among the 25 of a 5x5."""
    relu = layers.Activation("relu")
    small = [layers.Conv(name, 6, 3, bias=False) for name in "ab"]
    two = layers.Serial([small[0], relu, small[1], relu])
    one = layers.Serial([layers.Conv("a", 6, 5, bias=False), relu])
    rows = [jaxd2l.summarize(net, (9, 9, 6)) for net in (two, one)]
    assert rows[0].rows[-1].output_shape == rows[1].rows[-1].output_shape == (5, 5, 6)
    assert rows[0].rows[-1].receptive_field == rows[1].rows[-1].receptive_field
    counts = [parameters(net, (9, 9, 6))[1] for net in (two, one)]
    assert Fraction(*counts) == Fraction(18, 25)
    bends = [sum(step.layer == relu for step in layers.walk(net, (9, 9, 6))) for net in (two, one)]
    assert bends == [2, 1]

    def composed(kernels):  # the 5x5 kernel that the two amount to
        a, b = kernels.reshape(2, 3, 3)
        return conv(a.reshape(1, 3, 3, 1), b[::-1, ::-1].reshape(3, 3, 1, 1), padding="full")

    jacobian = jax.jacobian(lambda k: composed(k).ravel())(draw(0, 18, dtype=np.float64))
    assert jacobian.shape == (25, 18)
    assert np.linalg.matrix_rank(jacobian) == 17  # 18 weights, and a scale moves between them


def loop_conv(x, kernel):
    """Convolution as its definition is written, one product at a time."""
    (n, h, w, _), (kh, kw, c_in, c_out) = np.shape(x), np.shape(kernel)
    x, kernel = x.tolist(), kernel.tolist()
    y = np.zeros((n, h - kh + 1, w - kw + 1, c_out))
    for m, i, j, o in np.ndindex(*y.shape):
        total = 0.0
        for a, b, c in product(range(kh), range(kw), range(c_in)):
            total += x[m][i + a][j + b][c] * kernel[a][b][c][o]
        y[m, i, j, o] = total
    return y


def test_the_matrix_product_makes_the_same_products_many_times_faster():
    """C111, CA11: as many multiplications as the loop, and over ten times its speed."""
    x, kernel = draw(0, 2, 16, 16, 3), draw(1, 3, 3, 3, 4)
    rows = im2col(x, (3, 3))
    products = math.prod(rows.shape) * 4
    assert products == 2 * conv_macs((16, 16), (3, 3), 3, 4, bias=False).multiplications
    assert rows.size == pytest.approx(9 * x.size, rel=0.25)  # the price: near 9 times the memory

    def seconds(function):
        begin = time.perf_counter()
        result = np.asarray(function())
        return time.perf_counter() - begin, result

    fast = jax.jit(conv_as_matmul)
    fast(x, kernel).block_until_ready()
    quick, same = min((seconds(lambda: fast(x, kernel)) for _ in range(20)), key=lambda r: r[0])
    slow, wanted = min(
        (seconds(lambda: loop_conv(x, kernel)) for _ in range(2)), key=lambda r: r[0]
    )
    np.testing.assert_allclose(same, wanted, rtol=1e-4, atol=1e-4)
    assert slow > 10 * quick


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_a_shift_by_the_stride_shifts_the_pooled_image_by_one(pool):
    """C113: pooling is equivariant too, to multiples of its stride."""
    x = draw(0, 1, 8, 12, 2)
    moved = jnp.roll(x, (2, 4), (1, 2))
    np.testing.assert_array_equal(pool(moved, 2), jnp.roll(pool(x, 2), (1, 2), (1, 2)))


@pytest.mark.parametrize(
    ("window", "stride", "share"), [(2, 2, 1 / 3), (3, 1, 1 / 2), (3, 3, 1 / 2)]
)
def test_pooling_is_invariant_to_a_shift_by_one_only_in_part(window, stride, share):
    """C113: an output stays if the largest of both windows lies in their overlap, k(k-1) of
    k(k+1) pixels: (k-1)/(k+1). Without pooling none stays."""
    x = draw(1, 1, 120, 120, 2)
    moved = jnp.roll(x, 1, 1)
    same = max_pool(moved, window, stride=stride) == max_pool(x, window, stride=stride)
    assert float(same.mean()) == pytest.approx(share, abs=0.03)
    assert share == pytest.approx((window - 1) / (window + 1))
    assert not (moved == x).any()


def test_global_pooling_is_invariant_to_every_circular_shift():
    """C113."""
    x = draw(2, 2, 6, 7, 3)
    moved = jnp.roll(x, (2, -3), (1, 2))
    np.testing.assert_array_equal(global_max_pool(moved), global_max_pool(x))
    np.testing.assert_allclose(global_avg_pool(moved), global_avg_pool(x), atol=1e-6)


def test_pools_have_no_parameters_and_keep_the_channels_and_a_convolution_neither():
    """C116, C117."""
    shape = (6, 6, 5)
    for pool in (layers.MaxPool(2), layers.AvgPool(2), layers.MinPool(2)):
        assert parameters(pool, shape) == ({}, 0)
        assert jaxd2l.output_shape(pool, shape) == (3, 3, 5)
    for features in (1, 5, 8):
        net = layers.Conv("conv", features, 2, stride=2)
        _, count = parameters(net, shape)
        assert count == conv_parameters((2, 2), 5, features) == 4 * 5 * features + features
        assert jaxd2l.output_shape(net, shape) == (3, 3, features)


# Networks: shapes that are inferred, control flow


def test_the_number_of_inputs_is_inferred_when_parameters_are_made():
    """IN6: no "0 until the first call": one record, and the shapes follow from the input's."""
    net = layers.Serial([layers.Dense("a", 256, kernel_init=Normal(0.01)), layers.Dense("b", 10)])
    for features in (20, 784):
        shapes, _ = parameters(net, (features,))
        assert shapes["a"]["kernel"].shape == (features, 256)
        assert shapes["b"]["kernel"].shape == (256, 10)
    params, _ = start(net, (20,))
    assert float(params["a"]["kernel"].std()) == pytest.approx(0.01, rel=0.05)  # IN1
    np.testing.assert_array_equal(params["a"]["bias"], 0)


def halve_while_above_one(x):
    """x / 2^n with the least n that brings the norm to 1; gradients see a constant factor."""
    norm = jnp.linalg.norm(lax.stop_gradient(x))
    factor = lax.while_loop(lambda f: f * norm > 1, lambda f: f / 2, jnp.ones_like(norm))
    return x * factor


def test_control_flow_on_values_trains_if_the_loop_carries_constants(x64):
    """BL3, E22: Python's `while` fails under jit and `lax.while_loop` runs. Its reverse-mode
    gradient exists if what it carries is cut off by stop_gradient."""

    def by_while_loop(x):
        return lax.while_loop(lambda x: jnp.linalg.norm(x) > 1, lambda x: x / 2, x)

    def by_python(x):
        while jnp.linalg.norm(x) > 1:
            x = x / 2
        return x

    x = draw(3, 4, 6, dtype=np.float64)
    wanted = by_python(x)
    assert float(jnp.linalg.norm(wanted)) <= 1 < 2 * float(jnp.linalg.norm(wanted))
    for function in (halve_while_above_one, by_while_loop):
        np.testing.assert_allclose(jax.jit(function)(x), wanted, rtol=1e-12)
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.jit(by_python)(x)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(lambda x: by_while_loop(x).sum())(x)

    net = layers.Serial([layers.Dense("dense", 5), layers.Function(halve_while_above_one)])
    params, state = jaxd2l.init(net, jax.random.key(0), (6,), dtype=jnp.float64)
    check_grads(jax.jit(lambda params: jaxd2l.apply(net, params, state, x)[0]), (params,), order=1)
