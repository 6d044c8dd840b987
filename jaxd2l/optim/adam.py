"""Adam, AdamW and RAdam."""

from typing import Any

import jax.numpy as jnp
import optax

from jaxd2l.optim.decay import Where, decoupled_decay, is_kernel
from jaxd2l.optim.rule import (
    Array,
    Memory,
    Rate,
    blend,
    check_fraction,
    check_not_negative,
    correction,
    elementwise,
    log_of,
    root,
)

MOMENTS = {"mean": 0.0, "square": 0.0}


def _check(b1: Any, b2: Any, eps: Any, where: str) -> None:
    check_fraction(b1, "b1", where)
    check_fraction(b2, "b2", where)
    check_not_negative(eps, "eps", where)


def _moments(b1: Any, b2: Any, g: Array, memory: Memory) -> Memory:
    return {
        "mean": blend(b1, memory["mean"], g),
        "square": blend(b2, memory["square"], jnp.square(g)),
    }


def adam(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    *,
    eps_in_root: bool = False,
) -> optax.GradientTransformation:
    """Adam: a running mean of the gradient over the root of that of its square.

        m <- b1 m + (1 - b1) g            m' = m / (1 - b1^t)
        v <- b2 v + (1 - b2) g^2          v' = v / (1 - b2^t)
        x <- x - rate m' / (sqrt(v') + eps)

    Up to eps the step does not depend on the scale of the gradients. The first step is one rate
    long, and no step of any sequence is longer than
    rate (1 - b1) / sqrt((1 - b2)(1 - b1^2 / b2)), 7.27 rates with these constants.

    Args:
      learning_rate: a number, a () array or a schedule.
      b1, b2: in [0, 1).
      eps: at least 0.
      eps_in_root: True divides by `sqrt(v' + eps)`, which can be differentiated where v is 0: for
        gradients through a run.

    Shapes: m, v and updates as the parameters.

    Raises:
      ValueError: b1 or b2 is not in [0, 1), or eps or the rate is negative. TypeError: as `sgd`.

    Source: Kingma and Ba 2014; D2L 12.10. PyTorch and Optax: `eps=1e-8`. Optax computes 1 - b2^t
    with an error of 1e-5 in float32, keeps bfloat16 moments, and raises under strict promotion.

    Example:
      >>> method = adam(0.5)
      >>> method.update(jnp.array([5.0, -500.0]), method.init(jnp.zeros(2)))[0].round(4)
      Array([-0.5,  0.5], dtype=float32)
    """
    _check(b1, b2, eps, "adam")

    def rule(g: Array, memory: Memory, rate: Array, count: Array) -> tuple[Array, Memory]:
        moments = _moments(b1, b2, g, memory)
        mean = moments["mean"] / correction(b1, count, g.dtype)
        square = moments["square"] / correction(b2, count, g.dtype)
        return -rate * mean / root(square, eps, eps_in_root), moments

    return elementwise(rule, MOMENTS, learning_rate, "adam")


def adamw(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 0.01,
    *,
    where: Where = is_kernel,
) -> optax.GradientTransformationExtraArgs:
    """Adam with decoupled weight decay: `x <- (1 - rate decay) x - rate m' / (sqrt(v') + eps)`.

    The same as `optax.chain(adam(rate), decoupled_decay(weight_decay, rate))`. An L2 penalty in the
    loss would be divided by sqrt(v') like every gradient, so that weights with large gradients
    would hardly decay; with plain `sgd` the two are the same.

    Args:
      learning_rate, b1, b2, eps: as `adam`.
      weight_decay: at least 0, or one for each pattern of paths, as `decoupled_decay`; rate times
        weight_decay should be below 1.
      where: path ("dense/kernel") -> whether that parameter decays. By default kernels only: no
        biases, no norms, no parameter without a name.

    Shapes: m, v and updates as the parameters.

    Raises:
      ValueError: as `adam` and `decoupled_decay`. TypeError: as `sgd`.

    Source: Loshchilov and Hutter 2017. PyTorch: `eps=1e-8`, everything decays
    (`where=lambda path: True`). Optax: so too, `eps=1e-8, weight_decay=1e-4`.

    Example:
      >>> params = {"kernel": jnp.array([1.0]), "bias": jnp.array([1.0])}
      >>> zero = {"kernel": jnp.zeros(1), "bias": jnp.zeros(1)}
      >>> method = adamw(0.1, weight_decay=0.5)
      >>> updates, _ = method.update(zero, method.init(params), params)
      >>> print(updates["kernel"], abs(updates["bias"]))
      [-0.05] [0.]
    """
    _check(b1, b2, eps, "adamw")
    decay = decoupled_decay(weight_decay, learning_rate, where=where)
    return optax.chain(adam(learning_rate, b1, b2, eps), decay)


def _length(b2: Any, count: Array, dtype: Any) -> Array:
    """rho_t = rho_inf - 2 t b2^t / (1 - b2^t), with a = -log(b2) and x = a t

      = (rho_inf - 2 / a) + (2 / a) (1 - x / expm1(x)),

    the last bracket by its series for small x: in float32 the first form loses four digits.
    """
    log = log_of(b2)
    x = count.astype(dtype) * jnp.asarray(-log, dtype)
    series = x * (1 / 2 - x * (1 / 12 - x * x * (1 / 720 - x * x / 30240)))
    large = jnp.where(x < 0.5, 1.0, x)
    bracket = jnp.where(x < 0.5, series, 1 - large / jnp.expm1(large))
    offset = 2 / (1 - b2) - 1 + 2 / log
    return jnp.asarray(offset, dtype) + jnp.asarray(-2 / log, dtype) * bracket


def radam(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    threshold: float = 4.0,
) -> optax.GradientTransformation:
    """Rectified Adam: adaptive only where the average of squares has seen enough gradients.

        rho_inf = 2 / (1 - b2) - 1,   rho_t = rho_inf - 2 t b2^t / (1 - b2^t)
        r_t^2 = (rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t)
        rho_t > threshold:  x <- x - rate r_t m' sqrt(1 - b2^t) / (sqrt(v) + eps)
        else:               x <- x - rate m'

    with m, m' and v as in `adam`. r_t grows from 0 to 1: a warm-up. With b2 = 0.999 the first four
    steps are plain momentum at the full rate.

    Args:
      learning_rate: a number, a () array or a schedule.
      b1: in [0, 1).
      b2: in (0.6, 1); at 0.6 and below no step would be rectified.
      eps: at least 0, added before the correction, as the authors' program does.
      threshold: at least 4.

    Shapes: m, v and updates as the parameters.

    Raises:
      ValueError: a constant out of its range, or the rate is negative. TypeError: as `sgd`.

    Source: Liu et al. 2019, threshold 4. PyTorch: `threshold=5.0`. Optax: from 5 on, eps added to
    the corrected root, and rho_t with an error of 1e-5 in float32.

    Example:
      >>> method = radam(0.1)
      >>> method.update(jnp.array([5.0]), method.init(jnp.zeros(1)))[0].round(4)
      Array([-0.5], dtype=float32)
    """
    _check(b1, b2, eps, "radam")
    if isinstance(b2, float | int) and b2 <= 0.6:
        raise ValueError(f"radam: b2 must be above 0.6, or no step is rectified, got {b2}")
    if threshold < 4:
        raise ValueError(f"radam: threshold must be at least 4, got {threshold}")
    limit = 2 / (1 - b2) - 1

    def rule(g: Array, memory: Memory, rate: Array, count: Array) -> tuple[Array, Memory]:
        dtype = g.dtype
        moments = _moments(b1, b2, g, memory)
        mean = moments["mean"] / correction(b1, count, dtype)
        length = _length(b2, count, dtype)
        enough = length > threshold
        end = jnp.asarray(limit, dtype)
        length = jnp.where(enough, length, end)
        ratio = (length - 4) / (end - 4) * ((length - 2) / (end - 2)) * (end / length)
        scale = jnp.sqrt(ratio * correction(b2, count, dtype))
        square = jnp.where(enough, moments["square"], jnp.ones((), dtype))
        adaptive = scale * mean / root(square, eps, False)
        return -rate * jnp.where(enough, adaptive, mean), moments

    return elementwise(rule, MOMENTS, learning_rate, "radam")
