"""Integer labels: checked on the host, and used to pick one score of each row."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.checks import check_floating, check_integer

Array = jax.Array


def check_classes(scores: Any, labels: Any, where: str, name: str) -> None:
    """Refuse integer `labels` (...) that do not go with `scores` (..., c), one row a label.

    Example:
      >>> check_classes(jnp.zeros((4, 10)), jnp.zeros((4, 1), int), "accuracy", "logits")
      Traceback (most recent call last):
      ValueError: accuracy: labels must have the shape of logits without its last axis (the
      classes); got labels (4, 1) for logits (4, 10)
    """
    check_floating(scores, f"{where}: {name}")
    check_integer(labels, f"{where}: labels")
    shape, wanted = tuple(jnp.shape(labels)), tuple(jnp.shape(scores))
    if not wanted or shape != wanted[:-1]:
        raise ValueError(
            f"{where}: labels must have the shape of {name} without its last axis (the classes); "
            f"got labels {shape} for {name} {wanted}"
        )


def check_labels(labels: Any, num_classes: int) -> None:
    """Refuse labels outside `[0, num_classes)`. For the host, when data is loaded, not for `jit`.

    Shapes:
      labels: (...), integers.

    Raises:
      TypeError: not integers.
      ValueError: names the first label that is out of range, and its index.

    Example:
      >>> check_labels(np.array([0, 9, 10]), 10)
      Traceback (most recent call last):
      ValueError: check_labels: labels[2] is 10, outside [0, 10); there are 10 classes
    """
    check_integer(labels, "check_labels: labels")
    values = np.asarray(labels)
    bad = (values < 0) | (values >= num_classes)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"check_labels: labels[{', '.join(map(str, at))}] is {values[at]}, outside "
            f"[0, {num_classes}); there are {num_classes} classes"
        )


def widen(labels: Array) -> Array:
    """Integers of at least 32 bits: 8-bit labels cannot be compared with 300 classes.

    Example:
      >>> widen(jnp.array([255], jnp.uint8)).dtype
      dtype('int32')
    """
    labels = jnp.asarray(labels)
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def pick(values: Array, labels: Array) -> Array:
    """The entry of the last axis that each label names: `values[..., labels]`.

    A label outside `[0, c)`, negative ones included, gives NaN and gradient 0.

    Shapes:
      values: (..., c); labels: (...), integers; result: (...).

    Raises:
      TypeError: labels are not integers, or values not floating point.
      ValueError: the shapes do not match.

    Source: D2L 4.4.3 (older edition 3.6: `pick`). PyTorch's `gather` raises for labels out of
    range.

    Example:
      >>> pick(jnp.array([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5]]), jnp.array([0, 2]))
      Array([0.1, 0.5], dtype=float32)
    """
    check_classes(values, labels, "pick", "values")
    values, labels = jnp.asarray(values), widen(labels)
    beyond = jnp.asarray(values.shape[-1], labels.dtype)
    index = jnp.expand_dims(jnp.where(labels < 0, beyond, labels), -1)  # (..., 1)
    picked = jnp.take_along_axis(values, index, axis=-1, mode="fill", fill_value=jnp.nan)
    return jnp.squeeze(picked, -1)


def smooth_labels(
    labels: Array, num_classes: int, smoothing: float, dtype: Any = jnp.float32
) -> Array:
    """Label smoothing: `(1 - s) one_hot(label) + s / c`, targets that are never 0 or 1.

    For `losses.softmax_cross_entropy_with_probabilities`. The loss is (1 - s) CE(label) + s times
    the mean over all classes of CE, and its minimum has finite logits. A label outside `[0, c)`
    gives NaN.

    Shapes:
      labels: (...), integers; result: (..., num_classes), floating point, rows that sum to 1.

    Raises:
      TypeError: labels are not integers.
      ValueError: smoothing is not in [0, 1].

    Source: Szegedy et al. 2016, section 7. Equal to PyTorch's `label_smoothing` and
    `optax.smooth_labels` of one-hot labels.

    Example:
      >>> smooth_labels(jnp.array([1]), 4, 0.2)
      Array([[0.05, 0.85, 0.05, 0.05]], dtype=float32)
    """
    check_integer(labels, "smooth_labels: labels")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smooth_labels: smoothing must be in [0, 1], got {smoothing}")
    labels = jnp.expand_dims(widen(labels), -1)  # (..., 1)
    shape = (*labels.shape[:-1], num_classes)
    hit = labels == jax.lax.broadcasted_iota(labels.dtype, shape, len(shape) - 1)
    low = smoothing / num_classes
    smooth = jnp.where(hit, jnp.asarray(1 - smoothing + low, dtype), jnp.asarray(low, dtype))
    return jnp.where((labels >= 0) & (labels < num_classes), smooth, jnp.asarray(jnp.nan, dtype))
