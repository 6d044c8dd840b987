"""`diagnose`: what is wrong with a network that does not train."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import optax

from jaxd2l.layers import Layer
from jaxd2l.layers.shapes import check_network
from jaxd2l.train.diagnosis import data_checks, network_checks, output_checks, rate_check
from jaxd2l.train.diagnosis.evidence import Evidence, gather
from jaxd2l.train.diagnosis.findings import Diagnosis, Finding
from jaxd2l.train.step import Loss, check_optimizer

_NOT_FINITE = ("inputs_not_finite", "targets_not_finite", "parameters_not_finite")
_UNITS = (
    *_NOT_FINITE,
    "inputs_constant",
    "inputs_not_normalised",
    "symmetric_initialisation",
)
_LOSS = (*_NOT_FINITE, "labels_out_of_range", "loss_not_finite")
_GRADIENTS = (
    *_LOSS,
    *_UNITS,
    "batch_of_one",
    "weights_too_large",
    "targets_not_normalised",
    "last_activation",
    "dead_units",
    "saturated_units",
)
_FIT = (*_GRADIENTS, "gradients_vanish", "gradients_explode")

#: The checks in their order, each with the causes that would explain what it finds: where one of
#: those was found already, the check is left out, so that a fault is not reported as its symptoms.
CHECKS: tuple[tuple[Callable[[Evidence], Iterable[Finding]], tuple[str, ...]], ...] = (
    (data_checks.inputs_not_finite, ()),
    (data_checks.targets_not_finite, ()),
    (data_checks.inputs_constant, ("inputs_not_finite",)),
    (data_checks.inputs_not_normalised, ("inputs_not_finite",)),
    (data_checks.targets_not_normalised, ("targets_not_finite",)),
    (data_checks.labels_out_of_range, ()),
    (data_checks.classes_imbalanced, ("labels_out_of_range",)),
    (data_checks.examples_too_few, ()),
    (network_checks.parameters_not_finite, ()),
    (network_checks.batch_of_one, ()),
    (network_checks.symmetric_initialisation, ("parameters_not_finite",)),
    (network_checks.weights_too_large, ("parameters_not_finite",)),
    (output_checks.last_activation, _NOT_FINITE),
    (output_checks.loss_not_finite, (*_LOSS, "last_activation", "weights_too_large")),
    (network_checks.dead_units, _UNITS),
    (network_checks.saturated_units, (*_UNITS, "weights_too_large")),
    (network_checks.gradients_vanish, _GRADIENTS),
    (network_checks.gradients_explode, _GRADIENTS),
    (output_checks.outputs_biased, _FIT),
    (output_checks.loss_too_high, (*_FIT, "outputs_biased")),
)

#: The fewest examples that a check needs: of 20 labels of ten balanced classes, less than one batch
#: in a thousand looks imbalanced; and a unit is more easily flat for a few examples.
NEEDS: Mapping[Callable[[Evidence], Iterable[Finding]], int] = {
    data_checks.classes_imbalanced: 20,
    network_checks.dead_units: 16,
    output_checks.outputs_biased: 16,
}


def diagnose(
    net: Layer,
    params: Any,
    state: Any,
    batch: Any,
    loss: Loss,
    *,
    optimizer: optax.GradientTransformation | None = None,
) -> Diagnosis:
    """Say in plain words why a network does not train: what was measured, where, and what to do.

    Args:
      net, params, state: the network as it is, before, while or after training.
      batch: (inputs, targets), a `data.Batch` or a `data.Dataset`, of which 256 examples are run.
        Shares are told from 20 examples and more, dead units from 16.
      loss: (outputs, targets) -> one value per example or element, as for `fit`.
      optimizer: when given, and nothing else is wrong, it takes 20 steps from here on this batch.
        Give it without warm-up, whose first rates are too low by intention.

    One pass forwards and backwards in training mode measures what the kernels read, how many units
    are flat, and each kernel's gradient. The causes, with their thresholds and the reasons for them
    in the functions named beside them (`jaxd2l.train.diagnosis`):

    - inputs_not_finite, targets_not_finite, inputs_constant; inputs_not_normalised: a feature of
      mean magnitude above 10, or all below 0.01; targets_not_normalised: above 100;
      labels_out_of_range; classes_imbalanced: nine to one; examples_too_few: below ten a class;
    - parameters_not_finite; batch_of_one before a batch norm; symmetric_initialisation: equal
      columns; weights_too_large: a gain above 10;
    - last_activation: an activation where the loss takes logits, or one that cannot reach the
      targets; loss_not_finite;
    - dead_units, saturated_units: four fifths of a layer;
    - gradients_vanish: relative to the kernels, 1e-4 of the largest; gradients_explode: 100 times
      the kernel;
    - outputs_biased: a class predicted 0.7 above its share; loss_too_high: 2 nats above log C;
    - learning_rate_too_high, learning_rate_too_low: the optimiser does not lower the loss, a
      smaller rate, or one a hundred times larger, does.

    A flat loss alone says nothing about the rate: it may be too high, too low, or the units dead
    (E26), so the rate is tried last. Not judged, because a batch and a network cannot show it: too
    large batches, too many layers, data that were not shuffled; and a missing regulariser, which
    the notes list, does not keep a network from converging (E81).

    Returns:
      A `Diagnosis`; printed, it is plain sentences or "nothing found". Nothing found does not mean
      that nothing is wrong.

    Raises:
      TypeError: net is no network record, or the batch or optimizer something else.
      ValueError: as `apply`.

    Source: the notes' lists (SC3, SC10, SC14); Glorot and Bengio 2010; D2L 5.4.

    Example:
      >>> from jaxd2l import data, init, models
      >>> from jaxd2l.ops import losses
      >>> net, digits = models.mlp(), data.load_digits()
      >>> params, state = init(net, jax.random.key(0), (28, 28, 1))
      >>> print(diagnose(net, params, state, digits, losses.softmax_cross_entropy))
      nothing found
      >>> bytes_ = (digits.inputs[:64] * 255, digits.targets[:64])
      >>> diagnose(net, params, state, bytes_, losses.softmax_cross_entropy).causes
      ('inputs_not_normalised',)
    """
    check_network(net)
    if optimizer is not None:
        check_optimizer(optimizer, "diagnose")
    key = jax.random.key(0)
    seen = gather(net, params, state, batch, loss, key)
    found: list[Finding] = []
    unjudged: dict[str, str] = {}
    for check, explained_by in CHECKS:
        there = [finding.cause for finding in found if finding.cause in explained_by]
        least = NEEDS.get(check, 1)
        if len(seen.inputs) < least:
            unjudged[check.__name__] = f"there are fewer than {least} examples"
        elif there:
            unjudged[check.__name__] = f"{there[0]} would explain it"
        else:
            found += check(seen)
    if optimizer is not None and found:
        unjudged["learning_rate"] = f"{found[0].cause} would explain it"
    elif optimizer is not None:
        found += rate_check.learning_rate(net, params, state, seen, loss, optimizer, key)
    return Diagnosis(tuple(found), unjudged)
