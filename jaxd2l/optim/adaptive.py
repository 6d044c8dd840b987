"""AdaGrad, RMSProp and AdaDelta: a rate for every parameter, from the gradients it has seen."""

import jax.numpy as jnp
import optax

from jaxd2l.optim.rule import (
    Array,
    Memory,
    Rate,
    blend,
    check_fraction,
    check_not_negative,
    elementwise,
    root,
)


def adagrad(
    learning_rate: Rate, eps: float = 1e-6, *, eps_in_root: bool = True, initial: float = 0.0
) -> optax.GradientTransformation:
    """AdaGrad: `s <- s + g^2`, `x <- x - rate g / sqrt(s + eps)`.

    Under gradients of one size the effective rate falls as 1 / sqrt(t): it may stop too early.

    Args:
      learning_rate: a number, a () array or a schedule.
      eps: at least 0.
      eps_in_root: False divides by `sqrt(s) + eps`.
      initial: what s starts from.

    Shapes: s and updates as the parameters.

    Raises:
      ValueError: eps or initial is negative, or the rate is. TypeError: as `sgd`.

    Source: Duchi et al. 2011; D2L 12.7. PyTorch: `eps=1e-10, eps_in_root=False`. Optax: eps in the
    root, `eps=1e-7, initial=0.1`, and no step where s is 0.

    Example:
      >>> method = adagrad(0.4)
      >>> updates, state = method.update(jnp.array([3.0]), method.init(jnp.zeros(1)))
      >>> method.update(jnp.array([4.0]), state)[0]
      Array([-0.32], dtype=float32)
    """
    check_not_negative(eps, "eps", "adagrad")
    check_not_negative(initial, "initial", "adagrad")

    def rule(g: Array, memory: Memory, rate: Array, count: Array) -> tuple[Array, Memory]:
        square = memory["square"] + jnp.square(g)
        return -rate * g / root(square, eps, eps_in_root), {"square": square}

    return elementwise(rule, {"square": initial}, learning_rate, "adagrad")


def rmsprop(
    learning_rate: Rate, decay: float = 0.9, eps: float = 1e-6, *, eps_in_root: bool = True
) -> optax.GradientTransformation:
    """RMSProp: `s <- decay s + (1 - decay) g^2`, `x <- x - rate g / sqrt(s + eps)`.

    s starts from 0 and is not corrected for it, so the first step is rate / sqrt(1 - decay) long:
    3.16 rates at 0.9, 31.6 at 0.999. Adam corrects.

    Args:
      learning_rate: a number, a () array or a schedule.
      decay: in [0, 1); the book's gamma.
      eps: at least 0.
      eps_in_root: False divides by `sqrt(s) + eps`.

    Shapes: s and updates as the parameters.

    Raises:
      ValueError: decay is not in [0, 1), or eps or the rate is negative. TypeError: as `sgd`.

    Source: Tieleman and Hinton 2012; D2L 12.8. PyTorch: `decay=0.99, eps=1e-8, eps_in_root=False`.
    Optax: `eps=1e-8`, in the root unless told otherwise.

    Example:
      >>> method = rmsprop(0.1)
      >>> method.update(jnp.array([5.0, -500.0]), method.init(jnp.zeros(2)))[0].round(4)
      Array([-0.3162,  0.3162], dtype=float32)
    """
    check_fraction(decay, "decay", "rmsprop")
    check_not_negative(eps, "eps", "rmsprop")

    def rule(g: Array, memory: Memory, rate: Array, count: Array) -> tuple[Array, Memory]:
        square = blend(decay, memory["square"], jnp.square(g))
        return -rate * g / root(square, eps, eps_in_root), {"square": square}

    return elementwise(rule, {"square": 0.0}, learning_rate, "rmsprop")


def adadelta(
    learning_rate: Rate = 1.0, decay: float = 0.9, eps: float = 1e-5
) -> optax.GradientTransformation:
    """AdaDelta, which needs no learning rate.

        s <- decay s + (1 - decay) g^2
        h  = g sqrt((d + eps) / (s + eps))        the step
        d <- decay d + (1 - decay) h^2
        x <- x - learning_rate h

    Steps are in the units of the parameters, up to eps. `eps` sets how long the first ones are,
    about sqrt(eps / (1 - decay)).

    Args:
      learning_rate: 1 is the method; a number, a () array or a schedule scales its steps.
      decay: in [0, 1); the book's rho.
      eps: above 0 to move at all.

    Shapes: s, d and updates as the parameters.

    Raises:
      ValueError: decay is not in [0, 1), or eps or the rate is negative. TypeError: as `sgd`.

    Source: Zeiler 2012; D2L 12.9. PyTorch: `eps=1e-6`. Optax: `adadelta()` without a rate (0.2.8)
    gives updates of the sign of g, which ascend; this descends.

    Example:
      >>> method = adadelta()
      >>> method.update(jnp.array([2.0]), method.init(jnp.zeros(1)))[0].round(4)
      Array([-0.01], dtype=float32)
    """
    check_fraction(decay, "decay", "adadelta")
    check_not_negative(eps, "eps", "adadelta")

    def rule(g: Array, memory: Memory, rate: Array, count: Array) -> tuple[Array, Memory]:
        square = blend(decay, memory["square"], jnp.square(g))
        step = g * root(memory["delta"], eps, True) / root(square, eps, True)
        delta = blend(decay, memory["delta"], jnp.square(step))
        return -rate * step, {"square": square, "delta": delta}

    return elementwise(rule, {"square": 0.0, "delta": 0.0}, learning_rate, "adadelta")
