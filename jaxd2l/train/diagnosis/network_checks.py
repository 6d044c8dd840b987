"""Checks of parameters, activations and gradients; each argues for its threshold."""

from collections.abc import Iterator

import numpy as np

from jaxd2l.layers import BatchNorm, FixedBatchNorm
from jaxd2l.train.diagnosis.evidence import Evidence, Kernel
from jaxd2l.train.diagnosis.findings import Finding

EQUAL = 1e-4
LARGEST_GAIN = 10.0
MOST_FLAT = 0.8
SMALLEST_RATIO = 1e-4
SMALLEST_VARIATION = 1e-5
LARGEST_GRADIENT = 100.0


def parameters_not_finite(seen: Evidence) -> Iterator[Finding]:
    """NaN or infinite parameters or statistics."""
    for path, array in seen.arrays.items():
        share = float(np.mean(~np.isfinite(array)))
        if share:
            yield Finding(
                "parameters_not_finite",
                path,
                share,
                0.0,
                f"{share:.1%} of the values are NaN or infinite",
                "go back to the last good checkpoint and lower the learning rate or clip gradients",
            )


def batch_of_one(seen: Evidence) -> Iterator[Finding]:
    """One example and a batch norm over single vectors: their variance is 0, so nothing is left."""
    for step in seen.steps:
        if not isinstance(step.layer, BatchNorm) or isinstance(step.layer, FixedBatchNorm):
            continue
        if len(seen.inputs) == 1 and len(step.input_shape) == 1:
            yield Finding(
                "batch_of_one",
                step.path,
                1.0,
                2.0,
                "a batch norm sees 1 example, so it gives its bias whatever the input is",
                "train with larger batches (dropping a short last one), or use LayerNorm",
            )


def symmetric_initialisation(seen: Evidence) -> Iterator[Finding]:
    """A hidden layer all of whose kernels have equal columns: its units compute and learn the same.

    Rounding lets equal columns drift apart by far less than 1e-4 of their size, and random ones
    never come so close. A layer of several kernels may start some of them from zeros; grouped
    convolutions, whose units read different features, may start equal, and so may the last layer,
    whose gradients differ.
    """
    layers: dict[str, list[Kernel]] = {}
    for kernel in seen.kernels:
        layers.setdefault(kernel.path.rpartition("/")[0], []).append(kernel)
    for path, kernels in list(layers.items())[:-1]:
        columns = [kernel.value.reshape(-1, kernel.value.shape[-1]) for kernel in kernels]
        if columns[0].shape[1] < 2 or getattr(kernels[0].layer, "groups", 1) != 1:
            continue
        apart = [float(np.abs(c - c[:, :1]).max()) / (np.abs(c).max() or 1.0) for c in columns]
        if max(apart) <= EQUAL:
            yield Finding(
                "symmetric_initialisation",
                path,
                max(apart),
                EQUAL,
                f"all {columns[0].shape[1]} columns of the kernel are equal, so all units are one",
                "draw the kernel at random, for instance with initializers.HeNormal()",
            )


def weights_too_large(seen: Evidence) -> Iterator[Finding]:
    """A kernel of gain rms(W) sqrt(fan in) above 10; the last one only where it gives logits.

    Xavier, He and PyTorch start between 0.5 and 1.5, and training on our healthy networks led to
    4 at most. At 10, two layers multiply their inputs by a hundred. What size the last kernel must
    have is for the targets to say where they are numbers, and for the inputs in a linear model.
    """
    last = bool(seen.expects) and len(seen.kernels) > 1
    for kernel in seen.kernels if last else seen.kernels[:-1]:
        if kernel.gain > LARGEST_GAIN:
            yield Finding(
                "weights_too_large",
                kernel.path,
                kernel.gain,
                LARGEST_GAIN,
                f"the kernel multiplies independent inputs by {kernel.gain:.3g}, above "
                f"{LARGEST_GAIN:g}",
                "start from initializers.HeNormal() or XavierUniform(); if it was trained, lower "
                "the learning rate or decay the weights",
            )


def dead_units(seen: Evidence) -> Iterator[Finding]:
    """A layer four fifths of whose ReLU units have slope 0 for every example.

    In healthy networks up to 60% were dead on a batch of 64: inputs that are never negative, as
    pixels, push many units to one side, and training still went well.
    """
    for where, figures in seen.activations:
        if "dead" not in figures:
            continue
        share = float(figures["dead"].mean())
        if share >= MOST_FLAT:
            yield Finding(
                "dead_units",
                where,
                share,
                MOST_FLAT,
                f"{share:.0%} of the {figures['dead'].size} units have slope 0 for every example",
                "start anew with a lower learning rate, initializers.HeNormal() and biases of 0; "
                "or use leaky_relu",
            )


def saturated_units(seen: Evidence) -> Iterator[Finding]:
    """Four fifths of a layer's sigmoids outside (0.01, 0.99), or tanh outside (-0.98, 0.98): their
    slope is below 4% of its maximum.

    In a healthy sigmoid LeNet up to 60% were, between its plateau and its descent.
    """
    for where, figures in seen.activations:
        share = float(figures.get("saturated", 0.0))
        if share >= MOST_FLAT:
            yield Finding(
                "saturated_units",
                where,
                share,
                MOST_FLAT,
                f"{share:.0%} of the values are at the ends, where the slope is below 4% of its "
                f"maximum",
                "normalise what goes in (BatchNorm before it), start from smaller weights, or use "
                "relu",
            )


def gradients_vanish(seen: Evidence) -> Iterator[Finding]:
    """A kernel whose gradient, relative to the kernel, is below 1e-4 of the largest one; or what
    the last kernel reads varies from one example to another by less than 1e-5 of its size, or of 1.

    At a rate at which the fastest kernel changes by 1% in a step, the slowest changes by 1e-6, so
    that a million steps pass before it is another. The book's sigmoid LeNet, which trains after a
    long plateau, is at 1e-3; other healthy networks are above 0.03. Its last kernel's input varies
    by 1e-4; rounding alone makes 1e-7. Kernels of gradient exactly 0 do not count unless all are:
    a branch that starts from 0 gives none at first.
    """
    if len(seen.kernels) > 1:
        sizes = {k.path: k.relative_gradient for k in seen.kernels if k.gradient.any()}
        largest = max(sizes.values(), default=0.0)
        slowest = min(sizes, key=lambda path: sizes[path], default=seen.kernels[0].path)
        ratio = sizes[slowest] / largest if sizes else 0.0
        if (sizes and ratio < SMALLEST_RATIO) or (not sizes and seen.mean_loss > seen.baseline / 2):
            yield Finding(
                "gradients_vanish",
                slowest,
                ratio,
                SMALLEST_RATIO,
                f"relative to the kernel, the gradient is {ratio:.1e} of the largest, below "
                f"{SMALLEST_RATIO:g}",
                _SHORTER,
            )
            return
    if len(seen.inputs) > 1 and len(seen.kernel_inputs) > 1:
        where, figures = seen.kernel_inputs[-1]
        ratio = float(figures["variation"] / max(float(figures["rms"]), 1.0))
        if ratio < SMALLEST_VARIATION:
            yield Finding(
                "gradients_vanish",
                where,
                ratio,
                SMALLEST_VARIATION,
                f"what the last kernel reads varies by {ratio:.1e} (of its size, or of 1) between "
                f"examples, below {SMALLEST_VARIATION:g}",
                _SHORTER,
            )


_SHORTER = (
    "use relu for sigmoid, HeNormal, BatchNorm or residual shortcuts, fewer layers; in recurrent "
    "networks LSTM or GRU and shorter sequences"
)


def gradients_explode(seen: Evidence) -> Iterator[Finding]:
    """A kernel whose gradient is more than 100 times the kernel (or one of gain 1, if larger).

    A step at the rate 0.01 then changes it by its whole size. Linear regression starts at 5,
    classifiers below 1. (The notes' sign, a gradient above 1, would accuse healthy networks.)
    """
    for kernel in sorted(seen.kernels, key=lambda k: -k.relative_gradient)[:1]:
        size = kernel.relative_gradient
        if size > LARGEST_GRADIENT:
            yield Finding(
                "gradients_explode",
                kernel.path,
                size,
                LARGEST_GRADIENT,
                f"the gradient is {size:.3g} times as large as the kernel, above "
                f"{LARGEST_GRADIENT:g}",
                "clip the gradient's norm, normalise layers, start from smaller weights, shorten "
                "sequences",
            )
