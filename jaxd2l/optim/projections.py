"""What is done to the parameters after a step: soft thresholding, and a bound on their norm.

Each is the last part of a chain, `optax.chain(sgd(0.1), max_norm(3.0))`: it looks at where the
updates lead and moves that point.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxd2l.checks import check_floating
from jaxd2l.ops.penalties import soft_threshold
from jaxd2l.ops.vector_norms import lp_norm
from jaxd2l.optim.decay import Strength, Where, is_kernel, path_mask, with_rate
from jaxd2l.optim.rule import Rate, check_params, wide

Array = jax.Array


def proximal_l1(
    strength: Strength, learning_rate: Rate, *, where: Where = is_kernel
) -> optax.GradientTransformation:
    """An L1 penalty by its proximal step: w <- soft_threshold(w + update, rate strength).

    To be put after an optimiser, with the same rate. After `sgd` it is proximal gradient descent
    (ISTA) on L + strength sum |w|, whose weights are 0 exactly; descent on `ops.penalties.
    l1_penalty` only comes near 0. After an adaptive optimiser it shrinks all weights alike, as
    decoupled decay does, and what it minimises is not that sum.

    Args:
      strength: at least 0, or one for each pattern of paths.
      learning_rate: that of the optimiser: a number, a () array or a schedule.
      where: path ("dense/kernel") -> whether that parameter has the penalty.

    Shapes: updates as the parameters.

    Raises:
      ValueError: a negative strength or rate, a pattern that matches nothing, `update` without
        parameters.

    Source: Beck and Teboulle 2009; Tibshirani 1996.

    Example:
      >>> optimizer = optax.chain(optax.sgd(1.0), proximal_l1(0.5, 1.0))
      >>> params = {"kernel": jnp.array([0.25, 2.0])}
      >>> zero = {"kernel": jnp.zeros(2)}
      >>> updates, _ = optimizer.update(zero, optimizer.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [0.  1.5]
    """
    return with_rate(
        strength,
        learning_rate,
        where,
        "proximal_l1",
        lambda update, w, pull: soft_threshold(w + update, pull) - w,
    )


def project_norm(x: Array, limit: Any, axes: Sequence[int] | None = None) -> Array:
    """The nearest point whose norm over `axes` is at most `limit`: x min(1, limit / |x|).

    Shapes:
      x: any, for instance a kernel (..., in, out); axes: those of one unit's weights, all but the
      last by default; limit: (), positive; result: as x.

    Raises:
      TypeError: x is not floating point.

    Source: Srivastava et al. 2014, section 5.1.

    Example:
      >>> print(project_norm(jnp.array([[3.0, 0.3], [4.0, 0.4]]), 1.0))
      [[0.6 0.3]
       [0.8 0.4]]
    """
    check_floating(x, "project_norm: x")
    x = jnp.asarray(x)
    over = tuple(range(x.ndim - 1)) if axes is None else tuple(axes)
    norm = jnp.expand_dims(lp_norm(x, 2, over), over)
    bound = jnp.asarray(limit).astype(x.dtype)
    outside = norm > bound  # not where it is NaN
    return jnp.where(outside, x * (bound / jnp.where(outside, norm, jnp.ones_like(norm))), x)


def max_norm(
    limit: Any, *, where: Where = is_kernel, axes: Sequence[int] | None = None
) -> optax.GradientTransformation:
    """Keep the norm of each unit's incoming weights at most `limit`: w <- project_norm(w + update).

    The last part of a chain: projected gradient descent. Where the bound is active at a minimum,
    the gradient is -mu w with mu >= 0 (Karush-Kuhn-Tucker); elsewhere it is 0.

    Args:
      limit: positive, a number or a () array; 3 or 4 with dropout.
      where: path ("dense/kernel") -> whether that parameter is bounded.
      axes: of one unit's weights; by default all but the last, right for kernels (..., in, out).
        The kernels of attention (in, heads, features) and those of a `Repeat` (times, ..., in, out)
        have others: leave them out by `where`, or give theirs ((0,) and (-2,) for dense ones).

    Shapes: updates as the parameters.

    Raises:
      ValueError: a limit that is not positive, `update` without parameters.

    Source: Srivastava et al. 2014, section 5.1. Keras: `MaxNorm`. PyTorch's `renorm_` bounds one
    row each.

    Example:
      >>> optimizer = optax.chain(optax.sgd(1.0), max_norm(1.0))
      >>> params = {"kernel": jnp.array([[0.6], [0.0]])}
      >>> grads = {"kernel": jnp.array([[0.0], [-0.8]])}
      >>> updates, _ = optimizer.update(grads, optimizer.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"].ravel())  # of norm 1
      [0.6 0.8]
    """
    if isinstance(limit, int | float) and not limit > 0:
        raise ValueError(f"max_norm: limit must be positive, got {limit}")

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        check_params(params, "max_norm", "optimizer")

        def bounded(chosen: bool, change: Array, param: Array) -> Array:
            if not chosen:
                return change
            dtype = wide(change.dtype)
            w = param.astype(dtype)
            new = project_norm(w + change.astype(dtype), limit, axes) - w
            return new.astype(change.dtype)

        # True and False have the structure of params, whose masked parts have no leaves
        return jax.tree.map(bounded, path_mask(where)(params), updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
