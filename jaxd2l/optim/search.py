"""Random search for functions with many minima; no gradient is used."""

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.geometry import as_int
from jaxd2l.optim.solution import objective

Array = jax.Array


class Found(NamedTuple):
    """The best point that a search has met. It cannot know whether there is a better one.

    Attributes:
      x: the point, a tree as `x0`.
      value: () f(x).
      history: (steps,) the best value after each step, or each generation.
    """

    x: Any
    value: Array
    history: Array


def _positive(value: Any, what: str) -> Any:
    """Refuse a number that is not above 0; traced ones pass."""
    if isinstance(value, int | float) and not (value > 0 and value < float("inf")):
        raise ValueError(f"{what} must be a finite number above 0, got {value}")
    if not isinstance(value, numbers.Real | jax.Array):
        raise TypeError(f"{what} must be a number, got {type(value).__name__}")
    return value


def _lowest(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """f, with infinity where it is not a number."""

    def safe(x: Array) -> Array:
        value = f(x)
        return jnp.where(jnp.isnan(value), jnp.inf, value)

    return safe


def simulated_annealing(
    f: Callable[[Any], Any],
    x0: Any,
    key: Array,
    *,
    scale: Any = 1.0,
    temperature: Any = 1.0,
    last_temperature: Any = 1e-3,
    steps: int = 10000,
) -> Found:
    """A random walk that also climbs, ever less: out of minima that are not the lowest.

    From x a point `x + scale sqrt(T / T_0) N(0, 1)` is proposed and taken with probability
    `min(1, exp(-(f(new) - f(x)) / T))`, while T falls geometrically from `temperature` to
    `last_temperature`. Where f is not a number nothing is taken. The best point met is kept. Map
    over keys for many walks at once, over `x0` for many starts.

    Args:
      f: tree -> (), floating point; need not be differentiable.
      scale: of the first proposals: a few times the distance between minima, as they shrink.
      temperature, last_temperature: in units of f: about the height of the walls between minima,
        and the precision wanted.
      steps: how many proposals.

    Shapes: x0: a tree of floating point arrays; key: (); the result's x: as x0.

    Raises:
      TypeError: x0 or f(x0) is not floating point.
      ValueError: x0 is empty or known not to be finite; f(x0) is not (); a number is not above 0.

    Source: Kirkpatrick, Gelatt & Vecchi 1983.

    Example:
      >>> rugged = lambda x: x ** 2 + 4 * jnp.sin(5 * x)  # the lowest of its minima: -0.3026
      >>> found = simulated_annealing(rugged, 4.0, jax.random.key(0), steps=2000, temperature=5.0)
      >>> abs(float(found.x) + 0.3026) < 0.02
      True
    """
    where = "simulated_annealing"
    problem = objective(f, x0, where)
    x, dtype = problem.x0, problem.x0.dtype
    steps = as_int(steps, f"{where}: steps", 1)
    hot = jnp.asarray(_positive(temperature, f"{where}: temperature"), dtype)
    cold = jnp.asarray(_positive(last_temperature, f"{where}: last_temperature"), dtype)
    width = jnp.asarray(_positive(scale, f"{where}: scale"), dtype)
    lowest = _lowest(problem.f)

    def step(now: Any, drawn: tuple[Array, Array]) -> Any:
        x, value, best, least = now
        number, luck = drawn
        share = (cold / hot) ** (number.astype(dtype) / max(steps - 1, 1))
        noise = jax.random.normal(jax.random.fold_in(proposals, number), x.shape, dtype)
        new = x + width * jnp.sqrt(share) * noise
        at = lowest(new)
        worse = at - value
        odds = jnp.exp(-jnp.maximum(worse, 0) / (share * hot))
        taken = (worse <= 0) | (luck < odds)
        x, value = jnp.where(taken, new, x), jnp.where(taken, at, value)
        best, least = jnp.where(value < least, x, best), jnp.minimum(value, least)
        return (x, value, best, least), least

    start = lowest(x)
    proposals, other = jax.random.split(key)
    drawn = (jnp.arange(steps), jax.random.uniform(other, (steps,), dtype))
    (_, _, best, least), history = jax.lax.scan(step, (x, start, x, start), drawn)
    return Found(problem.tree(best), least, history)


def genetic_algorithm(
    f: Callable[[Any], Any],
    x0: Any,
    key: Array,
    *,
    scale: Any = 1.0,
    population: int = 100,
    generations: int = 100,
) -> Found:
    """A population of points that select, cross and mutate: a search in many places at once.

    The first generation is x0 and `x0 + scale N(0, 1)`. Each later one keeps the best point, and
    fills up with children of two parents, each the better of two drawn at random; a child has
    every entry from a uniform place between its parents', stretched by a quarter on both sides
    (BLX with 0.25), and one entry in n, on average, moved by `scale / sqrt(generation) N(0, 1)`.
    Where f is not a number a point loses to all others.

    Args:
      f: tree -> (), floating point, mapped over the population; need not be differentiable.
      scale: spread of the first generation: about the distance to where the minimum may be.
      population, generations: how many points, how often.

    Shapes: x0: a tree of floating point arrays; key: (); the result's x: as x0.

    Raises:
      TypeError: x0 or f(x0) is not floating point.
      ValueError: x0 is empty or known not to be finite; f(x0) is not (); scale is not above 0, or
        the population below 2.

    Source: Holland 1975; Eshelman & Schaffer 1993 (the crossing of real numbers).

    Example:
      >>> rugged = lambda x: x ** 2 + 4 * jnp.sin(5 * x)
      >>> found = genetic_algorithm(rugged, 4.0, jax.random.key(0), generations=30)
      >>> abs(float(found.x) + 0.3026) < 0.02
      True
    """
    where = "genetic_algorithm"
    problem = objective(f, x0, where)
    n, dtype = problem.x0.size, problem.x0.dtype
    population = as_int(population, f"{where}: population", 2)
    generations = as_int(generations, f"{where}: generations", 1)
    width = jnp.asarray(_positive(scale, f"{where}: scale"), dtype)
    fitness = jax.vmap(_lowest(problem.f))

    def generation(now: Any, number: Array) -> Any:
        points, values = now  # (population, n), (population,)
        first, second = jax.random.split(jax.random.fold_in(key, number))
        luck = jax.random.uniform(first, (population, 4 + 2 * n), dtype)  # one draw compiles faster
        rivals = (population * luck[:, :4]).astype(jnp.int32).T.reshape(2, 2, population)
        place, chance = luck[:, 4 : 4 + n], luck[:, 4 + n :]
        wins = values[rivals[0]] <= values[rivals[1]]
        mother, father = points[jnp.where(wins, rivals[0], rivals[1])]
        children = mother + (1.5 * place - 0.25) * (father - mother)
        spread = width / jnp.sqrt(number.astype(dtype))
        noise = spread * jax.random.normal(second, points.shape, dtype)
        children += jnp.where(chance < 1 / n, noise, 0)
        best = values.argmin()
        children = children.at[0].set(points[best])
        values = fitness(children)
        return (children, values), values.min()

    noise = width * jax.random.normal(jax.random.fold_in(key, 0), (population, n), dtype)
    points = problem.x0[None] + noise.at[0].set(0)
    (points, values), history = jax.lax.scan(
        generation, (points, fitness(points)), jnp.arange(1, generations + 1)
    )
    best = values.argmin()
    return Found(problem.tree(points[best]), values[best], history)
