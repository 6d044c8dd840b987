"""Auxiliary heads: a plain network with further classifiers on its inner features, for training.

A network with auxiliary heads gives several outputs, so it is a record with its own `init` and
`apply`, not a layer. The plain network is part of the record, and its parameters keep their paths:
what was trained with heads runs without them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l import layers
from jaxd2l.layers import Layer, Serial
from jaxd2l.layers.composites import sibling_names
from jaxd2l.ops.losses import softmax_cross_entropy
from jaxd2l.records import as_float, is_record, record

Array = jax.Array


@record
class AuxiliaryHead:
    """A network with a name, fed with the output of the layer `after` of the plain network.

    Example:
      >>> AuxiliaryHead("block2", layers.Dense("aux", 10)).after
      'block2'
    """

    after: str
    layer: Layer

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Layer) or self.layer.name is None:
            raise TypeError(f"AuxiliaryHead: layer must be a layer with a name, got {self.layer!r}")


@record
class WithAuxiliary:
    """A plain network, its auxiliary heads, and the weight of each head's loss.

    Args:
      net: a `Serial` without a name.
      heads: `AuxiliaryHead`s; each stands after a layer of `net` that has a name.
      weight: what the loss of a head counts beside that of the network.

    Raises:
      ValueError: `net` has no such layer, or two names are the same.

    Example:
      >>> net = Serial([layers.Dense("hidden", 8), layers.Dense("output", 3)])
      >>> config = WithAuxiliary(net, [AuxiliaryHead("hidden", layers.Dense("aux", 3))], 0.3)
      >>> params, state = init(config, jax.random.key(0), (4,))
      >>> sorted(params)
      ['aux', 'hidden', 'output']
    """

    net: Serial
    heads: Sequence[AuxiliaryHead]
    weight: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", tuple(self.heads))
        object.__setattr__(self, "weight", as_float(self.weight, "WithAuxiliary: weight", 0))
        if not isinstance(self.net, Serial) or self.net.name is not None:
            raise TypeError(f"WithAuxiliary: net must be an unnamed Serial, got {self.net!r}")
        places = [layer.name for layer in self.net.layers if layer.name]
        names = sibling_names(self.net)
        for head in self.heads:
            if not is_record(head) or not isinstance(head, AuxiliaryHead):
                raise TypeError(f"WithAuxiliary: heads must be AuxiliaryHeads, got {head!r}")
            if head.after not in places:
                raise ValueError(
                    f"WithAuxiliary: the network has no layer {head.after!r}; it has {places}"
                )
            if head.layer.name in names:
                raise ValueError(f"WithAuxiliary: two layers are named {head.layer.name!r}")
            names.append(head.layer.name)


def init(
    config: WithAuxiliary, key: Array, input_shape: Any, *, dtype: Any = jnp.float32
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, state) of the plain network and of the heads beside it, in one level.

    The plain network's arrays are those that `layers.init(config.net, key, ...)` draws.

    Example:
      >>> from jaxd2l import models
      >>> params, state = jax.eval_shape(lambda k: init(models.googlenet_auxiliary(),
      ...                                               k, (224, 224, 3)), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      13004888
    """
    shape = tuple(input_shape)
    params, state = layers.init(config.net, key, shape, dtype=dtype)
    for layer, heads in _steps(config):
        shape = layers.output_shape(layer, shape)
        for head in heads:
            own, statistics = layers.init(head, key, shape, dtype=dtype)
            params |= own
            state |= statistics
    return params, state


def apply(
    config: WithAuxiliary,
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    x: Array,
    *,
    key: Array | None = None,
    train: bool = False,
    examples: Array | None = None,
    mask: Array | None = None,
) -> tuple[tuple[Array, ...], Any]:
    """Run the network and its heads: ((logits, head 1, head 2, ...), new_state).

    The tuple is the same in training and in evaluation, so that one loss serves both; under `jit`
    heads that nobody reads cost nothing. To predict, run `config.net` with `plain(config, params)`.

    Shapes: x (n, *input_shape); each output (n, classes). Arguments as in `layers.apply`.

    Raises:
      ValueError: as `layers.apply`; `params` or `state` has a name that the network has not.

    Where PyTorch differs: torchvision returns (logits, aux2, aux1) in training, logits otherwise.

    Example:
      >>> net = Serial([layers.Dense("hidden", 8), layers.Dense("output", 3)])
      >>> config = WithAuxiliary(net, [AuxiliaryHead("hidden", layers.Dense("aux", 3))], 0.3)
      >>> params, state = init(config, jax.random.key(0), (4,))
      >>> [y.shape for y in apply(config, params, state, jnp.ones((2, 4)))[0]]
      [(2, 3), (2, 3)]
    """
    known = [*sibling_names(config.net), *(head.layer.name for head in config.heads)]
    for what, tree in (("params", params), ("state", state)):
        unknown = sorted(set(tree) - set(known))
        if unknown:
            raise ValueError(f"apply: {what} has {unknown[0]!r}, where the network has {known}")
    new: dict[str, Any] = {}

    def run(layer: Layer, x: Array) -> Array:
        y, updated = layers.apply(
            layer,
            _part(layer, params),
            _part(layer, state),
            x,
            key=key,
            train=train,
            examples=examples,
            mask=mask,
        )
        new.update(updated)
        return y

    auxiliary = []
    for layer, heads in _steps(config):
        x = run(layer, x)
        auxiliary += [run(head, x) for head in heads]
    return (x, *auxiliary), (new if train else state)


def plain(config: WithAuxiliary, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `params` or `state` that belongs to the plain network.

    Example:
      >>> net = Serial([layers.Dense("hidden", 8), layers.Dense("output", 3)])
      >>> config = WithAuxiliary(net, [AuxiliaryHead("hidden", layers.Dense("aux", 3))], 0.3)
      >>> params, state = init(config, jax.random.key(0), (4,))
      >>> layers.apply(net, plain(config, params), state, jnp.ones((2, 4)))[0].shape
      (2, 3)
    """
    return _part(config.net, tree)


def loss(config: WithAuxiliary, outputs: Sequence[Array], labels: Array) -> Array:
    """Cross-entropy of the logits plus `weight` times that of each head, per example.

    Shapes: outputs, each (n, classes); labels (n,), integers; result (n,).

    Source: Szegedy et al. 2014, section 5 (weight 0.3).

    Example:
      >>> config = WithAuxiliary(Serial([layers.Dense("output", 2)]), [], 0.3)
      >>> loss(config, (jnp.zeros((1, 2)),) * 3, jnp.array([0])).round(4).tolist()
      [1.1089999675750732]
    """
    logits, *auxiliary = outputs
    total = softmax_cross_entropy(logits, labels)
    for head in auxiliary:
        total = total + config.weight * softmax_cross_entropy(head, labels)
    return total


def _steps(config: WithAuxiliary) -> list[tuple[Layer, list[Layer]]]:
    """Each layer of the plain network, with the heads that stand after it."""
    return [
        (layer, [head.layer for head in config.heads if head.after == layer.name])
        for layer in config.net.layers
    ]


def _part(layer: Layer, tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tree[name] for name in sibling_names(layer) if name in tree}
