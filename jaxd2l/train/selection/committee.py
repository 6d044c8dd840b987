"""What several trained networks say together."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_rank
from jaxd2l.geometry import iterations_per_epoch
from jaxd2l.layers import Layer
from jaxd2l.train.mapping import choose
from jaxd2l.train.run import EVALUATED
from jaxd2l.train.step import Model, model_of

Array = jax.Array


def outputs_of(model: Layer | Model, params: Any, state: Any, inputs: Array) -> Any:
    """The model's outputs in evaluation, computed for 1024 examples at once.

    Example:
      >>> from jaxd2l import layers, models
      >>> net, x = models.linear_regression(), jnp.ones((3, 2))
      >>> outputs_of(net, *layers.init(net, jax.random.key(0), (2,)), x).shape
      (3, 1)
    """
    apply = model_of(model).apply
    n = inputs.shape[0]
    if n <= EVALUATED:
        return apply(params, state, inputs, train=False)[0]
    steps = iterations_per_epoch(n, EVALUATED)
    index = (jnp.arange(steps * EVALUATED) % n).reshape(steps, EVALUATED)
    parts = jax.lax.map(lambda at: apply(params, state, inputs[at], train=False)[0], index)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], parts)


@partial(jax.jit, static_argnames=("model", "how"))
def _members(model: Any, params: Any, state: Any, inputs: Array, how: str) -> Any:
    def one(member: Any) -> Any:
        params, state = member
        return outputs_of(model, params, state, inputs)

    return (jax.vmap(one) if how == "vmap" else partial(jax.lax.map, one))((params, state))


def predict_members(
    model: Layer | Model,
    params: Any,
    state: Any,
    inputs: Any,
    *,
    how: Literal["vmap", "map"] | None = None,
) -> Any:
    """The outputs of every member of an ensemble, in evaluation: one program.

    Args:
      model: the network (of the run: `run.model`).
      params, state: of an `Outcome` with one leading axis (s,).
      how: all members at once or one after the other; None, the measured rule.

    Shapes: inputs (n, ...); result (s, n, ...).

    Raises:
      ValueError: parameters without a leading axis of one length.

    Example:
      >>> from jaxd2l import layers, models
      >>> net, keys = models.linear_regression(), jax.random.split(jax.random.key(0), 4)
      >>> params, state = jax.vmap(lambda key: layers.init(net, key, (2,)))(keys)
      >>> predict_members(net, params, state, jnp.ones((3, 2))).shape
      (4, 3, 1)
    """
    inputs = jnp.asarray(inputs)
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves((params, state))}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(
            f"predict_members: all leaves must have one leading axis (s,) of members, "
            f"got lengths {sorted(sizes)}"
        )
    size = min(inputs.shape[0], EVALUATED)
    way = how or choose(model, inputs.shape[1:], size, jax.default_backend())
    return _members(model, params, state, inputs, way)


def _weights(weights: Any, outputs: Array, where: str) -> Array:
    """As (s, n, 1, ...) of the rank of the outputs, or (s, 1, ...)."""
    if weights is None:
        weights = jnp.ones(outputs.shape[0])
    weights = jnp.asarray(weights).astype(outputs.dtype)
    check_rank(weights, (1, 2), f"{where}: weights", "(s,) or (s, n)")
    if weights.shape != outputs.shape[: weights.ndim]:
        raise ValueError(
            f"{where}: weights must be (s,) or (s, n) for outputs {outputs.shape}, "
            f"got {weights.shape}"
        )
    return weights.reshape(weights.shape + (1,) * (outputs.ndim - weights.ndim))


def average_values(outputs: Array, weights: Any = None) -> Array:
    """The mean of the members' outputs: sum_m w_m f_m(x) / sum_m w_m.

    Shapes: outputs (s, n, ...); weights (s,), or (s, n) for each example its own (the members that
    may speak about it); result (n, ...), NaN where all weights are 0.

    Raises:
      ValueError: weights of another shape.
      TypeError: outputs that are not floating point.

    Example:
      >>> average_values(jnp.array([[1.0, 1.0], [3.0, 5.0]]), jnp.array([[1, 1], [1, 0]])).tolist()
      [2.0, 1.0]
    """
    where = "average_values"
    check_floating(outputs, f"{where}: outputs")
    w = _weights(weights, outputs, where)
    total = jnp.broadcast_to(w, (*w.shape[:1], *outputs.shape[1:])).sum(0)
    mean = (w * outputs).sum(0) / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, mean, jnp.nan)


def average_probabilities(logits: Array, weights: Any = None) -> Array:
    """The logarithm of the members' mean probabilities: log sum_m w_m softmax(f_m(x)) / sum_m w_m.

    It is given as logarithms so that it can be used as logits: their softmax is the mean, and
    `losses.softmax_cross_entropy` and `metrics.correct` take them. By Jensen's inequality the
    cross-entropy of the mean is never above the members' mean cross-entropy.

    Shapes: logits (s, n, ..., c); weights (s,) or (s, n); result (n, ..., c), NaN where all weights
    are 0.

    Raises:
      ValueError: weights of another shape.
      TypeError: logits that are not floating point.

    Example:
      >>> logits = jnp.log(jnp.array([[[0.5, 0.5]], [[0.9, 0.1]]]))
      >>> (100 * jnp.exp(average_probabilities(logits))).round().tolist()
      [[70.0, 30.0]]
    """
    where = "average_probabilities"
    check_floating(logits, f"{where}: logits")
    w = _weights(weights, logits, where)
    w = jnp.broadcast_to(w, (*w.shape[:1], *logits.shape[1:]))
    summed = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0, b=w)
    total = w.sum(0)
    return jnp.where(total > 0, summed - jnp.log(jnp.where(total > 0, total, 1)), jnp.nan)
