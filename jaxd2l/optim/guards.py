"""A step whose gradients are not finite must not be taken."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


class SkipState(NamedTuple):
    """What `skip_non_finite` remembers.

    Attributes:
      inner: the state of the optimiser inside.
      skipped: () bool, whether the last step was skipped.
      total: () int32, how many steps were skipped so far.
    """

    inner: Any
    skipped: Array
    total: Array


def _finite(tree: Any) -> Array:
    """() bool: every floating point value is finite."""
    floats = [x for x in map(jnp.asarray, jax.tree.leaves(tree)) if _is_float(x)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats] or [jnp.array(True)]).all()


def _is_float(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _still_finite(old: Any, new: Any) -> Array:
    """() bool: no number that was finite has become infinite or NaN."""
    pairs = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    kept = [
        (jnp.isfinite(b) | ~jnp.isfinite(a)).all() for a, b in pairs if _is_float(jnp.asarray(b))
    ]
    return jnp.stack(kept or [jnp.array(True)]).all()


def skip_non_finite(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """The optimiser, except that a step that is not finite in every number is not taken.

    A step is skipped when a gradient, an update of `inner` or a number of its new state is NaN or
    infinite (the square of a gradient of 1e20 overflows in float32: Adam's memory would be infinite
    for ever). Then the updates are -0.0, so that parameters stay bit for bit, and the state of
    `inner` stays as it was, its count of steps included. There is no number of bad steps after
    which one is let through: `optax.apply_if_finite` gives up after `max_consecutive_errors`.
    `was_skipped` tells of the last step; `SkipState.total` how many there were.

    Make it the outermost wrapper: what comes after it in a chain acts on skipped steps too. Around
    `accumulate` it leaves a bad batch out of the sum.

    Raises:
      TypeError: inner is not an Optax transformation.

    Example:
      >>> optimizer = skip_non_finite(optax.adam(0.1))
      >>> params = {"w": jnp.array([1.0, 2.0])}
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update({"w": jnp.array([jnp.nan, 1.0])}, state, params)
      >>> optax.apply_updates(params, updates)["w"].tolist(), bool(was_skipped(state))
      ([1.0, 2.0], True)
    """
    inside = optax.with_extra_args_support(check_transformation(inner, "skip_non_finite"))

    def init(params: Any) -> SkipState:
        return SkipState(inside.init(params), jnp.array(False), jnp.zeros((), jnp.int32))

    def update(
        grads: Any, state: SkipState, params: Any = None, **extra: Any
    ) -> tuple[Any, SkipState]:
        good = _finite(grads)
        # zeros go in instead, so that no NaN reaches a derivative of the whole step either
        safe = jax.tree.map(lambda g: jnp.where(good, g, jnp.zeros_like(g)), grads)
        updates, new = inside.update(safe, state.inner, params, **extra)
        good = good & _finite(updates) & _still_finite(state.inner, new)
        updates = jax.tree.map(lambda u: jnp.where(good, u, jnp.full_like(u, -0.0)), updates)
        kept = jax.tree.map(lambda a, b: jnp.where(good, b, a), state.inner, new)
        return updates, SkipState(kept, ~good, state.total + (~good).astype(jnp.int32))

    return optax.GradientTransformationExtraArgs(init, update)


def check_transformation(inner: Any, where: str) -> optax.GradientTransformation:
    """`inner`, refused unless it is an Optax transformation.

    Example:
      >>> check_transformation(optax.sgd, "skip_non_finite")
      Traceback (most recent call last):
      TypeError: skip_non_finite: inner must be an optimiser such as optax.sgd(0.1), got function
    """
    if not (hasattr(inner, "init") and hasattr(inner, "update")):
        raise TypeError(
            f"{where}: inner must be an optimiser such as optax.sgd(0.1), "
            f"got {type(inner).__name__}"
        )
    return inner


def states_of(opt_state: Any, kind: Any) -> list[Any]:
    """All states of one kind inside the state of an optimiser, the outermost first.

    Example:
      >>> optimizer = optax.chain(optax.clip(1.0), skip_non_finite(optax.sgd(0.1)))
      >>> len(states_of(optimizer.init(jnp.ones(2)), SkipState))
      1
    """
    found: list[Any] = []
    outermost = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
    for node in outermost:
        if isinstance(node, kind):
            found += [node, *states_of(node.inner, kind)]
    return found


def was_skipped(opt_state: Any) -> Array | None:
    """Whether the last step was skipped by a `skip_non_finite` anywhere inside the optimiser.

    With several (one for each group of parameters), whether any skipped.

    Shapes: result: () bool, or None where there is no `skip_non_finite`.

    Example:
      >>> print(was_skipped(optax.sgd(0.1).init(jnp.ones(2))))
      None
    """
    flags = [state.skipped for state in states_of(opt_state, SkipState)]
    return jnp.stack(flags).any(axis=0) if flags else None
