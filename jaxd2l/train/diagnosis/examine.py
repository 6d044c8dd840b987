"""`diagnose`: what is wrong with a network that does not train."""

from typing import Any

import jax

from jaxd2l.layers import Layer
from jaxd2l.layers.shapes import check_network
from jaxd2l.train.diagnosis import checks
from jaxd2l.train.diagnosis.evidence import gather
from jaxd2l.train.diagnosis.findings import Diagnosis, Finding
from jaxd2l.train.step import Loss

#: In order: causes before consequences.
CHECKS = (
    checks.inputs_not_normalised,
    checks.labels_out_of_range,
    checks.symmetric_initialisation,
    checks.dead_units,
)


def diagnose(net: Layer, params: Any, state: Any, batch: Any, loss: Loss) -> Diagnosis:
    """Say in plain words why a network does not train.

    Args:
      net, params, state: the network as it is, before, while or after training.
      batch: (inputs, targets), a `data.Batch` or a `data.Dataset`.
      loss: (outputs, targets) -> one value per example or element, as for `fit`.

    Source: the notes' lists (SC3, SC10, SC14).

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
    seen = gather(net, params, state, batch, loss, jax.random.key(0))
    found: list[Finding] = []
    for check in CHECKS:
        found += check(seen)
    return Diagnosis(tuple(found), {})
