"""The checks of data and network; each yields findings and argues for its threshold."""

from collections.abc import Iterator

import numpy as np

from jaxd2l.train.diagnosis.evidence import Evidence
from jaxd2l.train.diagnosis.findings import Finding

LARGEST_INPUT = 10.0
MOST_DEAD = 0.5


def inputs_not_normalised(seen: Evidence) -> Iterator[Finding]:
    """A feature whose mean magnitude, where the first kernel reads it, is above 10.

    The gradient of a kernel grows with its inputs and the change of its outputs with their
    square: at 10 the largest stable rate is a hundredth of that for inputs of size 1. Scaled or
    standardised features are far below 10; bytes are around 100. The mean of |x| and not its root
    mean square, because a rare category, standardised, has one large value in a small batch.
    """
    if seen.inputs.dtype.kind != "f" or not seen.kernel_inputs:
        return
    where, figures = seen.kernel_inputs[0]
    size = float(figures["size"].max()) if "size" in figures else 0.0
    if size > LARGEST_INPUT:
        yield Finding(
            "inputs_not_normalised",
            "inputs",
            size,
            LARGEST_INPUT,
            f"the mean magnitude of a feature that {where} reads is {size:.3g}, above "
            f"{LARGEST_INPUT:g}",
            "standardise the features (data.standardize) or scale images to [0, 1]",
        )


def labels_out_of_range(seen: Evidence) -> Iterator[Finding]:
    """A label below 0, or not below the number of outputs: its loss is NaN."""
    if not _classifies(seen):
        return
    labels, count = seen.all_targets, seen.outputs.shape[-1]
    outside = (labels < 0) | (labels >= count)
    if outside.any():
        first = labels[outside].flat[0]
        yield Finding(
            "labels_out_of_range",
            "targets",
            float(outside.mean()),
            0.0,
            f"{outside.mean():.0%} of the labels are outside [0, {count}), the first is {first}",
            f"number the classes from 0, or give the network {int(labels.max()) + 1} outputs",
        )


def symmetric_initialisation(seen: Evidence) -> Iterator[Finding]:
    """A hidden kernel all of whose columns are equal: its units compute and learn the same.

    Rounding lets equal columns drift apart by far less than 1e-4 of their size, and random ones
    never come so close. The last kernel may start from equal columns (zeros): its gradients differ.
    """
    for kernel in seen.kernels[:-1]:
        columns = kernel.value.reshape(-1, kernel.value.shape[-1])
        if columns.shape[1] < 2:
            continue
        apart = float(np.abs(columns - columns[:, :1]).max())
        limit = 1e-4 * float(np.abs(columns).max())
        if apart <= limit:
            yield Finding(
                "symmetric_initialisation",
                kernel.path,
                apart,
                limit,
                f"all {columns.shape[1]} columns of the kernel are equal",
                "draw the kernel at random, for instance with initializers.HeNormal()",
            )


def dead_units(seen: Evidence) -> Iterator[Finding]:
    """A layer half of whose ReLU units give the same flat value for every example.

    They give no gradient. With default initialisation up to a third may be dead by chance.
    """
    for where, figures in seen.activations:
        if "dead" not in figures:
            continue
        share = float(figures["dead"].mean())
        if share >= MOST_DEAD:
            yield Finding(
                "dead_units",
                where,
                share,
                MOST_DEAD,
                f"{share:.0%} of the units are dead: zero slope for every example",
                "lower the learning rate and start anew, with initializers.HeNormal() and biases "
                "of 0, or use leaky_relu",
            )


def _classifies(seen: Evidence) -> bool:
    return (
        seen.all_targets.dtype.kind in "iu"
        and seen.outputs.ndim == seen.targets.ndim + 1
        and seen.outputs.shape[:-1] == seen.targets.shape
    )
