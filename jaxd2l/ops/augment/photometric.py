"""Augmentations that change colours and leave every pixel at its place."""

import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxd2l.ops.adjust import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation
from jaxd2l.ops.augment.core import Array, Augmentation, Shape
from jaxd2l.ops.color import rgb_to_gray
from jaxd2l.records import as_float, record

Adjust = Callable[[Array, Array], Array]


class _Adjustment(Augmentation):
    """An adjustment of gray or RGB images, whose strength is drawn from a range around none."""

    amount: float
    maximum: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        what = f"{type(self).__name__}: amount"
        object.__setattr__(self, "amount", as_float(self.amount, what, 0, self.maximum))

    def output_shape(self, shape: Shape) -> Shape:
        if shape[2:] not in ((1,), (3,)):
            raise ValueError(
                f"{type(self).__name__}: the image must have 1 (gray) or 3 (RGB) channels, "
                f"got {shape}"
            )
        return shape


def _scaled(adjust: Adjust, key: Array, image: Array, amount: float) -> Array:
    """`adjust` by a factor from [max(0, 1 - amount), 1 + amount]."""
    low = max(0.0, 1 - amount)
    return adjust(image, jax.random.uniform(key, (), jnp.float32, low, 1 + amount))


@record
class RandomBrightness(_Adjustment):
    """`adjust.adjust_brightness` by a factor uniform in [max(0, 1 - amount), 1 + amount].

    Source: torchvision `ColorJitter(brightness=amount)`; D2L 14.1.

    Example:
      >>> y = RandomBrightness(0.5)(jax.random.key(0), jnp.full((1, 1, 1), 0.5))
      >>> 0.25 <= float(y[0, 0, 0]) <= 0.75
      True
    """

    amount: float

    def draw(self, key: Array, image: Array) -> Array:
        return _scaled(adjust_brightness, key, image, self.amount)


@record
class RandomContrast(_Adjustment):
    """`adjust.adjust_contrast` by a factor uniform in [max(0, 1 - amount), 1 + amount].

    Source: torchvision `ColorJitter(contrast=amount)`; D2L 14.1.

    Example:
      >>> y = RandomContrast(0.5)(jax.random.key(0), jnp.array([[[0.25], [0.75]]]))
      >>> float(y.mean())
      0.5
    """

    amount: float

    def draw(self, key: Array, image: Array) -> Array:
        return _scaled(adjust_contrast, key, image, self.amount)


@record
class RandomSaturation(_Adjustment):
    """`adjust.adjust_saturation` by a factor uniform in [max(0, 1 - amount), 1 + amount].

    Source: torchvision `ColorJitter(saturation=amount)`; D2L 14.1.

    Example:
      >>> gray = jnp.full((2, 2, 3), 0.5)
      >>> bool(jnp.allclose(RandomSaturation(0.5)(jax.random.key(0), gray), gray))
      True
    """

    amount: float

    def draw(self, key: Array, image: Array) -> Array:
        return _scaled(adjust_saturation, key, image, self.amount)


@record
class RandomHue(_Adjustment):
    """`adjust.adjust_hue` by a turn uniform in [-amount, amount]; amount is at most 0.5.

    Source: torchvision `ColorJitter(hue=amount)`; D2L 14.1.

    Example:
      >>> y = RandomHue(0.5)(jax.random.key(0), jnp.array([[[1.0, 0.0, 0.0]]]))
      >>> float(y.max()), float(y.min())
      (1.0, 0.0)
    """

    amount: float
    maximum: ClassVar[float] = 0.5

    def draw(self, key: Array, image: Array) -> Array:
        turn = jax.random.uniform(key, (), jnp.float32, -self.amount, self.amount)
        return adjust_hue(image, turn)


@record
class RandomGray(Augmentation):
    """An RGB image turned gray, its luma on all three channels, with a probability.

    Source: torchvision `RandomGrayscale`.

    Example:
      >>> print(RandomGray(1)(jax.random.key(0), jnp.array([[[1.0, 0.0, 0.0]]])))
      [[[0.299 0.299 0.299]]]
    """

    probability: float

    def __post_init__(self) -> None:
        value = as_float(self.probability, "RandomGray: probability", 0, 1)
        object.__setattr__(self, "probability", value)

    def output_shape(self, shape: Shape) -> Shape:
        if shape[2:] != (3,):
            raise ValueError(f"RandomGray: the image must have 3 channels (RGB), got {shape}")
        return shape

    def draw(self, key: Array, image: Array) -> Array:
        gray = jnp.broadcast_to(rgb_to_gray(image), image.shape)
        return jnp.where(jax.random.bernoulli(key, self.probability), gray, image)
