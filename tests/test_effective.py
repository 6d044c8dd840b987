"""The effective receptive field: exact for linear stacks, against differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers
from jaxd2l.analysis import EffectiveReceptiveField, effective_receptive_field
from jaxd2l.geometry import Window, receptive_field
from jaxd2l.ops.initializers import Constant


def stack(windows, channels=1, rank=1):
    """Convolutions with these windows and kernels of ones, along `rank` axes: a function of
    (n, *spatial, channels)."""

    def f(x):
        for w in windows:
            kernel = jnp.ones((w.kernel,) * rank + (channels, channels), x.dtype)
            letters = "DHW"[-rank:]
            x = jax.lax.conv_general_dilated(
                x,
                kernel,
                (w.stride,) * rank,
                [w.padding] * rank,
                rhs_dilation=(w.dilation,) * rank,
                dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
            )
        return x

    return f


def weights(windows):
    """How often each pixel of the theoretical field is counted: a product of polynomials."""
    found, jump = np.ones(1), 1
    for w in windows:
        kernel = np.zeros((w.kernel - 1) * w.dilation * jump + 1)
        kernel[:: w.dilation * jump] = 1
        found, jump = np.convolve(found, kernel), jump * w.stride
    return found


@pytest.mark.smoke
@pytest.mark.parametrize(("n", "k"), [(1, 3), (4, 3), (9, 3), (3, 5), (2, 2)])
def test_the_map_of_a_linear_stack_is_the_convolution_of_its_kernels(n, k):
    windows = [Window(k)] * n
    field = receptive_field(windows)
    found = effective_receptive_field(stack(windows), (1, field.size, 1))
    np.testing.assert_allclose(found.map, weights(windows) / k**n, rtol=1e-5)
    assert found.unit == (0,)
    assert found.mean == pytest.approx(((field.size - 1) / 2,))
    assert found.width == pytest.approx((4 * math.sqrt(n * (k**2 - 1) / 12),), rel=1e-6)


@pytest.mark.parametrize(
    "windows",
    [
        [Window(3, 2, 1), Window(3, 2, 1), Window(3, 1, 1)],
        [Window(3, 1, d, dilation=d) for d in (1, 2, 4)],
        [Window(5, 3, 2), Window(2, 1, 0, dilation=3), Window(3, 2, 0)],
    ],
)
def test_strides_and_dilation_spread_the_map_as_the_polynomials_say(windows):
    field, size = receptive_field(windows), 61
    found = effective_receptive_field(stack(windows), (1, size, 1))
    first, last = field.interval(found.unit[0])
    assert 0 < first < last < size - 1
    np.testing.assert_allclose(
        found.map[first : last + 1], weights(windows) / weights(windows).sum(), rtol=1e-5
    )
    assert found.map[:first].sum() == found.map[last + 1 :].sum() == 0
    jumps = np.cumprod([1] + [w.stride for w in windows[:-1]])
    variance = sum(
        (w.kernel**2 - 1) / 12 * (w.dilation * j) ** 2 for w, j in zip(windows, jumps, strict=True)
    )
    assert found.width[0] == pytest.approx(4 * variance**0.5, rel=1e-5)


def test_the_share_of_the_theoretical_field_falls_like_one_over_sqrt_n():
    depths, shares = [4, 8, 16], []
    for n in depths:
        windows = [Window(3)] * n
        size = receptive_field(windows).size
        found = effective_receptive_field(stack(windows), (1, size, 1))
        shares.append(found.width[0] / size)
        assert shares[-1] == pytest.approx(4 * math.sqrt(2 * n / 3) / (2 * n + 1), rel=1e-5)
    slope = math.log2(shares[-1] / shares[-2])
    assert -0.5 < slope < -0.45  # -1/2 in the limit: the field is 2n + 1, not 2n


def test_random_kernels_spread_like_the_root_of_the_uniform_ones(key):
    # The variance of the gradient is the convolution of uniform kernels; its mean absolute value
    # goes with the root of that, which is sqrt(2) times as wide in the limit.
    n, nets, channels = 6, 24, 32
    kernels = jax.random.normal(key, (nets, n, 3, channels, channels)) / 10

    @jax.vmap
    def through(kernels, x):  # each example through a network of its own
        for kernel in kernels:
            x = jax.lax.conv_general_dilated(
                x[None], kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
            )[0]
        return x

    one = jnp.zeros((1, nets, 2 * n + 1, channels))  # linear: the gradient is the same everywhere
    found = effective_receptive_field(lambda x: through(kernels, x), one.shape[1:], inputs=one)
    wanted = np.sqrt(weights([Window(3)] * n))
    np.testing.assert_allclose(found.map, wanted / wanted.sum(), rtol=0.08, atol=0.002)
    positions = np.arange(2 * n + 1) - n
    assert found.width[0] == pytest.approx(
        4 * math.sqrt((wanted * positions**2).sum() / wanted.sum()), rel=0.02
    )


def test_two_and_three_axes_are_products_of_one():
    windows = [Window(3)] * 3
    line = weights(windows) / 27
    for rank in (2, 3):
        found = effective_receptive_field(stack(windows, rank=rank), (1, *[7] * rank, 1))
        wanted = line
        for _ in range(rank - 1):
            wanted = wanted[..., None] * line
        np.testing.assert_allclose(found.map, wanted, rtol=1e-5)
        assert found.unit == (0,) * rank
        assert found.width == pytest.approx((4 * math.sqrt(2),) * rank, rel=1e-5)
        count = (wanted > (1 - 0.9545) * wanted.max()).sum()
        assert found.size == pytest.approx(count ** (1 / rank))


def test_luos_size_of_a_gaussian_is_4_41_standard_deviations():
    x = np.arange(201) - 100.0
    line = np.exp(-(x**2) / (2 * 15**2))
    plane = line[:, None] * line
    field = EffectiveReceptiveField(plane / plane.sum(), None)
    reach = math.sqrt(-2 * math.log(1 - 0.9545))  # in standard deviations
    assert field.size == pytest.approx(15 * reach * math.sqrt(math.pi), rel=0.01)
    assert reach * math.sqrt(math.pi) == pytest.approx(4.41, abs=0.005)
    assert field.width == pytest.approx((60, 60), rel=1e-3)
    assert EffectiveReceptiveField(line / line.sum(), None).size == 2 * int(15 * reach) + 1


NET = layers.Serial(
    [
        layers.Conv("conv1", 4, 3, padding=1),
        layers.Activation("tanh"),
        layers.MaxPool(2),
        layers.Parallel([layers.Conv("conv2", 5, 3, padding=1), layers.Conv("skip", 5, 1)], "add"),
        layers.Activation("relu"),
        layers.Conv("conv3", 3, 3, stride=2, padding=1, dilation=2),
    ]
)


def test_it_is_the_mean_absolute_gradient_by_finite_differences(key, x64):
    params, state = jaxd2l.init(NET, key, (12, 10, 2), dtype=jnp.float64)
    inputs = jax.random.normal(key, (3, 2, 12, 10, 2), jnp.float64)

    def f(x):
        return jaxd2l.apply(NET, params, state, x)[0]

    found = effective_receptive_field(f, (2, 12, 10, 2), unit=(1, 0), inputs=inputs)
    unit = jax.jit(jax.vmap(lambda x: f(x)[:, 1, 0].sum()))
    wanted = np.zeros((12, 10))
    for sample in inputs:
        steps = 1e-6 * jnp.eye(sample.size).reshape(-1, *sample.shape)
        slopes = (unit(sample + steps) - unit(sample - steps)) / 2e-6
        wanted += np.abs(slopes).reshape(sample.shape).sum((0, 3))
    np.testing.assert_allclose(found.map, wanted / wanted.sum(), atol=1e-7)
    assert found.unit == (1, 0)
    assert found.map.dtype == np.float64


def test_the_map_lies_inside_the_theoretical_field(key):
    params, state = jaxd2l.init(NET, key, (32, 32, 1))
    windows = [Window(3, 1, 1), Window(2, 2), Window(3, 1, 1), Window(3, 2, 1, dilation=2)]
    field = receptive_field(windows)

    def f(x):
        return jaxd2l.apply(NET, params, state, x)[0]

    for unit in [(3, 4), (0, 6)]:
        found = effective_receptive_field(f, (1, 32, 32, 1), unit=unit)
        inside = np.zeros((32, 32), bool)
        rows, columns = (slice(max(0, a), b + 1) for a, b in map(field.interval, unit))
        inside[rows, columns] = True
        assert (found.map[~inside] == 0).all()
        assert found.map[inside].sum() == pytest.approx(1)
        assert max(found.width) < field.size


def test_a_batch_and_single_images_agree_and_axes_choose_the_order():
    kernel = jnp.array([[0.0, 1.0, 0.0], [3.0, 1.0, 4.0], [0.0, 2.0, 0.0]])

    def single(x):  # (h, w)
        return jax.scipy.signal.convolve2d(jnp.tanh(x), kernel, "same")

    inputs = jax.random.normal(jax.random.key(1), (4, 7, 9))
    one = effective_receptive_field(single, (7, 9), (0, 1), inputs=inputs)
    batch = effective_receptive_field(jax.vmap(single), (4, 7, 9), (1, 2), inputs=inputs[None])
    turned = effective_receptive_field(single, (7, 9), (-1, 0), inputs=inputs, unit=(4, 3))
    assert one.unit == batch.unit == (3, 4)
    np.testing.assert_allclose(batch.map, one.map, rtol=1e-5)
    np.testing.assert_allclose(turned.map, one.map.T, rtol=1e-5)
    assert turned.width == one.width[::-1]


def test_an_output_without_positions_is_taken_whole():
    def logits(x):  # (n, h, w, c) -> (n, 2)
        return jnp.stack([x[:, 1, 2].sum(-1), 3 * x[:, 0, 0].sum(-1)], -1)

    found = effective_receptive_field(logits, (2, 3, 4, 5))
    wanted = np.zeros((3, 4))
    wanted[1, 2], wanted[0, 0] = 0.25, 0.75
    np.testing.assert_allclose(found.map, wanted, rtol=1e-6)
    assert found.unit is None
    scalar = effective_receptive_field(lambda x: logits(x)[0, 0], (2, 3, 4, 5))
    assert scalar.map[1, 2] == scalar.size == 1
    assert scalar.width == (0, 0)


def test_default_inputs_are_twenty_normal_ones_and_f_is_traced_only_twice():
    traced = []

    def f(x):
        traced.append(x.dtype)
        return x * x  # the gradient at the unit is 2 |x|: all in one pixel

    first = effective_receptive_field(f, (1, 5, 1))
    assert traced == [jnp.float32] * 2  # its shape, and the compiled gradient
    assert first.map.tolist() == [0, 0, 1, 0, 0]

    def sees(x):  # gradients that tell what the inputs were: exp(x)
        return jnp.exp(x).sum(1, keepdims=True) * jnp.ones((1, 3, 1))

    found = effective_receptive_field(sees, (1, 3, 1))
    draws = np.exp(jax.random.normal(jax.random.key(0), (20, 1, 3, 1)))
    wanted = draws.sum((0, 1, 3))
    np.testing.assert_allclose(found.map, wanted / wanted.sum(), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_added_up_in_single(dtype, strict_promotion):
    inputs = jnp.ones((3, 1, 7, 1), dtype)
    found = effective_receptive_field(stack([Window(3)] * 3), (1, 7, 1), inputs=inputs)
    np.testing.assert_allclose(found.map, weights([Window(3)] * 3) / 27, rtol=1e-6)


def test_four_hundred_gradients_in_bfloat16_lose_nothing():
    weights = jnp.array([1, 3, 0], jnp.bfloat16)  # added up in bfloat16 these stop at 256 and 1024
    inputs = jnp.ones((400, 3), jnp.bfloat16)
    found = effective_receptive_field(lambda x: (x * weights).sum(), (3,), (0,), inputs=inputs)
    assert found.map.tolist() == [0.25, 0.75, 0]


def test_the_middle_of_an_even_number_is_the_later_unit():
    found = effective_receptive_field(lambda x: x, (1, 4, 3, 1))
    assert found.unit == (2, 1)
    assert found.map[2, 1] == 1


def test_parameters_are_used(key):
    net = layers.Conv("conv", 2, 3, padding=1, kernel_init=Constant(0.0))
    params, state = jaxd2l.init(net, key, (5, 5, 1))
    params["conv"]["kernel"] = params["conv"]["kernel"].at[0, 2].set(1.0)
    found = effective_receptive_field(
        lambda x: jaxd2l.apply(net, params, state, x)[0], (1, 5, 5, 1)
    )
    assert found.map[1, 3] == 1  # one up and one to the right of the middle


SHAPE = (1, 4, 4, 1)
ZEROS = np.zeros((2, *SHAPE), np.float32)


@pytest.mark.parametrize(
    ("error", "told", "f", "arguments"),
    [
        (TypeError, "must return one array", lambda x: (x, x), {}),
        (TypeError, "got int32, which have no gradient", lambda x: x.argmax(1), {}),
        (TypeError, "got complex64", lambda x: jnp.fft.fft(x), {}),
        (ValueError, "is empty; use a larger input_shape", lambda x: x[:, :0], {}),
        (ValueError, "not the rank of the input", lambda x: x[0], {"unit": (1, 1)}),
        (
            ValueError,
            r"of size \(2, 4\), got \(2, 0\)",
            lambda x: x[:, :2],
            {"unit": (2, 0)},
        ),
        (ValueError, "must be a position", lambda x: x, {"unit": (1,)}),
        (ValueError, "each of unit must be at least 0", lambda x: x, {"unit": (-1, 0)}),
        (ValueError, "zero everywhere", lambda x: x * 0, {}),
        (ValueError, "holds NaN", lambda x: jnp.sqrt(-jnp.abs(x)), {}),
        (ValueError, "axes must be one or more", lambda x: x, {"axes": (1, 1)}),
        (ValueError, "axes must be one or more", lambda x: x, {"axes": (1, 4)}),
        (ValueError, "axes must be one or more", lambda x: x, {"axes": ()}),
        (ValueError, "axes must be at least -4", lambda x: x, {"axes": (-5,)}),
        (ValueError, r"got \(2, 4, 4, 1\)", lambda x: x, {"inputs": ZEROS[:, 0]}),
        (
            ValueError,
            r"\(samples, 1, 4, 4, 1\)",
            lambda x: x,
            {"inputs": ZEROS[:0]},
        ),
        (TypeError, "uint8; convert it", lambda x: x, {"inputs": ZEROS.astype(np.uint8)}),
        (TypeError, "complex64", lambda x: x, {"inputs": ZEROS.astype(np.complex64)}),
    ],
)
def test_errors_say_what_to_do(error, told, f, arguments):
    with pytest.raises(error, match=told):
        effective_receptive_field(f, SHAPE, **arguments)


def test_an_input_without_spatial_axes_is_refused():
    with pytest.raises(ValueError, match=r"of \(3, 4\) none is left"):
        effective_receptive_field(lambda x: x, (3, 4))
    with pytest.raises(ValueError, match="each size must be at least 1, got 0"):
        effective_receptive_field(lambda x: x, (1, 0, 3))
