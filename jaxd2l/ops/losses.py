"""Losses: one value per example, logits in, no reduction, no silent broadcasting.

Average them with `masked_mean` (a plain mean when there is no mask). Labels are integer class
indices. Nothing can be raised under `jit` for a label that is out of range, so such a label gives a
NaN loss here (JAX itself would let -1 mean the last class); `jaxd2l.ops.labels.check_labels`
refuses it on the host.
"""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_same_shape
from jaxd2l.ops.activations import softplus
from jaxd2l.ops.labels import check_classes, pick
from jaxd2l.ops.softmax import log_softmax

Array = jax.Array


def _check_pair(a: Any, b: Any, where: str, names: tuple[str, str]) -> None:
    for value, name in zip((a, b), names, strict=True):
        check_floating(value, f"{where}: {name}")
    check_same_shape(a, b, f"{where}: {names[0]} and {names[1]}")


def _times_log(p: Array, log_q: Array) -> Array:
    """`p * log_q` where 0 times -inf is 0, and both derivatives there are 0."""
    empty = (p == 0) & jnp.isneginf(log_q)
    return p * jnp.where(empty, 0, log_q)


def _safe_log(p: Array) -> Array:
    """`log p`; 0 with derivative 0 where p = 0 (only ever multiplied by p)."""
    return jnp.where(p == 0, 0, jnp.log(jnp.where(p == 0, 1, p)))


# --- regression -----------------------------------------------------------------------------------


def squared_loss(predictions: Array, targets: Array) -> Array:
    """Half the squared error, `(predictions - targets)^2 / 2`, so that the gradient is the error.

    Shapes:
      predictions, targets: (...), the same; result: (...).

    Raises:
      TypeError: not floating point.
      ValueError: the shapes differ. (n,) against (n, 1) would broadcast to (n, n).

    Source: D2L 3.1. PyTorch's `mse_loss` has no half.

    Example:
      >>> squared_loss(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
      Array([0., 2.], dtype=float32)
    """
    _check_pair(predictions, targets, "squared_loss", ("predictions", "targets"))
    return jnp.square(predictions - targets) / 2


def gaussian_negative_log_likelihood(mean: Array, target: Array, variance: Array | float) -> Array:
    """`log(2 pi variance)/2 + (target - mean)^2 / (2 variance)`, in nats, elementwise.

    With a fixed variance the best `mean` is the least-squares one. A variance that is not positive
    gives NaN or infinity.

    Shapes:
      mean, target: (...), the same; variance: the same, or a scalar; result: (...).

    Raises:
      TypeError: not floating point.
      ValueError: the shapes differ.

    Source: D2L 3.1.3. PyTorch's `gaussian_nll_loss` leaves the constant out unless `full=True`, and
    clamps the variance.

    Example:
      >>> gaussian_negative_log_likelihood(jnp.zeros(1), jnp.zeros(1), 1.0)
      Array([0.9189385], dtype=float32)
    """
    where = "gaussian_negative_log_likelihood"
    _check_pair(mean, target, where, ("mean", "target"))
    if jnp.ndim(variance):
        _check_pair(mean, variance, where, ("mean", "variance"))
    variance = float(variance) if isinstance(variance, numbers.Real) else variance
    squared_error = jnp.square(target - mean)
    return (math.log(2 * math.pi) + jnp.log(variance) + squared_error / variance) / 2


# --- classification -------------------------------------------------------------------------------


def softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross-entropy of the softmax, `-log softmax(logits)[label]`, in nats.

    Uniform logits give `log c`; the gradient is `softmax(logits) - one_hot(label)`. A label outside
    `[0, c)` gives NaN: mask such examples (`masked_mean`), whose gradient is then 0.

    Shapes:
      logits: (..., c); labels: (...), integers; result: (...).

    Raises:
      TypeError: labels are not integers, or logits not floating point.
      ValueError: the shapes do not match.

    Source: D2L 4.1, 4.5.

    Example:
      >>> softmax_cross_entropy(jnp.zeros((1, 10)), jnp.array([3]))
      Array([2.3025851], dtype=float32)
    """
    check_classes(logits, labels, "softmax_cross_entropy", "logits")
    return -pick(log_softmax(logits, axis=-1), labels)


def softmax_cross_entropy_with_probabilities(logits: Array, target_probabilities: Array) -> Array:
    """Cross-entropy against a distribution, `-sum_c target_c log softmax(logits)_c`, in nats.

    Shapes:
      logits, target_probabilities: (..., c), the same; result: (...).

    Raises:
      TypeError: not floating point (one-hot vectors must be floats too).
      ValueError: the shapes differ.

    Source: D2L 4.1.

    Example:
      >>> softmax_cross_entropy_with_probabilities(jnp.zeros((1, 2)), jnp.array([[0.5, 0.5]]))
      Array([0.6931472], dtype=float32)
    """
    _check_pair(
        logits,
        target_probabilities,
        "softmax_cross_entropy_with_probabilities",
        ("logits", "target_probabilities"),
    )
    log_q = log_softmax(logits, axis=-1)
    return -jnp.sum(_times_log(target_probabilities, log_q), axis=-1)


def cross_entropy(probabilities: Array, labels: Array) -> Array:
    """Cross-entropy of probabilities, `-log probabilities[label]`: the textbook form.

    Probability 0 gives infinity. Prefer `softmax_cross_entropy`, which cannot overflow.

    Shapes:
      probabilities: (..., c); labels: (...), integers; result: (...).

    Raises:
      TypeError: labels are not integers, or probabilities not floating point.
      ValueError: the shapes do not match.

    Source: D2L 4.4 (`cross_entropy`).

    Example:
      >>> cross_entropy(jnp.array([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5]]), jnp.array([0, 2]))
      Array([2.3025851, 0.6931472], dtype=float32)
    """
    check_classes(probabilities, labels, "cross_entropy", "probabilities")
    return -jnp.log(pick(probabilities, labels))


def clipped_cross_entropy(probabilities: Array, labels: Array) -> Array:
    """`-log(probabilities[label] + 1e-5)`: for comparison only.

    Finite at probability 0, but the loss stops at 11.5 and the gradient is biased: through a
    softmax it is `p / (p + 1e-5)` times the true one, so it vanishes for the worst mistakes.
    Use `softmax_cross_entropy`.

    Shapes:
      probabilities: (..., c); labels: (...), integers; result: (...).

    Raises:
      TypeError: labels are not integers, or probabilities not floating point.
      ValueError: the shapes do not match.

    Example:
      >>> clipped_cross_entropy(jnp.array([[0.0, 1.0]]), jnp.array([0]))
      Array([11.512925], dtype=float32)
    """
    check_classes(probabilities, labels, "clipped_cross_entropy", "probabilities")
    return -jnp.log(pick(probabilities, labels) + 1e-5)


def sigmoid_cross_entropy(logits: Array, targets: Array) -> Array:
    """Binary cross-entropy of the sigmoid, `softplus(z) - y z`, elementwise, in nats.

    This is the negative log-likelihood of a Bernoulli variable. It is computed as
    `(1 - y) softplus(z) + y softplus(-z)`, which is equal and does not cancel for large `z`.
    Gradient: `sigmoid(z) - y`.

    Shapes:
      logits, targets: (...), the same; targets in [0, 1]; result: (...).

    Raises:
      TypeError: not floating point (0/1 labels must be floats here).
      ValueError: the shapes differ.

    Source: D2L 15.4.2. Equal to PyTorch's `binary_cross_entropy_with_logits`.

    Example:
      >>> sigmoid_cross_entropy(jnp.array([0.0, 100.0]), jnp.array([1.0, 0.0]))
      Array([  0.6931472, 100.       ], dtype=float32)
    """
    _check_pair(logits, targets, "sigmoid_cross_entropy", ("logits", "targets"))
    return (1 - targets) * softplus(logits) + targets * softplus(-logits)


# --- distributions --------------------------------------------------------------------------------


def entropy(probabilities: Array) -> Array:
    """Entropy `-sum_c p_c log p_c`, in nats, with `0 log 0 = 0` and derivative 0 there.

    Shapes:
      probabilities: (..., c); result: (...).

    Raises:
      TypeError: not floating point.

    Source: D2L 22.11.

    Example:
      >>> entropy(jnp.array([0.5, 0.5, 0.0]))
      Array(0.6931472, dtype=float32)
    """
    check_floating(probabilities, "entropy: probabilities")
    return -jnp.sum(probabilities * _safe_log(probabilities), axis=-1)


def kl_divergence(p: Array, q: Array) -> Array:
    """Kullback-Leibler divergence `KL(p || q) = sum_c p_c (log p_c - log q_c)`, in nats.

    Terms with `p_c = 0` are 0, and so are their derivatives; `q_c = 0 < p_c` gives infinity.
    Never negative, 0 only for p = q, and not symmetric. `cross-entropy(p, q) = entropy(p) + KL`.

    Shapes:
      p, q: (..., c), the same; result: (...).

    Raises:
      TypeError: not floating point.
      ValueError: the shapes differ.

    Source: D2L 22.11. PyTorch's `kl_div` takes `(log q, p)` and keeps the last axis.

    Example:
      >>> kl_divergence(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5]))
      Array(0.6931472, dtype=float32)
    """
    _check_pair(p, q, "kl_divergence", ("p", "q"))
    log_q = jnp.log(jnp.where(p == 0, 1, q))
    return jnp.sum(p * (_safe_log(p) - log_q), axis=-1)


def kl_divergence_with_logits(p_logits: Array, q_logits: Array) -> Array:
    """`KL(softmax(p_logits) || softmax(q_logits))`, in nats, without leaving the log domain.

    Shapes:
      p_logits, q_logits: (..., c), the same; result: (...).

    Raises:
      TypeError: not floating point.
      ValueError: the shapes differ.

    Source: D2L 22.11.

    Example:
      >>> kl_divergence_with_logits(jnp.array([100.0, 0.0]), jnp.array([0.0, 0.0]))
      Array(0.6931472, dtype=float32)
    """
    _check_pair(p_logits, q_logits, "kl_divergence_with_logits", ("p_logits", "q_logits"))
    log_p = log_softmax(p_logits, axis=-1)
    log_q = log_softmax(q_logits, axis=-1)
    p = jnp.exp(log_p)
    return jnp.sum(_times_log(p, log_p) - _times_log(p, log_q), axis=-1)


def distillation_loss(
    student_logits: Array,
    teacher_logits: Array,
    labels: Array,
    temperature: float,
    weight: float,
) -> Array:
    """`weight T^2 KL(softmax(teacher/T) || softmax(student/T)) + (1 - weight) CE(student, labels)`.

    `weight` in [0, 1] is the share of the soft part; 0 is the plain cross-entropy. The factor T^2
    keeps the size of the soft gradient as T grows. The teacher is an ordinary argument: wrap it in
    `jax.lax.stop_gradient` if its parameters are being differentiated as well.

    Shapes:
      student_logits, teacher_logits: (..., c), the same; labels: (...), integers; result: (...).

    Raises:
      TypeError: labels are not integers, or logits not floating point.
      ValueError: the shapes do not match, temperature is not positive, weight is not in [0, 1].

    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network" (which
    uses the cross-entropy with the teacher: the same gradient for the student).

    Example:
      >>> z = jnp.array([[0.0, 0.0]])
      >>> distillation_loss(z, z, jnp.array([0]), temperature=2.0, weight=0.5)
      Array([0.3465736], dtype=float32)
    """
    names = ("student_logits", "teacher_logits")
    _check_pair(student_logits, teacher_logits, "distillation_loss", names)
    check_classes(student_logits, labels, "distillation_loss", "student_logits")
    if isinstance(temperature, numbers.Real):
        temperature = float(temperature)  # a NumPy scalar would not be weakly typed
        if not temperature > 0:
            raise ValueError(f"distillation_loss: temperature must be positive, got {temperature}")
    if isinstance(weight, numbers.Real):
        weight = float(weight)
        if not 0 <= weight <= 1:
            raise ValueError(f"distillation_loss: weight must be in [0, 1], got {weight}")
    soft = kl_divergence_with_logits(teacher_logits / temperature, student_logits / temperature)
    hard = softmax_cross_entropy(student_logits, labels)
    return weight * temperature**2 * soft + (1 - weight) * hard


# --- means ---------------------------------------------------------------------------------------


def masked_mean(values: Array, mask: Array | None) -> Array:
    """Mean of the values whose mask is True; the plain mean when the mask is None.

    A padded batch gives the mean of its real examples. Where the mask is False the value does not
    matter, NaN included, and gets gradient 0. An empty mask gives 0, never NaN. 16-bit values are
    summed in float32.

    Shapes:
      values, mask: (...), the same; mask boolean; result: ().

    Raises:
      TypeError: values are not floating point, or the mask is not boolean.
      ValueError: the shapes differ.

    Example:
      >>> masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False]))
      Array(2., dtype=float32)
    """
    check_floating(values, "masked_mean: values")
    values = jnp.asarray(values)
    mask = jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"masked_mean: mask must be boolean, got {mask.dtype}")
    check_same_shape(values, mask, "masked_mean: values and mask")
    wide = jnp.float64 if values.dtype == jnp.float64 else jnp.float32
    total = jnp.sum(jnp.where(mask, values, 0).astype(wide))
    count = jnp.sum(mask, dtype=jnp.int32)
    return (total / jnp.maximum(count, 1).astype(wide)).astype(values.dtype)
