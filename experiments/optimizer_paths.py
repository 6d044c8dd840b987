"""The ways of the optimisers on a quadratic, straight and tilted, and how long they are (C66).

    python experiments/optimizer_paths.py --out optimizer_paths.png
    python experiments/optimizer_paths.py --quick

f = (l1 u1^2 + l2 u2^2) / 2 with l1 = 0.2 and l2 = 4 (that of the book, condition number 20) or 20
(condition number 100); u are the coordinates (straight), or turned by 45 degrees (tilted). Every
first-order method at the best of 25 rates, from 20 starts on the circle of radius 5: the steps
after which f stays below a millionth of its start. Draws 20 steps on the tilted one.

Expected before the first run: gradient descent shrinks f by ((c - 1) / (c + 1))^2 a step at its
best rate, so 69 steps at condition 20 and 346 at 100, tilted or not; momentum 0.9 shrinks it by 0.9
a step at best, so it is slower than gradient descent at 20 (131 steps) and faster at 100. The
methods with a rate for each coordinate gain from straight axes and lose when they are tilted.
Newton takes 1 step, conjugate gradients 2.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from report import interval, print_claim

from jaxd2l import optim, plot

METHODS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "gradient descent": optim.sgd,
    "momentum": optim.momentum,
    "Nesterov": optim.nesterov,
    "AdaGrad": optim.adagrad,
    "RMSProp": optim.rmsprop,
    "Adam": optim.adam,
}
CONDITIONS = (20, 100)
ENOUGH = 1e-6  # of the first value
SHOWN = 20  # steps in the picture
START = (-5.0, -2.0)


def quadratic(condition: float, tilted: bool) -> Callable[[Any], Any]:
    """(2,) -> (): the bowl with curvatures 0.2 and 0.2 times the condition number."""
    turn = np.pi / 4 * tilted
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    hessian = jnp.asarray(rotation * np.array([0.2, 0.2 * condition]) @ rotation.T, jnp.float32)
    return lambda x: x @ hessian @ x / 2


def way(optimizer: optax.GradientTransformation, f: Any, start: Any, steps: int) -> Any:
    """All points of a run: (steps + 1, 2)."""

    def step(carry: Any, _: None) -> Any:
        x, state = carry
        updates, state = optimizer.update(jax.grad(f)(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    _, points = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return jnp.concatenate([start[None], points])


def needed(values: np.ndarray) -> np.ndarray:
    """Steps after which the values stay below ENOUGH times the first: (..., k + 1) to (...,); k + 1
    where they do not.

    Example:
      >>> needed(np.array([[1.0, 0.1, 1e-7, 2e-6, 1e-7], [1.0, 1.0, 1.0, 1.0, 1.0]])).tolist()
      [4, 5]
    """
    above = ~(values <= ENOUGH * values[..., :1])  # NaN is above
    return values.shape[-1] - above[..., ::-1].argmax(-1)


def circle(starts: int) -> Any:
    """Starts on the circle of radius 5, none of them on an axis: (starts, 2)."""
    angle = 2 * np.pi * (np.arange(starts) + 0.3) / starts
    return jnp.asarray(5 * np.stack([np.cos(angle), np.sin(angle)], -1), jnp.float32)


def first_order(f: Any, rates: Any, starts: Any, steps: int) -> dict[str, tuple[float, Any]]:
    """For each method its best rate, and the steps needed from each start: (starts,)."""
    found = {}
    for name, method in METHODS.items():

        def values(rate: Any, start: Any, method: Any = method) -> Any:
            return jax.vmap(f)(way(method(rate), f, start, steps))

        mapped = jax.vmap(jax.vmap(values, (None, 0)), (0, None))
        counts = needed(np.asarray(jax.jit(mapped)(rates, starts)))  # (rates, starts)
        best = int(counts.mean(1).argmin())
        found[name] = float(rates[best]), counts[best]
    return found


def newton_way(f: Any, start: Any, steps: int) -> Any:
    """The points of Newton's method, each from a run that was allowed one step more."""

    def point(most: Any) -> Any:
        return optim.newton(f, start, tol=1e-4, max_steps=most).x

    return jax.vmap(point)(jnp.arange(steps + 1))


def conjugate_way(f: Any, start: Any, steps: int) -> Any:
    """The points of conjugate gradients for the step d that solves H d = -g(start)."""
    hessian = optim.hessian(f, start)

    def point(most: Any) -> Any:
        return start + optim.conjugate_gradient(hessian, -hessian @ start, max_steps=most).x

    return jax.vmap(point)(jnp.arange(steps + 1))


def second_order(f: Any, starts: Any) -> dict[str, np.ndarray]:
    """The steps that Newton's method and conjugate gradients need from each start: (starts,)."""
    found = {}
    for name, points in (("Newton", newton_way), ("conjugate gradients", conjugate_way)):

        def values(start: Any, points: Any = points) -> Any:
            return jax.vmap(f)(points(f, start, 4))

        found[name] = needed(np.asarray(jax.jit(jax.vmap(values))(starts)))
    return found


def draw(f: Any, rates: dict[str, float], path: Path) -> Path:
    """The ways of all methods from START."""
    start = jnp.asarray(START, jnp.float32)
    paths = {
        f"{name}, rate {rate:.2g}": way(METHODS[name](rate), f, start, SHOWN)
        for name, rate in rates.items()
    }
    paths["Newton, 1 step"] = newton_way(f, start, 1)
    paths["conjugate gradients, 2 steps"] = conjugate_way(f, start, 2)
    return plot.trajectories(f, paths, path, f"{SHOWN} steps on the tilted quadratic")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="where to draw the ways on the tilted quadratic")
    parser.add_argument("--quick", action="store_true", help="one condition, few rates and steps")
    options = parser.parse_args(arguments)
    conditions = CONDITIONS[:1] if options.quick else CONDITIONS
    starts = circle(4 if options.quick else 20)
    steps = 150 if options.quick else 1000
    rates = jnp.geomspace(1e-3, 10, 9 if options.quick else 25)
    jumps: dict[str, list[Any]] = {"Newton": [], "conjugate gradients": []}
    for condition in conditions:
        for tilted in (False, True):
            f = quadratic(condition, tilted)
            print(f"condition {condition}, {'tilted' if tilted else 'straight'}: steps to 1e-6")
            found = first_order(f, rates, starts, steps)
            for name, (rate, counts) in found.items():
                worst = "" if counts.max() <= steps else f"  (not from all starts in {steps})"
                print(f"  {name:<20} rate {rate:<8.3g} {interval(counts)}{worst}")
            for name, counts in second_order(f, starts).items():
                print(f"  {name:<20} {'':<13} {interval(counts)}")
                jumps[name].append(counts)
            if tilted and condition == conditions[0] and options.out is not None:
                print(draw(f, {name: rate for name, (rate, _) in found.items()}, options.out))
        print()
    worst = {name: np.max(counts, axis=0) for name, counts in jumps.items()}
    print_claim(
        "C66",
        "Newton's method takes one step on a quadratic, conjugate gradients n (here 2).",
        {f"{name}: steps, the most": counts for name, counts in worst.items()},
        {"2 - Newton's": 2 - worst["Newton"], "3 - conjugate": 3 - worst["conjugate gradients"]},
    )


if __name__ == "__main__":
    main()
