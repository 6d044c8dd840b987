"""Color spaces against colorsys and the matrix of BT.601; adjustments against their formulas."""

import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxd2l.ops import adjust, color

RANDOM = np.random.RandomState(0).uniform(size=(200, 3))
CORNERS = np.array([[r, g, b] for r in (0, 0.5, 1) for g in (0, 0.5, 1) for b in (0, 0.5, 1)])
PIXELS = np.concatenate([RANDOM, CORNERS, [[1.0, 0.5, 0.5000001], [0.3, 0.3, 0.3]]])
IMAGE = np.random.RandomState(1).uniform(size=(5, 4, 3))


def hsl_of(r, g, b):
    h, light, s = colorsys.rgb_to_hls(r, g, b)
    return h, s, light


def rgb_of_hsl(h, s, light):
    return colorsys.hls_to_rgb(h, light, s)


def per_pixel(function, pixels):
    return np.array([function(*(float(v) for v in pixel)) for pixel in pixels])


def circular(got, want, **tolerance):
    """Equal, the first channel as an angle: 0 and 1 are the same hue."""
    got, want = np.asarray(got), np.asarray(want)
    turn = (got[..., 0] - want[..., 0] + 0.5) % 1 - 0.5
    np.testing.assert_allclose(turn, 0, **tolerance)
    np.testing.assert_allclose(got[..., 1:], want[..., 1:], **tolerance)


ORACLES = {"hsv": (color.rgb_to_hsv, colorsys.rgb_to_hsv), "hsl": (color.rgb_to_hsl, hsl_of)}
INVERSE = {
    "hsv": (color.rgb_to_hsv, color.hsv_to_rgb, colorsys.hsv_to_rgb),
    "hsl": (color.rgb_to_hsl, color.hsl_to_rgb, rgb_of_hsl),
    "yuv": (color.rgb_to_yuv, color.yuv_to_rgb, None),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", ORACLES)
def test_equal_to_colorsys_for_every_pixel(name, x64):
    ours, theirs = ORACLES[name]
    got = jax.jit(ours)(jnp.asarray(PIXELS))
    circular(got, per_pixel(theirs, PIXELS), atol=1e-9)
    assert got.min() >= 0
    assert got[:, 0].max() < 1
    assert got.max() <= 1 + 1e-12


@pytest.mark.parametrize("name", ["hsv", "hsl"])
def test_back_to_rgb_equals_colorsys(name, x64):
    points = np.concatenate([RANDOM, CORNERS])
    _, back, theirs = INVERSE[name]
    back = jax.jit(back)
    np.testing.assert_allclose(back(jnp.asarray(points)), per_pixel(theirs, points), atol=1e-12)
    turned = points + np.array([3.0, 0, 0])  # the hue is periodic
    np.testing.assert_allclose(back(jnp.asarray(turned)), back(jnp.asarray(points)), atol=1e-12)


@pytest.mark.parametrize("name", INVERSE)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 0.03)])
def test_round_trips_keep_the_dtype(name, dtype, tolerance, strict_promotion):
    there, back, _ = INVERSE[name]
    x = jnp.asarray(PIXELS, dtype)
    middle, y = jax.jit(lambda x: (there(x), back(there(x))))(x)
    assert middle.dtype == y.dtype == dtype
    np.testing.assert_allclose(np.asarray(y, float), np.asarray(x, float), atol=tolerance)


def test_yuv_is_the_matrix_of_bt601(x64):
    matrix = np.array(  # printed in tf.image.rgb_to_yuv and elsewhere
        [
            [0.299, 0.587, 0.114],
            [-0.14714119, -0.28886916, 0.43601035],
            [0.61497538, -0.51496512, -0.10001026],
        ]
    )
    got = color.rgb_to_yuv(jnp.asarray(PIXELS))
    np.testing.assert_allclose(got, PIXELS @ matrix.T, atol=5e-5)
    assert abs(np.asarray(got)[:, 1]).max() == pytest.approx(0.436)  # blue and yellow
    assert abs(np.asarray(got)[:, 2]).max() == pytest.approx(0.615)  # red and cyan
    np.testing.assert_allclose(color.rgb_to_gray(jnp.asarray(PIXELS)), got[:, :1], atol=1e-12)


def test_binary_is_above_the_threshold():
    gray = jnp.array([[0.0], [0.5], [0.5001], [1.0]])
    assert color.gray_to_binary(gray).ravel().tolist() == [0, 0, 1, 1]
    assert color.gray_to_binary(gray, 0.75).ravel().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("name", color.COLOR_SPACES)
def test_gradients_are_finite_at_gray_black_and_white_too(name):
    convert, channels = color.COLOR_SPACES[name]
    grads = jax.jit(jax.jacrev(lambda x: convert(x).sum(axis=0)))(jnp.asarray(PIXELS, jnp.float32))
    assert grads.shape == (channels, len(PIXELS), 3)
    assert bool(jnp.isfinite(grads).all())


@pytest.mark.parametrize("name", ["yuv", "hsv", "hsl"])
def test_gradients_equal_differences_inside_the_sectors(name, x64):
    there, back, _ = INVERSE[name]
    x = jnp.array([[0.8, 0.3, 0.45], [0.2, 0.9, 0.6], [0.35, 0.15, 0.7]])
    check_grads(jax.jit(there), (x,), 1, rtol=1e-5)
    back_point = jnp.array([[0.08, 0.5, 0.4], [0.71, 0.3, 0.8]])
    check_grads(jax.jit(back), (back_point,), 1, rtol=1e-5)


def test_the_stack_has_all_spaces_in_the_order_given():
    x = jnp.asarray(IMAGE, jnp.float32)
    stack = color.stack_color_spaces(x)
    assert stack.shape == (5, 4, 14)
    parts = jnp.split(stack, np.cumsum([1, 1, 3, 3, 3]), axis=-1)
    gray = color.rgb_to_gray(x)
    wanted = [gray, color.gray_to_binary(gray), x, color.rgb_to_yuv(x), color.rgb_to_hsv(x)]
    for got, want in zip(parts, [*wanted, color.rgb_to_hsl(x)], strict=True):
        np.testing.assert_array_equal(got, want)
    two = color.stack_color_spaces(x, ["hsl", "gray"])
    np.testing.assert_array_equal(two, jnp.concatenate([parts[5], parts[0]], axis=-1))


# --- adjustments --------------------------------------------------------------------------------


def gray_of(image):
    return image @ np.array([0.299, 0.587, 0.114])


HUE = jax.jit(adjust.adjust_hue)


def turned(image, turn):
    def pixel(r, g, b):
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        return colorsys.hsv_to_rgb((h + turn) % 1.0, s, v)

    return per_pixel(pixel, image.reshape(-1, 3)).reshape(image.shape)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
def test_adjustments_are_torchvisions_formulas(factor, x64):
    x = jnp.asarray(IMAGE)

    def blend(other):
        return np.clip(factor * IMAGE + (1 - factor) * other, 0, 1)

    close = functools.partial(np.testing.assert_allclose, atol=1e-12)
    close(adjust.adjust_brightness(x, factor), blend(0))
    close(adjust.adjust_contrast(x, factor), blend(gray_of(IMAGE).mean()))
    close(adjust.adjust_saturation(x, factor), blend(gray_of(IMAGE)[..., None]))
    for turn in (factor / 4, -factor / 4):
        close(HUE(x, jnp.asarray(turn)), turned(IMAGE, turn), atol=1e-9)


def test_gray_images_are_adjusted_by_their_only_channel(x64):
    gray = jnp.asarray(IMAGE[..., :1])
    mean = IMAGE[..., :1].mean()
    np.testing.assert_allclose(
        adjust.adjust_contrast(gray, 0.5), 0.5 * IMAGE[..., :1] + 0.5 * mean, atol=1e-12
    )
    for same in (adjust.adjust_saturation(gray, 0.3), adjust.adjust_hue(gray, 0.3)):
        np.testing.assert_allclose(same, gray, atol=1e-15)


def test_a_batch_is_adjusted_image_by_image():
    batch = jnp.asarray(np.random.RandomState(2).uniform(size=(3, 5, 4, 3)), jnp.float32)
    for change in (adjust.adjust_contrast, adjust.adjust_saturation, adjust.adjust_hue):
        changed = jax.jit(change)
        whole = changed(batch, jnp.float32(0.4))
        one = jnp.stack([changed(image, jnp.float32(0.4)) for image in batch])
        np.testing.assert_allclose(whole, one, atol=1e-6)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (
            lambda: color.rgb_to_hsv(jnp.zeros((4, 4, 3), jnp.uint8)),
            TypeError,
            r"rgb_to_hsv: x must be floating point in \[0, 1\], got uint8; convert it: "
            r"x\.astype\(jnp\.float32\) / 255",
        ),
        (
            lambda: color.rgb_to_yuv(jnp.zeros((4, 4, 4))),
            ValueError,
            r"rgb_to_yuv: x must have 3 channels on its last axis, got shape \(4, 4, 4\)",
        ),
        (lambda: color.hsl_to_rgb(jnp.zeros(())), ValueError, "must have 3 channels"),
        (
            lambda: color.gray_to_binary(jnp.zeros((2, 1)), 1.5),
            ValueError,
            r"gray_to_binary: threshold must be >= 0 and <= 1, got 1\.5",
        ),
        (
            lambda: color.stack_color_spaces(jnp.zeros((2, 3)), ["rgb", "lab"]),
            ValueError,
            "no color space 'lab'; the names are gray, binary, rgb, yuv, hsv, hsl",
        ),
        (
            lambda: color.stack_color_spaces(jnp.zeros((2, 3)), []),
            ValueError,
            "spaces must be different names, at least one",
        ),
        (
            lambda: color.stack_color_spaces(jnp.zeros((2, 3)), "rgb"),
            TypeError,
            "spaces must be a list of names, got 'rgb'",
        ),
        (
            lambda: adjust.adjust_brightness(jnp.zeros((2, 2, 3)), -0.1),
            ValueError,
            r"adjust_brightness: factor must be >= 0.*got -0\.1",
        ),
        (
            lambda: adjust.adjust_contrast(jnp.zeros((2, 2, 3)), float("nan")),
            ValueError,
            "adjust_contrast: factor must be .*got nan",
        ),
        (
            lambda: adjust.adjust_hue(jnp.zeros((2, 2, 3)), 0.6),
            ValueError,
            r"adjust_hue: turn must be >= -0\.5 and <= 0\.5, got 0\.6",
        ),
        (
            lambda: adjust.adjust_hue(jnp.zeros((2, 2, 3)), jnp.zeros(2)),
            ValueError,
            r"adjust_hue: turn must be one number for the image, got shape \(2,\); use jax\.vmap",
        ),
        (
            lambda: adjust.adjust_saturation(jnp.zeros((2, 3)), 1.0),
            ValueError,
            r"adjust_saturation: x must have shape \(\.\.\., h, w, c\), got \(2, 3\)",
        ),
        (lambda: adjust.adjust_contrast(jnp.zeros((2, 2, 2)), 1), ValueError, "1 or 3 channels"),
    ],
)
def test_errors_say_what_to_do(call, error, told):
    with pytest.raises(error, match=told):
        call()
