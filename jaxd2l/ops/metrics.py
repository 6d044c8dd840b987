"""Metrics: accuracy, perplexity, confusion matrix, norms of gradients; all work under `jit`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_integer, check_same_shape
from jaxd2l.geometry import as_int
from jaxd2l.ops.labels import check_classes, widen
from jaxd2l.ops.losses import masked_mean
from jaxd2l.ops.vector_norms import lp_norm

Array = jax.Array


class PerClassMetrics(NamedTuple):
    """One value per class; see `per_class_metrics`."""

    precision: Array
    recall: Array
    f1: Array
    support: Array


def correct(logits: Array, labels: Array) -> Array:
    """True where the largest logit is the label's; the first of equal ones counts.

    Shapes:
      logits: (..., c); labels: (...), integers; result: (...), boolean.

    Raises:
      TypeError: labels are not integers, or logits not floating point.
      ValueError: the shapes do not match.

    Source: D2L 4.3.

    Example:
      >>> correct(jnp.array([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5]]), jnp.array([0, 2]))
      Array([False,  True], dtype=bool)
    """
    check_classes(logits, labels, "correct", "logits")
    labels = widen(labels)
    return jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels


def accuracy(logits: Array, labels: Array, mask: Array | None = None) -> Array:
    """Share of the examples that are `correct`, over those whose mask is True; float32.

    Shapes:
      logits: (..., c); labels: (...), integers; mask: (...), boolean; result: ().

    Raises:
      TypeError, ValueError: as `correct` and `masked_mean`.

    Source: D2L 4.3.

    Example:
      >>> accuracy(jnp.array([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5]]), jnp.array([0, 2]))
      Array(0.5, dtype=float32)
    """
    return masked_mean(correct(logits, labels).astype(jnp.float32), mask)


def perplexity(cross_entropies: Array, mask: Array | None = None) -> Array:
    """`exp(mean(cross_entropies))`, in [1, inf); a uniform guess among V tokens gives V.

    The mean is over all tokens whose mask is True, so a batch of sentences of different lengths is
    weighted by token, not by sentence.

    Shapes:
      cross_entropies: (...), in nats, one a token; mask: the same, boolean; result: ().

    Raises:
      TypeError, ValueError: as `masked_mean`.

    Source: D2L 9.3.

    Example:
      >>> perplexity(jnp.zeros((2, 3)))
      Array(1., dtype=float32)
    """
    return jnp.exp(masked_mean(cross_entropies, mask))


def confusion_matrix(
    labels: Array, predictions: Array, num_classes: int, mask: Array | None = None
) -> Array:
    """How often class i (row) was taken for class j (column).

    Pairs with a class outside `[0, num_classes)` are not counted. Matrices of batches add up.

    Shapes:
      labels, predictions: (...), integers, the same; mask: the same, boolean;
      result: (num_classes, num_classes), int32.

    Raises:
      TypeError: not integers, or the mask is not boolean.
      ValueError: the shapes differ, or num_classes is less than 1.

    Example:
      >>> confusion_matrix(jnp.array([0, 0, 1]), jnp.array([0, 1, 1]), 2)
      Array([[1, 1],
             [0, 1]], dtype=int32)
    """
    num_classes = as_int(num_classes, "confusion_matrix: num_classes", 1)
    check_integer(labels, "confusion_matrix: labels")
    check_integer(predictions, "confusion_matrix: predictions")
    check_same_shape(labels, predictions, "confusion_matrix: labels and predictions")
    rows, columns = (widen(jnp.ravel(i)) for i in (labels, predictions))  # (n,)
    counted = (rows >= 0) & (rows < num_classes) & (columns >= 0) & (columns < num_classes)
    if mask is not None:
        if jnp.result_type(mask) != jnp.bool_:
            raise TypeError(f"confusion_matrix: mask must be boolean, got {jnp.result_type(mask)}")
        check_same_shape(labels, mask, "confusion_matrix: labels and mask")
        counted &= jnp.ravel(mask)
    rows, columns = (jnp.where(counted, i, 0).astype(jnp.int32) for i in (rows, columns))
    counts = jnp.zeros((num_classes, num_classes), jnp.int32)
    return counts.at[rows, columns].add(counted.astype(jnp.int32))


def per_class_metrics(confusion: Array) -> PerClassMetrics:
    """Precision, recall, F1 and support of each class, from a confusion matrix.

    `precision = TP / column sum`, `recall = TP / row sum`, `f1 = 2 TP / (row sum + column sum)`,
    `support = row sum`. 0/0 is 0: a class never predicted has precision 0.

    Shapes:
      confusion: (c, c), rows true, columns predicted; precision, recall, f1: (c,), float32;
      support: (c,), int32.

    Raises:
      ValueError: not a square matrix.

    Source: equal to scikit-learn's `precision_recall_fscore_support(zero_division=0)`.

    Example:
      >>> per_class_metrics(jnp.array([[1, 1], [0, 1]])).recall
      Array([0.5, 1. ], dtype=float32)
    """
    shape = tuple(jnp.shape(confusion))
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"per_class_metrics: confusion must have shape (c, c), got {shape}")
    counts = jnp.asarray(confusion).astype(jnp.int32)
    hits, support, predicted = jnp.diagonal(counts), counts.sum(1), counts.sum(0)

    def ratio(a: Array, b: Array) -> Array:
        return a.astype(jnp.float32) / jnp.maximum(b, 1).astype(jnp.float32)

    f1 = ratio(2 * hits, support + predicted)
    return PerClassMetrics(ratio(hits, predicted), ratio(hits, support), f1, support)


def _wide(leaf: Any) -> Array:
    x = jnp.asarray(leaf)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def gradient_norms(grads: Any) -> dict[str, Array]:
    """The L2 norm of every leaf, by path: shows vanishing and exploding gradients layer by layer.

    Shapes:
      grads: a tree of floating point arrays; result: {"block/dense/kernel": ()}, float32 (float64
      for float64 leaves).

    Raises:
      TypeError: a leaf is not floating point; its path is named.

    Source: D2L 5.4.

    Example:
      >>> gradient_norms({"dense": {"kernel": jnp.array([[3.0, 4.0]])}})
      {'dense/kernel': Array(5., dtype=float32)}
    """
    norms = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        check_floating(leaf, f"gradient_norms: leaf {text!r}")
        norms[text] = lp_norm(_wide(leaf), 2)
    return norms


def global_norm(grads: Any) -> Array:
    """The L2 norm of all leaves together, as gradient clipping uses it.

    Shapes:
      grads: a tree of floating point arrays; result: (), 0 for an empty tree.

    Raises:
      TypeError: a leaf is not floating point; its path is named.

    Source: D2L 9.5 (clipping). Equal to `optax.tree.norm`.

    Example:
      >>> global_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])})
      Array(5., dtype=float32)
    """
    norms = list(gradient_norms(grads).values())
    if not norms:
        return jnp.zeros(())
    wide = jnp.float64 if any(n.dtype == jnp.float64 for n in norms) else jnp.float32
    return lp_norm(jnp.stack([norm.astype(wide) for norm in norms]), 2)
