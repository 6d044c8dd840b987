"""Checks of the network's outputs against its loss and targets; each argues for its threshold."""

from collections.abc import Iterator

import numpy as np

from jaxd2l.layers import Activation, Dropout, Flatten, Identity, Reshape
from jaxd2l.train.diagnosis.evidence import Evidence
from jaxd2l.train.diagnosis.findings import Finding

ABOVE_UNIFORM = 2.0
ABOVE_MEAN = 100.0
LARGEST_BIAS = 0.7
LARGEST_OFFSET = 10.0
RANGES = {
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "softplus": (0.0, np.inf),
    "tanh": (-1.0, 1.0),
}
_LINEAR = "let the last layer be linear"


def last_activation(seen: Evidence) -> Iterator[Finding]:
    """An activation before a loss that needs logits, or one that cannot reach the targets.

    What the loss needs is found by calling it (`Evidence.expects`), so that functions of the user's
    own are understood. That the network ends in an activation is read off its record, or, where
    a function hides it, off the outputs: all in [0, 1] with rows that sum to 1 are a softmax, all
    strictly between 0 and 1 a sigmoid, none negative and a tenth exactly 0 a relu; logits look
    so by chance less than once in 2^20 (where there are 20 of them). Numbers to be predicted must
    be inside the activation's range, but for 1% of them.
    """
    kind = _last_kind(seen) or _kind_of(seen.outputs)
    if seen.expects == "probabilities":
        if not _is_distribution(seen.outputs):
            yield Finding(
                "last_activation",
                "outputs",
                float(np.abs(seen.outputs.sum(-1) - 1).max()),
                1e-3,
                "the loss takes probabilities, and the outputs do not sum to 1",
                "use a loss on logits (losses.softmax_cross_entropy)",
            )
    elif seen.expects and kind in RANGES:
        text = f"the network ends in {kind}, and the loss takes {seen.expects}"
        yield Finding("last_activation", "outputs", 1.0, 0.0, text, _LINEAR)
    elif seen.regresses and _last_kind(seen) in RANGES:
        low, high = RANGES[str(kind)]
        share = float(np.mean((seen.all_targets < low) | (seen.all_targets > high)))
        if share > 0.01:
            yield Finding(
                "last_activation",
                "outputs",
                share,
                0.01,
                f"the network ends in {kind}, which cannot reach {share:.0%} of the targets",
                f"{_LINEAR}, or scale the targets",
            )


def _last_kind(seen: Evidence) -> str | None:
    for step in reversed(seen.steps):
        if isinstance(step.layer, Activation):
            return str(step.layer.kind)
        if not isinstance(step.layer, Flatten | Identity | Reshape | Dropout):
            return None
    return None


def _is_distribution(y: np.ndarray) -> bool:
    return bool((y >= 0).all() and (np.abs(y.sum(-1) - 1) < 1e-3).all())


def _kind_of(y: np.ndarray) -> str | None:
    if y.size < 20:
        return None
    if y.shape[-1] > 1 and _is_distribution(y):
        return "softmax"
    if (y > 0).all() and (y < 1).all():
        return "sigmoid"
    return "relu" if (y >= 0).all() and 0.1 < np.mean(y == 0) < 1 else None


def loss_not_finite(seen: Evidence) -> Iterator[Finding]:
    """A NaN or infinite loss although inputs, targets and parameters are finite."""
    if np.isfinite(seen.losses).all():
        return
    bad = [where for where, f in seen.kernel_inputs if not np.isfinite(f["rms"])]
    first = f"what {bad[0]} reads is not finite" if bad else "every layer's input is finite"
    share = float(np.mean(~np.isfinite(seen.losses)))
    yield Finding(
        "loss_not_finite",
        bad[0] if bad else "outputs",
        share,
        0.0,
        f"the loss of {share:.0%} of the examples is NaN or infinite; {first}",
        "look for a division, logarithm or exponential there; train with smaller weights",
    )


def outputs_biased(seen: Evidence) -> Iterator[Finding]:
    """One class is predicted with a mean probability 0.7 above its share; or the mean prediction is
    ten standard deviations of the targets away from their mean (both averaged over the outputs).

    Healthy networks start below 0.25. A mean ten deviations away makes the loss a hundred times
    the one of predicting the mean.
    """
    if seen.expects:
        predicted, shares = seen.predicted, seen.frequencies
        if predicted is None or shares is None:
            return
        apart = predicted - shares if predicted.size > 1 else np.abs(predicted - shares)
        value = float(apart.max())
        if value > LARGEST_BIAS:
            at = int(apart.argmax())
            yield Finding(
                "outputs_biased",
                "outputs",
                value,
                LARGEST_BIAS,
                f"output {at} has the mean probability {predicted[at]:.2f}, its share is "
                f"{shares[at]:.2f}",
                "start the last bias at the logarithms of the class frequencies "
                "(initializers.log_frequencies), the last kernel small",
            )
    elif seen.regresses and seen.targets.shape == seen.outputs.shape:
        offset = np.square(seen.outputs.mean(0) - seen.targets.mean(0)).mean()
        value = float(np.sqrt(offset / max(seen.targets.var(0).mean(), 1e-12)))
        if value > LARGEST_OFFSET:
            yield Finding(
                "outputs_biased",
                "outputs",
                value,
                LARGEST_OFFSET,
                f"the mean output is {value:.3g} standard deviations of the targets away from "
                f"their mean",
                "start the last bias at the mean of the targets, or standardise them",
            )


def loss_too_high(seen: Evidence) -> Iterator[Finding]:
    """A loss 2 nats above that of outputs of 0 (log C for C classes), or, where numbers are
    predicted, a hundred times that of predicting their mean.

    Two nats: the right answer gets e^2 = 7 times less than by guessing. Healthy networks started at
    most 0.7 above, and logits of variance 1 start 0.5 above.
    """
    limit = seen.baseline + ABOVE_UNIFORM if seen.expects else seen.baseline * ABOVE_MEAN
    if (seen.expects or (seen.regresses and seen.baseline > 0)) and seen.mean_loss > limit:
        known = "of equal probabilities" if seen.expects else "of predicting the mean"
        yield Finding(
            "loss_too_high",
            "outputs",
            seen.mean_loss,
            limit,
            f"the loss is {seen.mean_loss:.3g}, above {limit:.3g}; that {known} is "
            f"{seen.baseline:.3g}",
            "start the last kernel smaller; after training steps, lower the learning rate",
        )
