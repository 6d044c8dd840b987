"""Augmentations that move pixels: flips, crops, shifts, resized crops."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.geometry import as_int
from jaxd2l.ops.augment.core import Array, Augmentation, Shape, place
from jaxd2l.ops.color import check_image
from jaxd2l.records import as_float, record

ATTEMPTS = 10  # of RandomResizedCrop to find a box that fits, as torchvision


def _size(value: Any, what: str) -> tuple[int, int]:
    """A size: one integer for a square, or (height, width)."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{what} must be an integer or (height, width), got {value!r}")
    return as_int(pair[0], f"{what}: height", 1), as_int(pair[1], f"{what}: width", 1)


def _range(value: Any, what: str, low: float, high: float) -> tuple[float, float]:
    """A range (low, high) of numbers within bounds, the lower one first."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{what} must be a pair (low, high), got {value!r}")
    first = as_float(value[0], f"{what} (low)", low, high)
    last = as_float(value[1], f"{what} (high)", low, high)
    if first > last:
        raise ValueError(f"{what} must be (low, high), the lower one first, got {value!r}")
    return first, last


@record
class RandomFlip(Augmentation):
    """The image mirrored with a probability: left-right (axis 1) or up-down (axis 0).

    Source: torchvision `RandomHorizontalFlip`, `RandomVerticalFlip`; D2L 14.1.

    Example:
      >>> RandomFlip(1)(jax.random.key(0), jnp.array([[[0.0], [0.5], [1.0]]])).ravel().tolist()
      [1.0, 0.5, 0.0]
    """

    probability: float = 0.5
    axis: int = 1

    def __post_init__(self) -> None:
        value = as_float(self.probability, "RandomFlip: probability", 0, 1)
        object.__setattr__(self, "probability", value)
        if self.axis not in (0, 1) or isinstance(self.axis, bool):
            raise ValueError(
                f"RandomFlip: axis must be 1 (left-right) or 0 (up-down), got {self.axis!r}"
            )

    def draw(self, key: Array, image: Array) -> Array:
        flipped = jnp.flip(image, self.axis)
        return jnp.where(jax.random.bernoulli(key, self.probability), flipped, image)


def _crop(key: Array, image: Array, size: tuple[int, int], padding: int) -> Array:
    """A part of `size` at a random place of the image padded with zeros."""
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    h, w, _ = padded.shape
    u = jax.random.uniform(key, (2,), jnp.float32)
    start = place(u[0], h - size[0] + 1), place(u[1], w - size[1] + 1), jnp.int32(0)
    return jax.lax.dynamic_slice(padded, start, (*size, image.shape[2]))


@record
class RandomShift(Augmentation):
    """The image moved by up to `pixels` along each axis, every shift equally likely; zeros come in.

    It is `RandomCrop(size of the image, padding=pixels)`: He et al. 2016 train on CIFAR-10 so, with
    4 pixels.

    Example:
      >>> image = jnp.zeros((5, 5, 1)).at[2, 2].set(1.0)
      >>> moved = RandomShift(2)(jax.random.key(0), image)
      >>> moved.shape, float(moved.sum())
      ((5, 5, 1), 1.0)
    """

    pixels: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", as_int(self.pixels, "RandomShift: pixels", 0))

    def draw(self, key: Array, image: Array) -> Array:
        return _crop(key, image, (image.shape[0], image.shape[1]), self.pixels)


@record
class RandomCrop(Augmentation):
    """A part of `size` (one integer, or (height, width)) at a random place; at test, the centre.

    `padding` pixels of zeros are put around the image first.

    Source: torchvision `RandomCrop`; at test its `CenterCrop`.

    Example:
      >>> RandomCrop((3, 2))(jax.random.key(0), jnp.ones((5, 5, 3))).shape
      (3, 2, 3)
    """

    size: Any
    padding: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _size(self.size, "RandomCrop: size"))
        object.__setattr__(self, "padding", as_int(self.padding, "RandomCrop: padding", 0))

    def output_shape(self, shape: Shape) -> Shape:
        room = tuple(n + 2 * self.padding for n in shape[:2])
        if any(m > n for m, n in zip(self.size, room, strict=True)):
            raise ValueError(
                f"RandomCrop: size {self.size} is larger than the padded image {room}; "
                f"pad more, or resize the images first"
            )
        return (*self.size, shape[2])

    def draw(self, key: Array, image: Array) -> Array:
        return _crop(key, image, self.size, self.padding)

    def at_test(self, image: Array) -> Array:
        self._check(image)
        p = self.padding
        padded = jnp.pad(image, ((p, p), (p, p), (0, 0)))
        top, left = ((n - m) // 2 for n, m in zip(padded.shape, self.size, strict=False))
        return padded[top : top + self.size[0], left : left + self.size[1]]


def _weights(start: Any, length: Any, n_in: int, n_out: int, dtype: Any) -> Array:
    """(n_out, n_in): what each output pixel takes of each input pixel of [start, start + length).

    A triangle around the centre of the output pixel, as wide as two pixels of the input or of the
    output, whichever is larger; its part outside the box is cut off and the rest scaled to sum 1.
    """
    start, length = jnp.asarray(start, dtype), jnp.asarray(length, dtype)
    scale = length / n_out
    centre = start + (jnp.arange(n_out, dtype=dtype) + 0.5) * scale - 0.5
    place = jnp.arange(n_in, dtype=dtype)
    distance = jnp.abs(place[None, :] - centre[:, None]) / jnp.maximum(scale, 1)
    inside = (place >= start) & (place < start + length)
    weights = jnp.where(inside[None, :], jnp.maximum(0, 1 - distance), 0)  # (n_out, n_in)
    return weights / weights.sum(axis=1, keepdims=True)


def resize_box(image: Array, box: Any, size: Any) -> Array:
    """The part `box` of the image, resized to `size`: bilinear, antialiased where it shrinks.

    The box may be traced: the result is two products with matrices of static shape. Nothing
    outside the box is seen. The same as cropping and then Pillow's `resize(..., BILINEAR)`,
    `jax.image.resize(..., "linear")` and torchvision's `resized_crop`.

    Shapes:
      image: (h, w, c); box: (top, left, height, width), integers, inside the image; result:
      (*size, c).

    Raises:
      TypeError, ValueError: image is not (h, w, c) of floating point, or size is not positive.

    Example:
      >>> image = jnp.arange(16.0).reshape(4, 4, 1)
      >>> resize_box(image, (0, 2, 2, 2), 1).ravel().tolist()
      [4.5]
    """
    size = _size(size, "resize_box: size")
    if jnp.ndim(image) != 3:
        raise ValueError(f"resize_box: image must have shape (h, w, c), got {jnp.shape(image)}")
    check_image(image, jnp.shape(image)[-1:], "resize_box: image")
    image = jnp.asarray(image)
    dtype = jnp.dtype(jnp.float32) if image.dtype.itemsize < 4 else image.dtype
    h, w, c = image.shape
    top, left, height, width = box
    rows = _weights(top, height, h, size[0], dtype)
    columns = _weights(left, width, w, size[1], dtype)
    exact = jax.lax.Precision.HIGHEST
    y = jnp.matmul(rows, image.astype(dtype).reshape(h, w * c), precision=exact)
    y = y.reshape(size[0], w, c).transpose(1, 0, 2).reshape(w, size[0] * c)  # (w, h' c)
    y = jnp.matmul(columns, y, precision=exact).reshape(size[1], size[0], c)
    return y.transpose(1, 0, 2).astype(image.dtype)  # (h', w', c)


@record
class RandomResizedCrop(Augmentation):
    """A random part of the image, resized to `size`; at test, the whole image resized.

    The part has a fraction of the area drawn uniformly from `area`, and a ratio width / height
    whose logarithm is drawn uniformly from that of `ratio`. Ten such boxes are drawn and the first
    that fits is taken, at a uniform place; if none fits, the central one of the allowed ratio.

    Source: Szegedy et al. 2015; torchvision `RandomResizedCrop`, whose distribution it has; D2L
    14.1, which takes area (0.1, 1) and ratio (0.5, 2).

    Example:
      >>> crop = RandomResizedCrop(4, area=(0.25, 1.0))
      >>> crop(jax.random.key(0), jnp.ones((10, 12, 3))).shape
      (4, 4, 3)
    """

    size: Any
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        area = _range(self.area, "RandomResizedCrop: area", 0, 1)
        ratio = _range(self.ratio, "RandomResizedCrop: ratio", 0, math.inf)
        if not (area[0] and ratio[0]):
            raise ValueError(
                f"RandomResizedCrop: area and ratio must be above 0, got {area} and {ratio}"
            )
        object.__setattr__(self, "size", _size(self.size, "RandomResizedCrop: size"))
        object.__setattr__(self, "area", area)
        object.__setattr__(self, "ratio", ratio)

    def output_shape(self, shape: Shape) -> Shape:
        return (*self.size, shape[2])

    def box(self, key: Array, height: int, width: int) -> tuple[Array, Array, Array, Array]:
        """The part drawn with `key` of an image of this size: (top, left, height, width)."""
        u = jax.random.uniform(key, (2 * ATTEMPTS + 2,), jnp.float32)  # one draw compiles faster
        low, high = self.area
        areas = (low + (high - low) * u[:ATTEMPTS]) * (height * width)
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratios = jnp.exp(low + (high - low) * u[ATTEMPTS:-2])
        widths = jnp.round(jnp.sqrt(areas * ratios)).astype(jnp.int32)
        heights = jnp.round(jnp.sqrt(areas / ratios)).astype(jnp.int32)
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        first = jnp.argmax(fits)
        found = fits[first]
        # None fits: the whole image, cut to the nearest ratio that is allowed.
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        full_w = max(1, min(width, round(height * ratio)))
        full_h = max(1, min(height, round(width / ratio)))
        w = jnp.where(found, widths[first], full_w)
        h = jnp.where(found, heights[first], full_h)
        top = jnp.where(found, place(u[-2], height - h + 1), (height - full_h) // 2)
        left = jnp.where(found, place(u[-1], width - w + 1), (width - full_w) // 2)
        return top, left, h, w

    def draw(self, key: Array, image: Array) -> Array:
        return resize_box(image, self.box(key, image.shape[0], image.shape[1]), self.size)

    def at_test(self, image: Array) -> Array:
        self._check(image)
        return resize_box(image, (0, 0, *jnp.shape(image)[:2]), self.size)
