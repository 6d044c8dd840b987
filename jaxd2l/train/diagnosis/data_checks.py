"""Checks of inputs and targets; each yields findings and argues for its threshold."""

from collections.abc import Iterator

import numpy as np

from jaxd2l.train.diagnosis.evidence import Evidence
from jaxd2l.train.diagnosis.findings import Finding

LARGEST_INPUT = 10.0
SMALLEST_INPUT = 0.01
LARGEST_TARGET = 100.0
FEWEST = 10  # examples of a class
MOST_COMMON = 9.0  # times as many as of another class


def inputs_not_finite(seen: Evidence) -> Iterator[Finding]:
    """NaN or infinite inputs; a single one makes the loss NaN, so none is allowed."""
    yield from _not_finite(seen.inputs, "inputs", "fill or drop missing values first")


def targets_not_finite(seen: Evidence) -> Iterator[Finding]:
    """NaN or infinite targets, as for inputs."""
    yield from _not_finite(seen.all_targets, "targets", "drop the examples that have no target")


def _not_finite(array: np.ndarray, what: str, advice: str) -> Iterator[Finding]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        share = float(np.mean(~np.isfinite(array)))
        text = f"{share:.2%} of the {what} are NaN or infinite"
        yield Finding(f"{what}_not_finite", what, share, 0.0, text, advice)


def inputs_constant(seen: Evidence) -> Iterator[Finding]:
    """All examples are equal: nothing can be told from them. Equality is exact."""
    if len(seen.inputs) > 1 and (seen.inputs == seen.inputs[:1]).all():
        yield Finding(
            "inputs_constant",
            "inputs",
            0.0,
            0.0,
            f"all {len(seen.inputs)} examples are the same",
            "look at what the pre-processing gives",
        )


def inputs_not_normalised(seen: Evidence) -> Iterator[Finding]:
    """Where the first kernel reads them, a feature of mean magnitude above 10, or none of which the
    root mean square reaches 0.01. Tokens are not judged.

    The gradient of a kernel grows with its inputs, and the change of its outputs with their
    square: at 10 the largest stable rate is a hundredth, at 0.01 ten thousand times, that for
    inputs of size 1. Scaled or standardised features are far inside, bytes are around 100. Above,
    the mean of |x| counts, because a rare category, standardised, has one large value in a small
    batch; below, the root mean square, because sparse features are mostly 0.
    """
    if seen.inputs.dtype.kind != "f":
        return
    where, figures = seen.first_input
    size, rms = float(figures["size"].max()), float(figures["rms"])
    advice = "standardise the features (data.standardize), or scale images to [0, 1]"
    if size > LARGEST_INPUT:
        text = f"a feature that {where} reads has the mean magnitude {size:.3g}, above"
        limit = LARGEST_INPUT
    elif rms < SMALLEST_INPUT and size < SMALLEST_INPUT:
        text, limit = (
            f"what {where} reads has the root mean square {rms:.3g}, below",
            SMALLEST_INPUT,
        )
    else:
        return
    value = size if limit == LARGEST_INPUT else rms
    yield Finding("inputs_not_normalised", "inputs", value, limit, f"{text} {limit:g}", advice)


def targets_not_normalised(seen: Evidence) -> Iterator[Finding]:
    """Numbers to be predicted whose root mean square is above 100.

    Adam moves a parameter by about its rate in a step: at 0.001, a bias needs 100,000 steps to
    reach 100. With gradient descent the gradient starts a hundred times too large.
    """
    if not seen.regresses:
        return
    size = float(np.sqrt(np.mean(np.square(seen.all_targets, dtype=np.float64))))
    if size > LARGEST_TARGET:
        yield Finding(
            "targets_not_normalised",
            "targets",
            size,
            LARGEST_TARGET,
            f"the root mean square of the targets is {size:.3g}, above {LARGEST_TARGET:g}",
            "train on standardised targets, or on their logarithms, and turn predictions back",
        )


def labels_out_of_range(seen: Evidence) -> Iterator[Finding]:
    """A label below 0, or not below the number of outputs: its loss is NaN."""
    if not seen.classifies:
        return
    labels, count = seen.all_targets, seen.outputs.shape[-1]
    outside = (labels < 0) | (labels >= count)
    if outside.any():
        share = float(outside.mean())
        yield Finding(
            "labels_out_of_range",
            "targets",
            share,
            0.0,
            f"{share:.1%} of the labels are outside [0, {count}), the first is "
            f"{labels[outside].flat[0]}",
            f"number the classes from 0 and give the network as many outputs as there are classes "
            f"(the largest label is {labels.max()})",
        )


def classes_imbalanced(seen: Evidence) -> Iterator[Finding]:
    """A class at least nine times as common as the others are on average.

    With two classes that is 90%: who always answers with this class seems to be good. Of 20 labels
    of balanced classes, fewer than one batch in a thousand looks so. Tokens are not judged.
    """
    labels = seen.labels
    if labels is None:
        return
    names, counts = np.unique(labels, return_counts=True)
    others = max(seen.classes, 2) - 1
    most = int(counts.max())
    ratio = most * others / max(labels.size - most, 0.5)
    if ratio >= MOST_COMMON:
        yield Finding(
            "classes_imbalanced",
            "targets",
            ratio,
            MOST_COMMON,
            f"{most} of {labels.size} examples are of class {names[counts.argmax()]:g}, "
            f"{ratio:.3g} times as many as of another class on average",
            "shuffle, weight the loss by class, or draw rare classes more often; judge by more "
            "than accuracy",
        )


def examples_too_few(seen: Evidence) -> Iterator[Finding]:
    """A data set (not a batch) with fewer than ten examples for each class that occurs in it, or
    fewer than ten altogether where numbers are predicted: no part of them could be held out.
    """
    if not seen.dataset or seen.inputs.dtype.kind != "f":
        return
    classes = 1 if seen.labels is None else len(np.unique(seen.labels))
    each = len(seen.all_targets) / classes
    if each < FEWEST:
        what = "examples" if classes == 1 else f"examples for each of {classes} classes"
        yield Finding(
            "examples_too_few",
            "targets",
            each,
            FEWEST,
            f"there are {each:.3g} {what}, fewer than {FEWEST}",
            "collect or augment data, or start from a trained network (train.transfer)",
        )
