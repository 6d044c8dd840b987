"""Sharpness-aware minimisation around any optimiser."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxd2l.ops.metrics import global_norm
from jaxd2l.optim.guards import check_transformation
from jaxd2l.optim.rule import Array, check_not_negative, check_params


def sam(
    inner: optax.GradientTransformation, radius: float = 0.05
) -> optax.GradientTransformationExtraArgs:
    """Descend by the gradient at the worst point nearby: `g(x + radius g(x) / |g(x)|)`.

    The norm is over all parameters. That gradient takes the place of `g(x)` in the inner
    optimiser; a step costs two gradients. Where `g(x)` is 0, so is the way to the worst point.

    `update` needs `grad_fn`, the function from parameters to gradients on the same batch and with
    the same random key; the training step hands it over.

    Args:
      inner: any optimiser.
      radius: at least 0; 0 is the inner optimiser itself.

    Shapes: updates as the parameters; state as the inner optimiser's.

    Raises:
      ValueError: radius is negative; `update` is called without parameters or without `grad_fn`.
      TypeError: inner is no transformation.

    Source: Foret et al. 2020. Optax's `contrib.sam` takes the two gradients in alternate calls
    unless it is opaque.

    Example:
      >>> from jaxd2l.optim import sgd
      >>> method, params = sam(sgd(0.5), radius=5.0), jnp.array([3.0, 4.0])
      >>> gradient = lambda x: 2 * x
      >>> method.update(gradient(params), method.init(params), params, grad_fn=gradient)[0]
      Array([-6., -8.], dtype=float32)
    """
    check_not_negative(radius, "radius", "sam")
    wrapped = optax.with_extra_args_support(check_transformation(inner, "sam"))

    def update(
        grads: Any,
        state: Any,
        params: Any = None,
        *,
        grad_fn: Callable[[Any], Any] | None = None,
        **extra: Any,
    ) -> tuple[Any, Any]:
        check_params(params, "sam", "optimizer")
        if grad_fn is None:
            raise ValueError(
                "sam: update needs the gradient as a function: pass grad_fn=(params -> gradients, "
                "on the same batch) to update; train.fit and train.make_run do"
            )
        norm = global_norm(grads)
        scale = jnp.asarray(radius, norm.dtype) / jnp.where(norm > 0, norm, 1)

        def away(param: Array, gradient: Array) -> Array:
            return param + (scale.astype(gradient.dtype) * gradient).astype(param.dtype)

        worst = grad_fn(jax.tree.map(away, params, grads))
        return wrapped.update(worst, state, params, grad_fn=grad_fn, **extra)

    return optax.GradientTransformationExtraArgs(wrapped.init, update)
