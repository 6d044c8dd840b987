"""LookAhead around any optimiser, and Ranger."""

import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxd2l.optim.adam import radam
from jaxd2l.optim.guards import check_transformation
from jaxd2l.optim.rule import Array, Rate, check_params, next_count


class LookaheadState(NamedTuple):
    """What LookAhead remembers.

    Attributes:
      steps: () int32, steps taken.
      slow: the slow weights, like the parameters.
      inner: the state of the inner optimiser.
    """

    steps: Array
    slow: Any
    inner: Any


def lookahead(
    inner: optax.GradientTransformation, period: int = 5, fraction: float = 0.5
) -> optax.GradientTransformationExtraArgs:
    """k steps forward, one step back.

    The parameters are the fast weights, which `inner` moves. Every `period` steps

        slow <- slow + fraction (fast - slow),   fast <- slow.

    The slow weights live in the state and start from the parameters, so this goes wherever an
    optimiser goes. To evaluate the slow weights alone, stop after a multiple of `period` steps,
    where both are the same.

    Args:
      inner: any optimiser; its memory is kept when the weights go back.
      period: the number k of steps, at least 1.
      fraction: alpha, in (0, 1].

    Shapes: slow weights and updates as the parameters.

    Raises:
      ValueError: period or fraction is out of its range; `update` is called without parameters.
      TypeError: inner is no transformation.

    Source: Zhang et al. 2019. Optax's `lookahead` is the same with the slow weights beside the
    parameters (`LookaheadParams`).

    Example:
      >>> from jaxd2l.optim import sgd
      >>> method, params = lookahead(sgd(1.0), period=2), jnp.zeros(1)
      >>> state = method.init(params)
      >>> for _ in range(2):
      ...     updates, state = method.update(-jnp.ones(1), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> params
      Array([1.], dtype=float32)
    """
    if isinstance(period, bool) or not isinstance(period, numbers.Integral) or period < 1:
        raise ValueError(f"lookahead: period must be a whole number of at least 1, got {period!r}")
    if isinstance(fraction, numbers.Real) and not 0 < fraction <= 1:
        raise ValueError(f"lookahead: fraction must be in (0, 1], got {fraction}")
    wrapped = optax.with_extra_args_support(check_transformation(inner, "lookahead"))

    def init(params: Any) -> LookaheadState:
        slow = jax.tree.map(jnp.array, params)  # a copy: a donated state must not share buffers
        return LookaheadState(jnp.zeros((), jnp.int32), slow, wrapped.init(params))

    def update(
        grads: Any, state: LookaheadState, params: Any = None, **extra: Any
    ) -> tuple[Any, LookaheadState]:
        check_params(params, "lookahead", "optimizer")
        updates, inner_state = wrapped.update(grads, state.inner, params, **extra)
        count = next_count(state.steps)
        meet = count % period == 0

        def back(param: Array, change: Array, slow: Array) -> Array:
            share = jnp.asarray(fraction, slow.dtype)
            target = slow + share * (param + change - slow)
            return jnp.where(meet, target - param, change)

        updates = jax.tree.map(back, params, updates, state.slow)
        slow = jax.tree.map(
            lambda param, change, slow: jnp.where(meet, param + change, slow),
            params,
            updates,
            state.slow,
        )
        return updates, LookaheadState(count, slow, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def ranger(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    threshold: float = 4.0,
    period: int = 5,
    fraction: float = 0.5,
) -> optax.GradientTransformationExtraArgs:
    """LookAhead around RAdam: `lookahead(radam(learning_rate, ...), period, fraction)`.

    Args:
      learning_rate, b1, b2, eps, threshold: as `radam`.
      period, fraction: as `lookahead`.

    Shapes: memory and updates as the parameters.

    Raises:
      ValueError, TypeError: as `radam` and `lookahead`.

    Source: Wright 2019, whose program has b1 = 0.95, eps = 1e-5, threshold 5 and period 6. PyTorch
    and Optax have no Ranger.

    Example:
      >>> params = jnp.array([1.0])
      >>> method = ranger(0.5)
      >>> method.update(params, method.init(params), params)[0].round(4)
      Array([-0.5], dtype=float32)
    """
    return lookahead(radam(learning_rate, b1, b2, eps, threshold=threshold), period, fraction)
