"""The ways of the optimisers on a quadratic, straight and tilted, and how long they are (C66).

    python experiments/optimizer_paths.py --out optimizer_paths.png
    python experiments/optimizer_paths.py --quick

f = (l1 u1^2 + l2 u2^2) / 2 with l1 = 0.2 and l2 = 4 (that of the book, condition number 20) or 20
(condition number 100); u are the coordinates (straight), or turned by 45 degrees (tilted). Every
first-order method at the best of 25 rates, from 20 starts on the circle of radius 5: the steps
after which f stays below a millionth of its start. Draws 20 steps on the tilted one of condition
20, each at the rate that is best for 20 steps among those that never climb above the start.

Expected before the first run: gradient descent shrinks f by ((c - 1) / (c + 1))^2 a step at its
best rate, so 69 steps at condition 20 and 346 at 100, tilted or not; momentum 0.9 shrinks it by 0.9
a step at best, so it is slower than gradient descent at 20 (131 steps) and faster at 100. The
methods with a rate for each coordinate gain from straight axes and lose when they are tilted.
Newton takes 1 step, conjugate gradients 2.

Found (mean over the starts; straight / tilted):
                        condition 20      condition 100
    gradient descent     57 / 57           332 / 331
    momentum            128 / 128          129 / 129
    Nesterov             59 / 59            75 / 74
    AdaGrad               6 / 83             6 / 364
    RMSProp             883 / 949          913 / 961    (not from all starts within 1000)
    Adam                126 / 128          126 / 133
    Newton                1 / 1              1 / 1
    conjugate gradients   2 / 2              2 / 2
So the tilt costs AdaGrad what it had won. Adam, whose momentum sets its pace, hardly feels it: that
was not expected. RMSProp at a constant rate keeps stepping over the minimum; it needs a schedule.
C66 true.
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
PICTURED = 1  # condition 20, tilted


def hessian(condition: float, tilted: bool) -> np.ndarray:
    """(2, 2): curvature 0.2, and 0.2 times the condition number across."""
    turn = np.pi / 4 * tilted
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.float32(rotation * np.array([0.2, 0.2 * condition]) @ rotation.T)


def quadratic(matrix: Any) -> Callable[[Any], Any]:
    """(2,) -> (): the bowl with that Hessian, 0 at 0."""
    return lambda x: x @ matrix @ x / 2


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


def first_order(
    method: Callable[[Any], optax.GradientTransformation], steps: int, *cases: Any
) -> np.ndarray:
    """The points from all starts at all rates on all bowls: (bowls, rates, starts, steps + 1, 2).

    Shapes: cases: Hessians (bowls, 2, 2); rates (rates,); starts (starts, 2).
    """

    def one(matrix: Any, rate: Any, start: Any) -> Any:
        return way(method(rate), quadratic(matrix), start, steps)

    mapped = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None))
    return np.asarray(jax.jit(mapped)(*cases))


def newton(matrix: Any, start: Any, most: Any) -> Any:
    """Where Newton's method is when it was allowed that many steps."""
    return optim.newton(quadratic(matrix), start, tol=1e-4, max_steps=most).x


def conjugate(matrix: Any, start: Any, most: Any) -> Any:
    """Likewise of conjugate gradients, for the step d that solves H d = -g(start)."""
    return start + optim.conjugate_gradient(matrix, -matrix @ start, max_steps=most).x


def second_order(point: Callable[..., Any], matrices: Any, starts: Any) -> np.ndarray:
    """All points: (bowls, starts, 5, 2)."""
    mapped = jax.vmap(jax.vmap(jax.vmap(point, (None, None, 0)), (None, 0, None)), (0, None, None))
    return np.asarray(jax.jit(mapped)(matrices, starts, jnp.arange(5)))


def heights(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """f at the points: (..., 2) to (...,)."""
    with np.errstate(over="ignore", invalid="ignore"):  # of rates at which a method diverges
        return np.einsum("...i,ij,...j->...", points, matrix, points) / 2


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="where to draw the ways on the tilted quadratic")
    parser.add_argument("--quick", action="store_true", help="fewer rates, starts and steps")
    options = parser.parse_args(arguments)
    steps = 150 if options.quick else 1000
    rates = jnp.geomspace(1e-3, 10, 9 if options.quick else 25)
    starts = circle(4 if options.quick else 20)
    bowls = [(condition, tilted) for condition in CONDITIONS for tilted in (False, True)]
    matrices = np.stack([hessian(*bowl) for bowl in bowls])
    everywhere = np.concatenate([starts, [np.float32(START)]])  # the last one for the picture
    ways = {
        name: first_order(method, steps, matrices, rates, everywhere)
        for name, method in METHODS.items()
    }
    jumps = {
        "Newton": second_order(newton, matrices, everywhere),
        "conjugate gradients": second_order(conjugate, matrices, everywhere),
    }
    most = dict.fromkeys(jumps, np.zeros(len(starts), int))
    for number, (condition, tilted) in enumerate(bowls):
        print(f"condition {condition}, {'tilted' if tilted else 'straight'}: steps to 1e-6")
        for name, points in ways.items():
            counts = needed(heights(matrices[number], points[number, :, :-1]))  # (rates, starts)
            best = int(counts.mean(1).argmin())
            worst = "" if counts[best].max() <= steps else f"  (not from all starts in {steps})"
            print(f"  {name:<20} rate {rates[best]:<8.3g} {interval(counts[best])}{worst}")
        for name, points in jumps.items():
            counts = needed(heights(matrices[number], points[number, :-1]))
            print(f"  {name:<20} {'':<13} {interval(counts)}")
            most[name] = np.maximum(most[name], counts)
    print()
    print_claim(
        "C66",
        "Newton's method takes one step on a quadratic, conjugate gradients n (here 2).",
        {f"{name}: steps, the most": counts for name, counts in most.items()},
        {"2 - Newton's": 2 - most["Newton"], "3 - conjugate": 3 - most["conjugate gradients"]},
    )
    if options.out is not None:
        paths = {}
        for name, points in ways.items():
            shown = points[PICTURED, :, -1, : SHOWN + 1]  # (rates, SHOWN + 1, 2)
            height = heights(matrices[PICTURED], shown)
            tame = (height <= height[:, :1]).all(-1)  # never above the start
            best = int(np.where(tame, height[:, -1], np.inf).argmin())
            paths[f"{name}, rate {rates[best]:.2g}"] = shown[best]
        paths["Newton, 1 step"] = jumps["Newton"][PICTURED, -1, :2]
        paths["conjugate gradients, 2 steps"] = jumps["conjugate gradients"][PICTURED, -1, :3]
        f, title = quadratic(matrices[PICTURED]), f"{SHOWN} steps on the tilted quadratic"
        print(plot.trajectories(f, paths, options.out, title))


if __name__ == "__main__":
    main()
