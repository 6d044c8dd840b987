"""Augmentations that take something away or mix two images: cut-out and mixup."""

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating
from jaxd2l.geometry import as_int
from jaxd2l.ops.augment.core import Array, Augmentation, place
from jaxd2l.records import as_float, record


@record
class CutOut(Augmentation):
    """A square of `size` pixels around a random pixel set to `fill`; its part outside is cut off.

    Every pixel is the centre with the same probability, so squares at the border are smaller, which
    the paper found to matter. Rows and columns [centre - size // 2, centre - size // 2 + size).

    The paper fills with zeros after standardising, which is the mean of the pixels before it.

    Source: DeVries & Taylor 2017, "Improved regularization of CNNs with cutout".

    Example:
      >>> y = CutOut(3)(jax.random.key(0), jnp.ones((8, 8, 1)))
      >>> 4 <= int((y == 0).sum()) <= 9
      True
    """

    size: int
    fill: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", as_int(self.size, "CutOut: size", 1))
        object.__setattr__(self, "fill", as_float(self.fill, "CutOut: fill"))

    def draw(self, key: Array, image: Array) -> Array:
        def cut(centre: Array, n: int) -> Array:
            distance = jnp.arange(n, dtype=jnp.int32) - centre + self.size // 2
            return (distance >= 0) & (distance < self.size)

        h, w, _ = image.shape
        u = jax.random.uniform(key, (2,), jnp.float32)
        rows, columns = cut(place(u[0], h), h), cut(place(u[1], w), w)
        hole = rows[:, None, None] & columns[None, :, None]  # (h, w, 1)
        return jnp.where(hole, jnp.asarray(self.fill, image.dtype), image)


def mixup(key: Array, images: Array, targets: Array, alpha: float) -> tuple[Array, Array]:
    """Each example mixed with another one: r x + (1 - r) x', the targets likewise.

    One r ~ Beta(alpha, alpha) for the batch and one random order of its examples, as in the
    authors' code. The result depends on the whole batch, so it is drawn before a batch is
    divided over devices. Train on it with
    `losses.softmax_cross_entropy_with_probabilities`.

    Shapes:
      key: (), one PRNG key; images: (n, ...); targets: (n, k) one-hot or probabilities; result:
      as images and targets, of their dtypes.

    Raises:
      TypeError: images or targets are not floating point (labels: `jax.nn.one_hot` first).
      ValueError: alpha is not above 0, targets is not (n, k), or the lengths differ.

    Source: Zhang et al. 2018, "mixup: beyond empirical risk minimization".

    Example:
      >>> x, y = mixup(jax.random.key(0), jnp.eye(4), jnp.eye(4), alpha=0.2)
      >>> bool(jnp.allclose(y.sum(axis=1), 1)), bool((x == y).all())
      (True, True)
    """
    alpha = as_float(alpha, "mixup: alpha", 0)
    if alpha == 0:
        raise ValueError("mixup: alpha must be above 0; 0 would leave the images as they are")
    check_floating(images, "mixup: images")
    if jnp.issubdtype(jnp.result_type(targets), jnp.integer):
        raise TypeError(
            "mixup: targets must be one-hot, got integer labels; "
            "convert them with jax.nn.one_hot(labels, classes)"
        )
    check_floating(targets, "mixup: targets")
    if jnp.ndim(targets) != 2 or jnp.shape(images)[:1] != jnp.shape(targets)[:1]:
        raise ValueError(
            f"mixup: targets must have shape (n, k) for images (n, ...), got "
            f"{tuple(jnp.shape(targets))} and {tuple(jnp.shape(images))}"
        )
    k_ratio, k_order = jax.random.split(key)
    ratio = jax.random.beta(k_ratio, alpha, alpha, dtype=jnp.float32)
    order = jax.random.permutation(k_order, jnp.shape(images)[0])

    def mix(x: Array) -> Array:
        r = ratio.astype(x.dtype)
        return r * x + (1 - r) * x[order]

    return mix(jnp.asarray(images)), mix(jnp.asarray(targets))
