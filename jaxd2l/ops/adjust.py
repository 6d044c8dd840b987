"""Brightness, contrast, saturation and hue of an image (..., h, w, c), changed by one number.

c is 1 (gray) or 3 (RGB), values in [0, 1]; `ops.augment` draws the number.
"""

import jax
import jax.numpy as jnp

from jaxd2l.ops.color import at_least_float32, check_image, hsv_to_rgb, rgb_to_gray, rgb_to_hsv
from jaxd2l.records import as_float

Array = jax.Array


def _number(value: float | Array, what: str, low: float, high: float, dtype: jnp.dtype) -> Array:
    """A scalar of the image's dtype; range-checked where it is a Python number."""
    if not isinstance(value, jax.Array):
        value = as_float(value, what, low, high)
    if jnp.ndim(value) != 0:
        raise ValueError(
            f"{what} must be one number for the image, got shape {jnp.shape(value)}; use jax.vmap"
        )
    return jnp.asarray(value, dtype)


def _blend(x: Array, other: Array | float, factor: float | Array, what: str) -> Array:
    factor = _number(factor, f"{what}: factor", 0, float("inf"), x.dtype)
    return jnp.clip(factor * x + (1 - factor) * other, 0, 1)


def _gray(x: Array) -> Array:
    return x if x.shape[-1] == 1 else rgb_to_gray(x)


def _adjustable(x: Array, where: str) -> Array:
    check_image(x, (1, 3), f"{where}: x")
    if jnp.ndim(x) < 3:
        raise ValueError(f"{where}: x must have shape (..., h, w, c), got {tuple(jnp.shape(x))}")
    return jnp.asarray(x)


def adjust_brightness(x: Array, factor: float | Array) -> Array:
    """clip(factor x, 0, 1): 0 gives black, 1 the image.

    Shapes:
      x: (..., h, w, c), c 1 or 3; factor: (), at least 0; result: as x, of its dtype.

    Raises:
      TypeError: x is not floating point. ValueError: c is neither 1 nor 3, x is no image, factor
        is not one number, or a negative one. So do all adjustments.

    Source: torchvision `adjust_brightness`; D2L 14.1.

    Example:
      >>> print(adjust_brightness(jnp.array([[[0.25], [0.75]]]), 2).ravel())
      [0.5 1. ]
    """
    x = _adjustable(x, "adjust_brightness")
    return _blend(x, 0, factor, "adjust_brightness")


def adjust_contrast(x: Array, factor: float | Array) -> Array:
    """clip(factor x + (1 - factor) m, 0, 1), m the mean of the image's gray: 0 gives that gray.

    Shapes:
      x: (..., h, w, c), c 1 or 3; factor: (), at least 0; result: as x, of its dtype.

    Raises:
      TypeError, ValueError: as `adjust_brightness`.

    Source: torchvision `adjust_contrast`; D2L 14.1.

    Example:
      >>> adjust_contrast(jnp.array([[[0.25], [0.75]]]), 0.5).ravel().tolist()
      [0.375, 0.625]
    """
    x = _adjustable(x, "adjust_contrast")
    mean = _gray(x).mean(axis=(-3, -2, -1), keepdims=True)
    return _blend(x, mean, factor, "adjust_contrast")


def adjust_saturation(x: Array, factor: float | Array) -> Array:
    """clip(factor x + (1 - factor) gray(x), 0, 1): 0 gives the gray image; gray stays as it is.

    Shapes:
      x: (..., h, w, c), c 1 or 3; factor: (), at least 0; result: as x, of its dtype.

    Raises:
      TypeError, ValueError: as `adjust_brightness`.

    Source: torchvision `adjust_saturation`; D2L 14.1.

    Example:
      >>> print(adjust_saturation(jnp.array([[[1.0, 0.0, 0.0]]]), 0))
      [[[0.299 0.299 0.299]]]
    """
    x = _adjustable(x, "adjust_saturation")
    return _blend(x, _gray(x), factor, "adjust_saturation")


def adjust_hue(x: Array, turn: float | Array) -> Array:
    """The hue turned by `turn` of a full circle, saturation and value kept; gray stays as it is.

    Shapes:
      x: (..., h, w, c), c 1 or 3; turn: (), in [-0.5, 0.5]; result: as x, of its dtype.

    Raises:
      TypeError, ValueError: as `adjust_brightness`; a turn outside [-0.5, 0.5].

    Source: torchvision `adjust_hue`; D2L 14.1.

    Example:
      >>> adjust_hue(jnp.array([[[1.0, 0.0, 0.0]]]), 1 / 3).round(4).ravel().tolist()
      [0.0, 1.0, 0.0]
    """
    x = _adjustable(x, "adjust_hue")
    wide = at_least_float32(x)
    turn = _number(turn, "adjust_hue: turn", -0.5, 0.5, wide.dtype)
    if x.shape[-1] == 1:
        return x
    hsv = rgb_to_hsv(wide)
    hsv = jnp.concatenate([hsv[..., :1] + turn, hsv[..., 1:]], axis=-1)
    return hsv_to_rgb(hsv).astype(x.dtype)
