"""Weights by class, for data in which some classes are rare."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.checks import check_floating, check_integer, check_rank
from jaxd2l.ops.labels import pick

Array = jax.Array


def balanced_weights(counts: Any) -> Array:
    """`n / (c n_k)`: the weights with which every class counts the same in the sum of the losses.

    They sum to n over the n examples, so that the mean loss keeps its size.

    Shapes:
      counts: (c,), how many examples each class has, on the host; result: (c,), float32.

    Raises:
      ValueError: counts is not (c,), or a class has no example.

    Source: King and Zeng 2001. Equal to scikit-learn's `compute_class_weight("balanced")`.

    Example:
      >>> balanced_weights([30, 10])
      Array([0.6666667, 2.       ], dtype=float32)
    """
    values = np.asarray(counts, np.float64)
    if values.ndim != 1 or not values.size or not (values > 0).all():
        raise ValueError(
            f"balanced_weights: counts must be (classes,), each above 0, got {values.tolist()}; "
            f"np.bincount(labels, minlength=classes) gives them"
        )
    return jnp.asarray(values.sum() / (values.size * values), jnp.float32)


def weigh_classes(values: Array, labels: Array, weights: Array) -> Array:
    """`weights[label] value`: losses, one for each example, weighed by the class of its label.

    A label outside `[0, c)` gives NaN.

    Shapes:
      values, labels: (...), the same, labels integers; weights: (c,); result: (...).

    Raises:
      TypeError: labels are not integers, or values or weights not floating point.
      ValueError: the shapes do not match.

    Source: PyTorch's `cross_entropy(weight=...)` gives the same values; its mean divides by the sum
    of the weights in the batch, a mean of these by the number of examples.

    Example:
      >>> from jaxd2l.ops.losses import softmax_cross_entropy
      >>> logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> weigh_classes(softmax_cross_entropy(logits, labels), labels, jnp.array([1.0, 3.0]))
      Array([0.6931472, 2.0794415], dtype=float32)
    """
    check_floating(values, "weigh_classes: values")
    check_floating(weights, "weigh_classes: weights")
    check_integer(labels, "weigh_classes: labels")
    check_rank(weights, 1, "weigh_classes: weights", "(classes,)")
    if jnp.shape(values) != jnp.shape(labels):
        raise ValueError(
            f"weigh_classes: there must be one value for each label, got values "
            f"{jnp.shape(values)} and labels {jnp.shape(labels)}"
        )
    values, weights = jnp.asarray(values), jnp.asarray(weights)
    table = jnp.broadcast_to(weights.astype(values.dtype), (*values.shape, weights.shape[0]))
    return values * pick(table, labels)
