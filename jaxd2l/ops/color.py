"""Color spaces of RGB images.

Conversions act on the last axis of (..., 3) arrays with values in [0, 1]; they are pure, keep the
dtype and have finite gradients everywhere. The constants are those of ITU-R BT.601 (1982), as in
JPEG, PAL and Pillow:

    gray  Y = 0.299 R + 0.587 G + 0.114 B
    YUV   U = 0.436 (B - Y) / (1 - 0.114),  V = 0.615 (R - Y) / (1 - 0.299)
    HSV   V = max,           S = (max - min) / max
    HSL   L = (max + min)/2, S = (max - min) / (1 - |2 L - 1|)
    hue   H = one sixth of: (G - B)/d mod 6 where R is the maximum, (B - R)/d + 2 where G is,
          (R - G)/d + 4 where B is; d = max - min, and H = S = 0 where it is 0.

H is in [0, 1) (turns, not degrees), U in [-0.436, 0.436], V in [-0.615, 0.615], all else in [0, 1].
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxd2l.records import as_float

Array = jax.Array

LUMA = (0.299, 0.587, 0.114)  # weights of R, G, B in Y: BT.601
U_MAX, V_MAX = 0.436, 0.615


def check_image(x: Array, channels: Sequence[int], what: str) -> None:
    """Refuse what is not a floating point image with one of these numbers of channels.

    Example:
      >>> check_image(jnp.zeros((2, 2, 3), jnp.uint8), (3,), "rgb_to_gray: x")
      Traceback (most recent call last):
      TypeError: rgb_to_gray: x must be floating point in [0, 1], got uint8; convert it: \
x.astype(jnp.float32) / 255
    """
    dtype = jnp.result_type(x)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{what} must be floating point in [0, 1], got {dtype}; convert it: "
            f"x.astype(jnp.float32) / 255"
        )
    shape = tuple(jnp.shape(x))
    if shape[-1:] not in {(c,) for c in channels}:
        wanted = " or ".join(str(c) for c in channels)
        raise ValueError(f"{what} must have {wanted} channels on its last axis, got shape {shape}")


def at_least_float32(x: Array) -> Array:
    """At least float32: six sectors of a hue need more digits than bfloat16 has."""
    x = jnp.asarray(x)
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def _parts(x: Array, what: str) -> tuple[Array, Array, Array]:
    check_image(x, (3,), what)
    x = at_least_float32(x)
    return x[..., 0], x[..., 1], x[..., 2]


def _stack(x: Array, *parts: Array) -> Array:
    """The channels of a new color space, in the dtype of x."""
    return jnp.stack(parts, axis=-1).astype(jnp.result_type(x))


def _luma(r: Array, g: Array, b: Array) -> Array:
    return LUMA[0] * r + LUMA[1] * g + LUMA[2] * b


def rgb_to_gray(x: Array) -> Array:
    """The luma Y = 0.299 R + 0.587 G + 0.114 B.

    Shapes:
      x: (..., 3); result: (..., 1).

    Raises:
      TypeError: x is not floating point. ValueError: its last axis is not 3. So do all conversions.

    Source: ITU-R BT.601. torchvision's tensors take 0.2989 for 0.299.

    Example:
      >>> print(rgb_to_gray(jnp.array([1.0, 0.5, 0.0])))
      [0.5925]
    """
    return _stack(x, _luma(*_parts(x, "rgb_to_gray: x")))


def gray_to_binary(x: Array, threshold: float = 0.5) -> Array:
    """1 where x > threshold, else 0; the gradient is zero.

    Shapes:
      x: (..., 1); result: (..., 1), of the dtype of x.

    Raises:
      TypeError, ValueError: as `rgb_to_gray`, for 1 channel; the threshold is not in [0, 1].

    Example:
      >>> gray_to_binary(jnp.array([[0.2], [0.7]])).tolist()
      [[0.0], [1.0]]
    """
    check_image(x, (1,), "gray_to_binary: x")
    threshold = as_float(threshold, "gray_to_binary: threshold", 0, 1)
    return (x > threshold).astype(jnp.result_type(x))


def rgb_to_yuv(x: Array) -> Array:
    """Luma and two differences of colour: see the module for the formula.

    Shapes:
      x: (..., 3), R G B; result: (..., 3), Y U V.

    Source: ITU-R BT.601, analogue ranges, as `tf.image.rgb_to_yuv`.

    Example:
      >>> blue = rgb_to_yuv(jnp.array([0.0, 0.0, 1.0]))
      >>> bool(jnp.allclose(blue, jnp.array([0.114, 0.436, -0.1]), atol=1e-4))
      True
    """
    r, g, b = _parts(x, "rgb_to_yuv: x")
    y = _luma(r, g, b)
    u = (b - y) * (U_MAX / (1 - LUMA[2]))
    v = (r - y) * (V_MAX / (1 - LUMA[0]))
    return _stack(x, y, u, v)


def yuv_to_rgb(x: Array) -> Array:
    """The inverse of `rgb_to_yuv`.

    Shapes:
      x: (..., 3), Y U V; result: (..., 3), R G B.

    Example:
      >>> x = jnp.array([0.25, 0.5, 0.75])
      >>> bool(jnp.allclose(yuv_to_rgb(rgb_to_yuv(x)), x))
      True
    """
    y, u, v = _parts(x, "yuv_to_rgb: x")
    b = y + u * ((1 - LUMA[2]) / U_MAX)
    r = y + v * ((1 - LUMA[0]) / V_MAX)
    g = (y - LUMA[0] * r - LUMA[2] * b) / LUMA[1]
    return _stack(x, r, g, b)


def _divide(a: Array, b: Array) -> Array:
    """a / b, and 0 with a zero gradient where b is 0."""
    nothing = b == 0
    return jnp.where(nothing, 0, a / jnp.where(nothing, 1, b))


def _hue(r: Array, g: Array, b: Array, top: Array, d: Array) -> Array:
    sixths = jnp.where(
        top == r,
        _divide(g - b, d),
        jnp.where(top == g, _divide(b - r, d) + 2, _divide(r - g, d) + 4),
    )
    sixths = jnp.where(sixths < 0, sixths + 6, sixths)
    return jnp.where(sixths >= 6, 0, sixths) / 6  # -1e-9 + 6 is 6


def rgb_to_hsv(x: Array) -> Array:
    """Hue, saturation, value: see the module for the formula.

    Shapes:
      x: (..., 3), R G B; result: (..., 3), H S V in [0, 1].

    Source: Smith 1978, "Color gamut transform pairs"; Python's `colorsys.rgb_to_hsv`.

    Example:
      >>> rgb_to_hsv(jnp.array([0.25, 0.5, 0.5])).tolist()
      [0.5, 0.5, 0.5]
    """
    r, g, b = _parts(x, "rgb_to_hsv: x")
    top, low = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    d = top - low
    return _stack(x, _hue(r, g, b, top, d), _divide(d, top), top)


def hsv_to_rgb(x: Array) -> Array:
    """The inverse of `rgb_to_hsv`: c(n) = V - V S max(0, min(k, 4 - k, 1)), k = (n + 6 H) mod 6.

    R, G and B are c(5), c(3) and c(1). The hue is periodic.

    Shapes:
      x: (..., 3), H S V; result: (..., 3), R G B.

    Example:
      >>> hsv_to_rgb(jnp.array([1 / 3, 1.0, 0.5])).tolist()
      [0.0, 0.5, 0.0]
    """
    h, s, v = _parts(x, "hsv_to_rgb: x")

    def channel(n: int) -> Array:
        k = jnp.mod(n + 6 * h, 6)
        return v - v * s * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return _stack(x, channel(5), channel(3), channel(1))


def rgb_to_hsl(x: Array) -> Array:
    """Hue, saturation, lightness: see the module for the formula.

    Shapes:
      x: (..., 3), R G B; result: (..., 3), H S L in [0, 1].

    Source: Joblove & Greenberg 1978; Python's `colorsys.rgb_to_hls`, which orders them H L S.

    Example:
      >>> rgb_to_hsl(jnp.array([0.0, 0.5, 0.5])).tolist()
      [0.5, 1.0, 0.25]
    """
    r, g, b = _parts(x, "rgb_to_hsl: x")
    top, low = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    d, total = top - low, top + low
    saturation = _divide(d, jnp.where(total > 1, 2 - top - low, total))
    return _stack(x, _hue(r, g, b, top, d), saturation, total / 2)


def hsl_to_rgb(x: Array) -> Array:
    """The inverse of `rgb_to_hsl`: c(n) = L - S min(L, 1 - L) max(-1, min(k - 3, 9 - k, 1)).

    k = (n + 12 H) mod 12; R, G and B are c(0), c(8) and c(4). The hue is periodic.

    Shapes:
      x: (..., 3), H S L; result: (..., 3), R G B.

    Example:
      >>> hsl_to_rgb(jnp.array([0.0, 1.0, 0.25])).tolist()
      [0.5, 0.0, 0.0]
    """
    h, s, light = _parts(x, "hsl_to_rgb: x")
    half = s * jnp.minimum(light, 1 - light)

    def channel(n: int) -> Array:
        k = jnp.mod(n + 12 * h, 12)
        return light - half * jnp.clip(jnp.minimum(k - 3, 9 - k), -1, 1)

    return _stack(x, channel(0), channel(8), channel(4))


def _same(x: Array) -> Array:
    check_image(x, (3,), "stack_color_spaces: x")
    return jnp.asarray(x)


def _binary(x: Array) -> Array:
    return gray_to_binary(rgb_to_gray(x))


#: Conversions from RGB, with the number of channels they give.
COLOR_SPACES: dict[str, tuple[Callable[[Array], Array], int]] = {
    "gray": (rgb_to_gray, 1),
    "binary": (_binary, 1),
    "rgb": (_same, 3),
    "yuv": (rgb_to_yuv, 3),
    "hsv": (rgb_to_hsv, 3),
    "hsl": (rgb_to_hsl, 3),
}


def check_spaces(spaces: Sequence[str], where: str) -> tuple[str, ...]:
    """`spaces` as a tuple of different names of `COLOR_SPACES`, at least one.

    Example:
      >>> check_spaces(["lab"], "ColorSpaces")
      Traceback (most recent call last):
      ValueError: ColorSpaces: no color space 'lab'; the names are gray, binary, rgb, yuv, hsv, hsl
    """
    if isinstance(spaces, str) or not isinstance(spaces, Sequence):
        raise TypeError(f"{where}: spaces must be a list of names, got {spaces!r}")
    names = tuple(spaces)
    for name in names:
        if name not in COLOR_SPACES:
            raise ValueError(
                f"{where}: no color space {name!r}; the names are {', '.join(COLOR_SPACES)}"
            )
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{where}: spaces must be different names, at least one, got {names}")
    return names


def stack_color_spaces(x: Array, spaces: Sequence[str] = tuple(COLOR_SPACES)) -> Array:
    """An RGB image in several colour spaces at once, stacked on the channels in the given order.

    All six give 1 + 1 + 3 + 3 + 3 + 3 = 14 channels: gray, binary (gray > 0.5), RGB, YUV, HSV, HSL.

    Shapes:
      x: (..., 3); result: (..., sum of the channels of the spaces).

    Raises:
      TypeError, ValueError: as `rgb_to_gray`; an unknown space, none, or one twice.

    Source: Gowda & Yuan 2018, "ColorNet"; catalogue DA6.

    Example:
      >>> stack_color_spaces(jnp.ones((8, 8, 3))).shape
      (8, 8, 14)
    """
    names = check_spaces(spaces, "stack_color_spaces")
    return jnp.concatenate([COLOR_SPACES[name][0](x) for name in names], axis=-1)
