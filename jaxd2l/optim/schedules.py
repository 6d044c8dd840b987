"""Learning rates that change: functions of the step count t = 0, 1, 2, ...

Every function here returns a schedule, `rate = schedule(t)`, to be given where an optimiser takes a
learning rate. t may be a Python integer or a traced one, base rates may be traced too (a sweep over
them is one program). The result is a scalar of the dtype of the base rate, float32 for a number.
Steps are updates of the parameters: for a schedule by epochs multiply by the batches of an epoch.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.geometry import as_int

Array = jax.Array
Schedule = Callable[[Any], Array]


def _rate(value: Any) -> Array:
    """A rate as a strongly typed floating point scalar."""
    value = jnp.asarray(value)
    floating = jnp.issubdtype(value.dtype, jnp.floating) and not value.weak_type
    return value if floating else value.astype(jnp.result_type(float))


def _positive(value: Any, what: str) -> None:
    """Refuse a number that is not positive; an array may be traced and is not looked at."""
    if isinstance(value, bool) or (isinstance(value, int | float) and not value > 0):
        raise ValueError(f"{what} must be positive, got {value!r}")


def constant(base: Any) -> Schedule:
    """rate(t) = base.

    Shapes: base: (); result: a function of t (), giving ().

    Source: D2L 12.11. Equal to `optax.constant_schedule`.

    Example:
      >>> float(constant(0.5)(100))
      0.5
    """

    def schedule(count: Any) -> Array:
        return _rate(base)

    return schedule


def factor(base: Any, factor: Any, *, floor: Any = 0.0) -> Schedule:
    """rate(t) = max(floor, base factor^t): D2L's factor (exponential) decay.

    It solves eta_(t+1) = max(floor, eta_t factor). base exp(-c t) is a factor of exp(-c).

    Shapes: base, factor, floor: (); result: a function of t (), giving ().

    Raises:
      ValueError: a number for factor that is not positive.

    Source: D2L 12.11.3.1; its code multiplies before it returns, and is one step ahead of its
    formula. PyTorch: `ExponentialLR`, which has no floor. Equal to
    `optax.exponential_decay(base, 1, factor, end_value=floor)`.

    Example:
      >>> rate = factor(2.0, 0.5, floor=0.3)
      >>> [round(float(rate(t)), 2) for t in range(5)]
      [2.0, 1.0, 0.5, 0.3, 0.3]
    """
    _positive(factor, "factor: factor")

    def schedule(count: Any) -> Array:
        rate = _rate(base)
        decayed = rate * jnp.power(_as(factor, rate), _as(count, rate))
        return jnp.maximum(_as(floor, rate), decayed)

    return schedule


def _as(value: Any, like: Array) -> Array:
    return jnp.asarray(value).astype(like.dtype)


def step(base: Any, every: int, factor: Any) -> Schedule:
    """rate(t) = base factor^floor(t / every): lowered at once after every `every` steps.

    Shapes: base, factor: (); result: a function of t (), giving ().

    Raises:
      ValueError: every below 1, or a number for factor that is not positive.

    Source: D2L 12.11. Equal to PyTorch's `StepLR` and to
    `optax.exponential_decay(base, every, factor, staircase=True)`.

    Example:
      >>> rate = step(1.0, every=2, factor=0.5)
      >>> [float(rate(t)) for t in range(5)]
      [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    length = as_int(every, "step: every", 1)
    _positive(factor, "step: factor")

    def schedule(count: Any) -> Array:
        rate = _rate(base)
        return rate * jnp.power(_as(factor, rate), _as(jnp.asarray(count) // length, rate))

    return schedule


def piecewise(base: Any, at: Sequence[int], factor: Any) -> Schedule:
    """rate(t) = base factor^(how many of the steps `at` are <= t): D2L's multi-factor schedule.

    Shapes: base, factor: (); at: increasing steps; result: a function of t (), giving ().

    Raises:
      ValueError: `at` does not increase, or a number for factor that is not positive.

    Source: D2L 12.11.3.2, whose formula lowers the rate after step t in `at`, so that t + 1 is the
    first with the lower one; its code, PyTorch's `MultiStepLR` and `optax.
    piecewise_constant_schedule` lower it at t, as here.

    Example:
      >>> rate = piecewise(0.5, at=[15, 30], factor=0.5)
      >>> [float(rate(t)) for t in (0, 14, 15, 29, 30)]
      [0.5, 0.5, 0.25, 0.25, 0.125]
    """
    places = tuple(as_int(place, "piecewise: each step in at", 0) for place in at)
    if any(a >= b for a, b in itertools.pairwise(places)):
        raise ValueError(f"piecewise: at must increase, got {list(places)}")
    _positive(factor, "piecewise: factor")

    def schedule(count: Any) -> Array:
        rate, t = _rate(base), jnp.asarray(count)
        times = sum(((t >= place).astype(jnp.int32) for place in places), jnp.zeros((), jnp.int32))
        return rate * jnp.power(_as(factor, rate), _as(times, rate))

    return schedule


def cosine(base: Any, steps: int, *, final: Any = 0.0) -> Schedule:
    """rate(t) = final + (base - final) (1 + cos(pi t / steps)) / 2 up to t = steps, then final.

    Shapes: base, final: (); result: a function of t (), giving ().

    Raises:
      ValueError: steps below 1.

    Source: Loshchilov and Hutter 2017; D2L 12.11.3.3 (its `max_update` counts the warm-up too:
    `warm_up(cosine(base, max_update - w), w)`). Equal to
    `optax.cosine_decay_schedule(base, steps, alpha=final / base)`.

    Example:
      >>> rate = cosine(0.3, 20, final=0.01)
      >>> [round(float(rate(t)), 4) for t in (0, 10, 20, 25)]
      [0.3, 0.155, 0.01, 0.01]
    """
    length = as_int(steps, "cosine: steps", 1)

    def schedule(count: Any) -> Array:
        rate = _rate(base)
        end, share = _as(final, rate), _share(count, length, rate)
        return end + (rate - end) * ((1 + jnp.cos(jnp.pi * share)) / 2)

    return schedule


def _share(count: Any, length: int, rate: Array) -> Array:
    """t / length, at most 1."""
    return jnp.minimum(_as(count, rate) / length, 1)


def polynomial(base: Any, *, power: Any = 0.5, speed: Any = 1.0) -> Schedule:
    """rate(t) = base (speed t + 1)^-power: D2L's polynomial decay; base / sqrt(t + 1) by default.

    Shapes: base, power, speed: (); result: a function of t (), giving ().

    Source: D2L 12.4.3, and the square root scheduler of 12.11.2. Optax and PyTorch call the curve
    of `polynomial_to` polynomial.

    Example:
      >>> print(polynomial(0.5)(24))
      0.1
    """

    def schedule(count: Any) -> Array:
        rate = _rate(base)
        return rate * jnp.power(_as(speed, rate) * _as(count, rate) + 1, -_as(power, rate))

    return schedule


def polynomial_to(base: Any, steps: int, *, final: Any = 0.0, power: Any = 1.0) -> Schedule:
    """rate(t) = final + (base - final) (1 - t / steps)^power up to t = steps, then final.

    A straight line by default.

    Shapes: base, final, power: (); result: a function of t (), giving ().

    Raises:
      ValueError: steps below 1.

    Source: equal to `optax.polynomial_schedule(base, final, power, steps)` and, with final 0,
    PyTorch's `PolynomialLR`.

    Example:
      >>> rate = polynomial_to(1.0, 4)
      >>> [float(rate(t)) for t in (0, 1, 4, 9)]
      [1.0, 0.75, 0.0, 0.0]
    """
    length = as_int(steps, "polynomial_to: steps", 1)

    def schedule(count: Any) -> Array:
        rate = _rate(base)
        end, left = _as(final, rate), 1 - _share(count, length, rate)
        return end + (rate - end) * jnp.power(left, _as(power, rate))

    return schedule


def warm_up(then: Any, steps: int, *, begin: Any = 0.0) -> Schedule:
    """A straight line from `begin` to then(0) over `steps` steps, and then(t - steps) after it.

    Args:
      then: any schedule, or a rate that stays.
      steps: how long the warm-up is; at t = 0 the rate is `begin`.

    Shapes: begin: (); result: a function of t (), giving ().

    Raises:
      ValueError: steps below 1.

    Source: Goyal et al. 2017; D2L 12.11.3.4. Around `cosine` equal to
    `optax.warmup_cosine_decay_schedule`, whose `decay_steps` counts the warm-up too.

    Example:
      >>> rate = warm_up(cosine(0.3, 15, final=0.01), 5)
      >>> [round(float(rate(t)), 3) for t in (0, 1, 5, 20)]
      [0.0, 0.06, 0.3, 0.01]
    """
    length = as_int(steps, "warm_up: steps", 1)
    after = then if callable(then) else constant(then)

    def schedule(count: Any) -> Array:
        t = jnp.asarray(count)
        rate = _rate(after(jnp.maximum(t - length, 0)))  # then(0) while t < steps
        low = _as(begin, rate)
        return jnp.where(t < length, low + (rate - low) * _share(t, length, rate), rate)

    return schedule


def linear_scaling(rate: Any, batch_size: Any, new_batch_size: Any) -> Any:
    """The rate for another batch size, rate * new / old: the same displacement per example.

    N times the batch at N times the rate moves the parameters, to first order in the rate, as far
    over one epoch. It fails where N times the rate is too large for the curvature.

    Raises:
      ValueError: a number for a batch size that is not positive.

    Source: Goyal et al. 2017; catalogue F32.

    Example:
      >>> linear_scaling(0.05, 16, 64)
      0.2
    """
    return rate * _ratio(batch_size, new_batch_size, "linear_scaling")


def sqrt_scaling(rate: Any, batch_size: Any, new_batch_size: Any) -> Any:
    """The rate for another batch size, rate * sqrt(new / old): the same variance of an update.

    Raises:
      ValueError: a number for a batch size that is not positive.

    Source: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks";
    catalogue F32.

    Example:
      >>> sqrt_scaling(0.05, 16, 64)
      0.1
    """
    return rate * _ratio(batch_size, new_batch_size, "sqrt_scaling") ** 0.5


def _ratio(old: Any, new: Any, where: str) -> Any:
    _positive(old, f"{where}: batch_size")
    _positive(new, f"{where}: new_batch_size")
    return new / old
