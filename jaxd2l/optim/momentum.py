"""Gradient descent, momentum and Nesterov's accelerated gradient."""

import jax.numpy as jnp
import optax

from jaxd2l.optim.rule import Array, Memory, Rate, check_fraction, elementwise


def sgd(learning_rate: Rate) -> optax.GradientTransformation:
    """Gradient descent: `x <- x - rate g`.

    The three forms of the notes differ in the batch that `g` is the mean over: all examples
    (gradient descent), one (stochastic) or some (mini-batch). The variance of `g` falls as one over
    the batch size. The book divides the gradient of a sum by the batch size; here the loss is the
    mean already.

    Args:
      learning_rate: a number, a () array or a schedule, called with the steps taken so far.

    Shapes: updates as the parameters.

    Raises:
      ValueError: the rate is negative or not finite. TypeError: it is of another kind.

    Source: Robbins and Monro 1951; D2L 12.4, 12.5. PyTorch `SGD(lr)` and Optax `sgd` are the same.

    Example:
      >>> params = jnp.array([1.0, -2.0])
      >>> method = sgd(0.1)
      >>> updates, state = method.update(2 * params, method.init(params))
      >>> optax.apply_updates(params, updates)
      Array([ 0.8, -1.6], dtype=float32)
    """

    def rule(g: Array, memory: Memory, rate: Array, count: Array) -> tuple[Array, Memory]:
        return -rate * g, memory

    return elementwise(rule, {}, learning_rate, "sgd")


def _velocity(
    learning_rate: Rate, momentum: float, rate_in_velocity: bool, ahead: bool, where: str
) -> optax.GradientTransformation:
    check_fraction(momentum, "momentum", where)

    def rule(g: Array, memory: Memory, rate: Array, count: Array) -> tuple[Array, Memory]:
        keep = jnp.asarray(momentum, g.dtype)
        pull = rate * g if rate_in_velocity else g
        velocity = keep * memory["velocity"] + pull
        step = keep * velocity + pull if ahead else velocity
        return -step if rate_in_velocity else -rate * step, {"velocity": velocity}

    return elementwise(rule, {"velocity": 0.0}, learning_rate, where)


def momentum(
    learning_rate: Rate, momentum: float = 0.9, *, rate_in_velocity: bool = True
) -> optax.GradientTransformation:
    """Heavy ball: `v <- momentum v + rate g`, `x <- x - v`.

    A constant gradient is followed with rate / (1 - momentum) in the end.

    Args:
      learning_rate: a number, a () array or a schedule.
      momentum: in [0, 1).
      rate_in_velocity: False for PyTorch's and Optax's `v <- momentum v + g`, `x <- x - rate v`.
        At a constant rate both are the same. When the rate changes, here the gradients of the past
        keep the rate they came with, there all get the new one at once.

    Shapes: velocity and updates as the parameters.

    Raises:
      ValueError: momentum is not in [0, 1), or the rate is negative. TypeError: as `sgd`.

    Source: Polyak 1964; D2L 12.6.

    Example:
      >>> method = momentum(0.5, 0.5)
      >>> state = method.init(jnp.zeros(1))
      >>> for _ in range(3):
      ...     updates, state = method.update(jnp.ones(1), state)
      >>> updates
      Array([-0.875], dtype=float32)
    """
    return _velocity(learning_rate, momentum, rate_in_velocity, False, "momentum")


def nesterov(
    learning_rate: Rate, momentum: float = 0.9, *, rate_in_velocity: bool = True
) -> optax.GradientTransformation:
    """Nesterov's momentum: `v <- momentum v + rate g(x - momentum v)`, `x <- x - v`.

    The gradient is taken where the velocity is about to lead. The parameters that training holds
    are those points, `y = x - momentum v`, so that gradients are taken at the parameters as
    everywhere: `y <- y - (momentum v + rate g(y))` with the new v, which is the same sequence.

    Args:
      learning_rate, momentum, rate_in_velocity: as `momentum`.

    Shapes: velocity and updates as the parameters.

    Raises:
      ValueError, TypeError: as `momentum`.

    Source: Nesterov 1983; Sutskever et al. 2013. PyTorch `SGD(nesterov=True)` and Optax hold y too,
    and multiply by the rate last.

    Example:
      >>> method = nesterov(0.5, 0.5)
      >>> method.update(jnp.ones(1), method.init(jnp.zeros(1)))[0]
      Array([-0.75], dtype=float32)
    """
    return _velocity(learning_rate, momentum, rate_in_velocity, True, "nesterov")
