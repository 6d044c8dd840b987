"""What an augmentation is, several in a row, and a batch of images with one key for each."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.ops.color import check_image
from jaxd2l.ops.randomness import example_keys
from jaxd2l.records import is_record, record

Array = jax.Array
Shape = tuple[int, ...]


class Augmentation:
    """Base of all augmentations: a function (key, image) -> image of one image (h, w, c).

    Subclass it, decorate with `@record`, and write `draw`. One that gives another size than it
    gets also writes `output_shape`, and `at_test`, which brings an image to that size without
    chance.

    Example:
      >>> @record
      ... class Noise(Augmentation):
      ...     scale: float
      ...     def draw(self, key, image):
      ...         return image + self.scale * jax.random.normal(key, image.shape, image.dtype)
      >>> Noise(0.1)(jax.random.key(0), jnp.zeros((4, 4, 1))).shape
      (4, 4, 1)
    """

    def __call__(self, key: Array, image: Array) -> Array:
        """The augmented image; the same key gives the same image.

        Shapes:
          key: (), one PRNG key; image: (h, w, c) in [0, 1]; result: `output_shape` of that.

        Raises:
          TypeError: the image is not floating point. ValueError: it is no image, or unfit.
        """
        self._check(image)
        return self.draw(key, jnp.asarray(image))

    def draw(self, key: Array, image: Array) -> Array:
        """What `__call__` gives for an image whose shape is known to be right."""
        raise NotImplementedError(f"{type(self).__name__} must define draw(key, image)")

    def output_shape(self, shape: Shape) -> Shape:
        """The shape for an image of `shape` (h, w, c); ValueError for unfit ones."""
        return shape

    def at_test(self, image: Array) -> Array:
        """The image as a test sees it: unchanged, or brought to the output size without chance."""
        self._check(image)
        return jnp.asarray(image)

    def _check(self, image: Any) -> None:
        where = type(self).__name__
        if jnp.ndim(image) != 3:
            raise ValueError(
                f"{where}: the image must have shape (h, w, c), got {tuple(jnp.shape(image))}; "
                f"for a batch use augment(key, batch, step) or jax.vmap(step)(keys, batch)"
            )
        check_image(image, (jnp.shape(image)[-1],), f"{where}: the image")
        self.output_shape(tuple(jnp.shape(image)))


@record
class Compose(Augmentation):
    """Augmentations one after another; step i draws with `fold_in(key, i)`.

    Raises:
      TypeError: a step is not an augmentation record. ValueError: there is none.

    Example:
      >>> from jaxd2l.ops.augment import RandomFlip, RandomShift
      >>> step = Compose([RandomFlip(), RandomShift(2)])
      >>> step
      Compose(steps=(RandomFlip(), RandomShift(pixels=2)))
      >>> step(jax.random.key(0), jnp.ones((8, 8, 3))).shape
      (8, 8, 3)
    """

    steps: Sequence[Augmentation]

    def __post_init__(self) -> None:
        if isinstance(self.steps, Augmentation) or not isinstance(self.steps, Sequence):
            raise TypeError(f"Compose: steps must be a list of augmentations, got {self.steps!r}")
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise ValueError("Compose: steps is empty")
        for step in self.steps:
            check_step(step, "Compose")

    def draw(self, key: Array, image: Array) -> Array:
        for i, step in enumerate(self.steps):
            image = step(jax.random.fold_in(key, i), image)
        return image

    def output_shape(self, shape: Shape) -> Shape:
        for step in self.steps:
            shape = step.output_shape(shape)
        return shape

    def at_test(self, image: Array) -> Array:
        for step in self.steps:
            image = step.at_test(image)
        return image


def place(u: Array, count: Any) -> Array:
    """A uniform number of [0, 1) as an integer of [0, count); the count may be traced.

    JAX draws multiples of 2^-23, so no count below 2^23 is reached by rounding.

    Example:
      >>> int(place(jnp.float32(0.7), 3))
      2
    """
    return (u * jnp.asarray(count, jnp.float32)).astype(jnp.int32)


def check_step(step: Any, where: str) -> None:
    """Refuse what is not an augmentation record.

    Example:
      >>> check_step(jnp.flip, "Compose")
      Traceback (most recent call last):
      TypeError: Compose: expected an augmentation such as RandomFlip(), got function
    """
    if not isinstance(step, Augmentation) or not is_record(step):
        got = f"the class {step.__name__}" if isinstance(step, type) else type(step).__name__
        raise TypeError(f"{where}: expected an augmentation such as RandomFlip(), got {got}")


def augment(
    key: Array, images: Array, step: Augmentation, *, examples: Array | None = None
) -> Array:
    """A batch of images, each drawn with the key of its index: `step(fold_in(key, index), image)`.

    The same key and index give the same image, whatever the size of the batch and the device. The
    default indices 0 ... n-1 are right under `jit`, over a sharded batch too; under `pmap` and
    `shard_map` pass those of the local images in the global batch. Use another key in each epoch.

    Shapes:
      key: (), one PRNG key; images: (n, h, w, c) in [0, 1]; examples: (n,), integers; result:
      (n, *step.output_shape((h, w, c))).

    Raises:
      TypeError: step is not an augmentation record, images are not floating point, examples are
        not integers.
      ValueError: images is not (n, h, w, c) or unfit for the step, examples is not (n,).

    Example:
      >>> from jaxd2l.ops.augment import RandomFlip
      >>> images = jnp.arange(24.0).reshape(4, 2, 3, 1) / 24
      >>> whole = augment(jax.random.key(0), images, RandomFlip())
      >>> half = augment(jax.random.key(0), images[2:], RandomFlip(), examples=jnp.arange(2, 4))
      >>> bool((whole[2:] == half).all())
      True
    """
    check_step(step, "augment")
    if jnp.ndim(images) != 4:
        raise ValueError(
            f"augment: images must have shape (n, h, w, c), got {tuple(jnp.shape(images))}"
        )
    keys = example_keys(key, jnp.shape(images)[0], examples, "augment")
    return jax.vmap(step)(keys, jnp.asarray(images))
