"""Weight decay, for the parameters whose paths are chosen: by default kernels, nothing else.

Biases, scales of norms and embeddings are left alone by default: they are few, and pulling them to
0 does not make a function smoother. A strength is a number for all chosen parameters, or one for
each layer: `{"output/*": 1e-3, "*": 1e-4}`, where the first pattern that matches counts (`*`
matches any text, "/" included) and what none matches does not decay. A pattern that matches no
chosen parameter is refused.
"""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxd2l.layers.patterns import check_patterns, refuse, unmatched
from jaxd2l.optim.rule import (
    Rate,
    check_learning_rate,
    check_not_negative,
    check_params,
    next_count,
    rate_at,
    wide,
)

Array = jax.Array
Where = Callable[[str], bool]
Strength = Any  #: a number, a () array, or a mapping of path patterns to these


def is_kernel(path: str) -> bool:
    """Whether a path ends in a kernel: `conv1/kernel`, `lstm/recurrent_kernel`; not `bn/scale`.

    Example:
      >>> [is_kernel(p) for p in ("conv1/kernel", "attention/query_kernel", "bn/scale", "fc/bias")]
      [True, True, False, False]
    """
    return path.rsplit("/", 1)[-1].endswith("kernel")


def path_mask(where: Where = is_kernel) -> Callable[[Any], Any]:
    """A function from parameters to a tree of True and False by path: a mask as Optax takes it.

    Example:
      >>> path_mask()({"dense": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}})
      {'dense': {'bias': False, 'kernel': True}}
    """
    return lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: bool(where(_text(path))), params
    )


def _text(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_strength(strength: Strength, where: str) -> None:
    """Refuse a strength below 0, or patterns that are not strings."""
    if isinstance(strength, Mapping):
        check_patterns(strength, where)
    values = strength.values() if isinstance(strength, Mapping) else [strength]
    for value in values:
        check_not_negative(value, "strength", where)


def strengths(strength: Strength, params: Any, where: Where, what: str) -> list[Any]:
    """The strength of each leaf in order; None for what is not chosen.

    Raises:
      ValueError: a pattern that matches no chosen parameter.

    Example:
      >>> params = {"a": {"kernel": jnp.ones(1)}, "b": {"bias": jnp.ones(1), "kernel": jnp.ones(1)}}
      >>> strengths({"b/*": 0.1, "*": 0.2}, params, is_kernel, "l2")
      [0.2, None, 0.1]
    """
    paths = [_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    if not isinstance(strength, Mapping):
        return [strength if where(path) else None for path in paths]
    chosen = [path for path in paths if where(path)]
    refuse(what, unmatched(strength, chosen, "parameter that decays"))

    def first(path: str) -> Any:
        return next((v for p, v in strength.items() if fnmatch.fnmatchcase(path, p)), None)

    return [first(path) if where(path) else None for path in paths]


class StepState(NamedTuple):
    """What a part of a chain with a learning rate of its own remembers: () int32, steps taken."""

    steps: Array


def _pulled(
    updates: Any, params: Any, pulls: list[Any], move: Callable[[Array, Array, Any], Array]
) -> Any:
    """move(update, parameter, pull) for the leaves with a pull, computed in the wide dtype."""
    leaves, structure = jax.tree.flatten(updates)
    beside = jax.tree.leaves(params)

    def moved(leaf: Array, param: Array, pull: Any) -> Array:
        if pull is None:
            return leaf
        dtype = wide(leaf.dtype)
        strength = jnp.asarray(pull).astype(dtype)
        return move(leaf.astype(dtype), param.astype(dtype), strength).astype(leaf.dtype)

    triples = zip(leaves, beside, pulls, strict=True)
    return jax.tree.unflatten(structure, [moved(*each) for each in triples])


def l2(strength: Strength, *, where: Where = is_kernel) -> optax.GradientTransformation:
    """The gradient of J = L + (strength / 2) |w|^2, out of that of L: g + strength w.

    To be put before an optimiser, `optax.chain(l2(1e-4), sgd(0.1))`, and inside of `sam`. With
    plain SGD a step is w <- (1 - rate strength) w - rate g, the same as `decoupled_decay`, and
    shrinks w only while rate strength < 1. Adaptive methods divide the pull by what they divide
    gradients by, so that weights with large gradients hardly shrink: use `decoupled_decay`. The
    loss that is reported is L alone; with `ops.penalties.l2_penalty` in the loss it would be J.

    Args:
      strength: at least 0, or one for each pattern of paths.
      where: path ("dense/kernel") -> whether that parameter has a penalty.

    Shapes: updates as the parameters.

    Raises:
      ValueError: a negative strength, a pattern that matches nothing, `update` without parameters.

    Source: D2L 3.7; catalogue F22. PyTorch: the `weight_decay` of all but AdamW, of biases too.
    Optax: `add_decayed_weights(strength, mask)`.

    Example:
      >>> optimizer = optax.chain(l2(0.1), optax.sgd(0.5))
      >>> params = {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}
      >>> zero = jax.tree.map(jnp.zeros_like, params)
      >>> updates, _ = optimizer.update(zero, optimizer.init(params), params)
      >>> print(updates["kernel"], abs(updates["bias"]))
      [-0.1] [0.]
    """
    check_strength(strength, "l2")

    def init(params: Any) -> optax.EmptyState:
        strengths(strength, params, where, "l2")
        return optax.EmptyState()

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        check_params(params, "l2", "optimizer")
        pulls = strengths(strength, params, where, "l2")
        return _pulled(grads, params, pulls, lambda g, w, pull: g + pull * w), state

    return optax.GradientTransformation(init, update)


def with_rate(
    strength: Strength,
    learning_rate: Rate,
    where: Where,
    what: str,
    move: Callable[[Array, Array, Any], Array],
) -> optax.GradientTransformation:
    """The transformation update <- move(update, parameter, rate strength) at the chosen paths."""
    check_strength(strength, what)
    check_learning_rate(learning_rate, what)

    def init(params: Any) -> StepState:
        strengths(strength, params, where, what)
        return StepState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: StepState, params: Any = None) -> tuple[Any, StepState]:
        check_params(params, what, "optimizer")
        rate = rate_at(learning_rate, state.steps)
        rate = rate.astype(wide(rate.dtype))
        pulls = [
            None if value is None else rate * jnp.asarray(value).astype(rate.dtype)
            for value in strengths(strength, params, where, what)
        ]
        return _pulled(updates, params, pulls, move), StepState(next_count(state.steps))

    return optax.GradientTransformation(init, update)


def decoupled_decay(
    strength: Strength, learning_rate: Rate, *, where: Where = is_kernel
) -> optax.GradientTransformation:
    """Weight decay beside the optimiser: its update minus rate strength w.

    To be put after an optimiser, with the same rate: `optax.chain(adam(rate), decoupled_decay(0.01,
    rate))` is AdamW. A step without gradient is w <- (1 - rate strength) w whatever the optimiser
    is; above rate strength = 1 the sign flips.

    Args:
      strength: at least 0, or one for each pattern of paths.
      learning_rate: that of the optimiser: a number, a () array or a schedule.
      where: path ("dense/kernel") -> whether that parameter decays.

    Shapes: updates as the parameters.

    Raises:
      ValueError: a negative strength or rate, a pattern that matches nothing, `update` without
        parameters.

    Source: Loshchilov and Hutter 2019; catalogue F22. PyTorch's and Optax's AdamW decay every
    parameter by default.

    Example:
      >>> optimizer = optax.chain(optax.adam(0.5), decoupled_decay(0.1, 0.5))
      >>> params = {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}
      >>> zero = jax.tree.map(jnp.zeros_like, params)
      >>> updates, _ = optimizer.update(zero, optimizer.init(params), params)
      >>> print(updates["kernel"], abs(updates["bias"]))
      [-0.1] [0.]
    """
    return with_rate(
        strength, learning_rate, where, "decoupled_decay", lambda u, w, pull: u - pull * w
    )
