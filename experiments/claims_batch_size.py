"""Claims about the size of a batch: slower progress in an epoch (C44), the linear scaling rule
(C45), growing it instead of lowering the rate (C47), and what its noise is good for (C48).

    python experiments/claims_batch_size.py
    python experiments/claims_batch_size.py --quick --claims C44 C45

Stochastic gradient descent on a perceptron 64-64-10 with the 8x8 digits, 1024 to train on; 20
seeds, each with a split of its own. Found:
C44 true: after 20 epochs at rate 0.05 batches of 16, 64 and 256 err on 4.7, 8.1 and 21.3 % of the
test part. C45 depends: 4.7, 4.8 and 5.1 % at rates 0.05, 0.2 and 0.8 (the root rule 8.2 %), but
batch 256 at rate 3.2 only guesses, where batch 16 at 0.2 errs on 3.8 %.
C47 depends: 3.7 % either way at rate 0.2, 3.2 % at 0.4; but a linear regression at a rate 1.1 times
the largest stable one is saved by a falling rate and by no batch, however large.
C48 true: at its best rate batch 8 errs on 3.9 %, all 512 at once on 5.6 % after as many epochs
(60), and on 4.1 % after ten times as many: 0.17 -+ 0.16 more, barely (open with 16 seeds). Noise of
single examples leaves a shallow well in every run, the mean of 16 in none.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from report import print_claim
from sweeps import Found, Size, arguments, classifier, splits, swept

from jaxd2l import data, optim
from jaxd2l.geometry import iterations_per_epoch
from jaxd2l.models import linear_regression, mlp
from jaxd2l.ops import losses
from jaxd2l.train import make_run

EXAMPLES, VALID, TEST = 1024, 300, 473
RATES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
MARGIN = 1.0  # points of percent that count as no difference


def same(what: str, a: np.ndarray, b: np.ndarray, margin: float = MARGIN) -> dict[str, np.ndarray]:
    """The two parts that together say that means differ by less than `margin`."""
    return {
        f"{what}: {margin:g} - difference": margin - (a - b),
        f"{what}: {margin:g} + difference": margin + (a - b),
    }


def sizes(size: Size, claims: tuple[str, ...]) -> None:
    """C44 and C45: batches of 16, 64 and 256 at all rates."""
    parts = splits(data.load_digits(8), (EXAMPLES, VALID, TEST), size.seeds)
    epochs = size.epochs(20)
    runs: dict[int, Found] = {
        batch: swept(
            classifier(mlp((64,)), optim.sgd, epochs, batch), {"learning_rate": RATES}, parts
        )
        for batch in (16, 64, 256)
    }

    def test(batch: int, rate: float) -> np.ndarray:
        return runs[batch].test[RATES.index(rate)]

    if "C44" in claims:
        steps = {batch: iterations_per_epoch(EXAMPLES, batch) for batch in runs}
        figures = {
            f"test error, %: batch {b} ({n} steps an epoch), rate 0.05": test(b, 0.05)
            for b, n in steps.items()
        }
        gains = {
            f"error, batch {b} - batch {b // 4}": test(b, 0.05) - test(b // 4, 0.05)
            for b in (64, 256)
        }
        gains |= {
            f"log10 training loss, batch {b} - batch {b // 4}": np.log10(
                runs[b].loss[0] / runs[b // 4].loss[0]
            )
            for b in (64, 256)
        }
        claim = f"At one rate larger batches get less far in {epochs} epochs."
        print_claim("C44", claim, figures, gains)
        print()
    if "C45" in claims:
        cases = [(16, 0.05), (64, 0.2), (256, 0.8), (16, 0.2), (64, 0.8), (256, 3.2)]
        figures = {f"test error, %: batch {b}, rate {r:g}": test(b, r) for b, r in cases}
        root = float(optim.sqrt_scaling(0.05, 16, 256))
        figures[f"test error, %: batch 256, rate {root:g} (root rule)"] = test(256, root)
        gains = {}
        for batch in (64, 256):
            rate = round(float(optim.linear_scaling(0.05, 16, batch)), 6)
            gains |= same(f"16, 0.05 to {batch}, {rate:g}", test(batch, rate), test(16, 0.05))
        gains["16, 0.2 to 256, 3.2: 1 - difference"] = MARGIN - (test(256, 3.2) - test(16, 0.2))
        gains["the root rule errs more than the linear one, 256"] = test(256, root) - test(256, 0.8)
        claim = "Batches N times as large with a rate N times as large get as far in an epoch."
        print_claim("C45", claim, figures, gains)
        print()


def lowered(learning_rate: jax.Array, every: int) -> optax.GradientTransformation:
    """Descent at a rate that is divided by 4 after each `every` batches."""
    return optim.sgd(optim.step(learning_rate, every, 1 / 4))


def grown(learning_rate: jax.Array, every: int) -> optax.GradientTransformation:
    """Descent with batches that are multiplied by 4 instead."""
    return optim.accumulate(optim.sgd(learning_rate), optim.growing(every, 4))


def growth(size: Size) -> None:
    """C47: a rate divided by 4 after each third, and batches multiplied by 4 instead."""
    parts = splits(data.load_digits(8), (EXAMPLES, VALID, TEST), size.seeds)
    third = size.epochs(10)
    rates = (0.2, 0.4)
    figures, found, loss = {}, {}, {}
    for name, optimizer in (("rate / 4", lowered), ("batch x 4", grown)):
        steps = third * iterations_per_epoch(EXAMPLES, 16)
        run = classifier(mlp((64,)), functools.partial(optimizer, every=steps), 3 * third, 16)
        found[name] = swept(run, {"learning_rate": rates}, parts)
        for rate, test in zip(rates, found[name].test, strict=True):
            figures[f"{name}: test error, %, rate {rate:g}"] = test
        for rate in (1.0, 2.2):
            what = f"{name}: log10 loss of a linear regression, rate {rate:g}"
            figures[what] = loss[name, rate] = regression(optimizer, rate, size.seeds)
    low, high = found["rate / 4"], found["batch x 4"]
    gains: dict[str, np.ndarray] = {}
    for i, rate in enumerate(rates):
        gains |= same(f"rate {rate:g}, error", high.test[i], low.test[i])
    for rate in (1.0, 2.2):
        worse = loss["batch x 4", rate] - loss["rate / 4", rate]
        gains[f"linear regression, rate {rate:g}: 0.1 - log10 ratio of the losses"] = 0.1 - worse
    claim = "Batches that grow do what rates that fall do (in 44 % of the updates)."
    print_claim("C47", claim, figures, gains)


def regression(optimizer: Callable[..., Any], rate: float, seeds: int) -> np.ndarray:
    """log10 of the loss on 256 examples y = x w + b + noise after 30 epochs, at most 30.

    Its curvature is 1, so that descent is unstable above a rate of 2.
    """
    changing = functools.partial(optimizer, every=10 * 16)
    loss = losses.squared_loss
    run = make_run(linear_regression(), loss, changing, epochs=30, batch_size=16)

    def one(key: jax.Array) -> jax.Array:
        x = jax.random.normal(key, (256, 2))
        noise = jax.random.normal(jax.random.fold_in(key, 1), (256, 1))
        points = (x, x @ jnp.array([[2.0], [-3.4]]) + 4.2 + 0.1 * noise)
        out = run.train(key, points, {"learning_rate": rate})
        return run.evaluate(out.params, out.state, points)["loss"]

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))
    return np.log10(np.nan_to_num(np.asarray(found, np.float64), nan=1e30).clip(max=1e30))


def escaped(key: jax.Array, batch: int) -> jax.Array:
    """The share of 200 walkers that leave the shallow well of x^4 / 4 - x^2 / 2 + x / 4.

    They start in it, at 1, and take 2000 steps at rate 0.05 with a gradient that is the mean of
    `batch` noisy ones (standard deviation 1.5).
    """

    def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        noise = 1.5 / np.sqrt(batch) * jax.random.normal(key, x.shape)
        return x - 0.05 * (x**3 - x + 0.25 + noise), None

    last, _ = jax.lax.scan(step, jnp.ones(200), jax.random.split(key, 2000))
    return (last < 0).mean()


def noise(size: Size) -> None:
    """C48: batches of 8 and of all 512 examples, each at its best rate."""
    parts = splits(data.load_digits(8), (512, 300, 985), size.seeds)
    few, many = size.epochs(60), 10 * size.epochs(60)
    cases = {
        f"batch 8, {few} epochs": (8, few, (0.05, 0.1, 0.2, 0.4, 0.8)),
        f"batch 512, {few} epochs": (512, few, (0.2, 0.4, 0.8, 1.2, 1.6)),
        f"batch 512, {many} epochs": (512, many, (0.2, 0.4, 0.8, 1.2, 1.6)),
    }
    figures, errors = {}, []
    for name, (batch, epochs, rates) in cases.items():
        found = swept(
            classifier(mlp((64,)), optim.sgd, epochs, batch), {"learning_rate": rates}, parts
        )
        errors.append(found.test[found.best])
        figures[f"{name}: test error, %, rate {rates[found.best]:g}"] = errors[-1]
    keys = jax.random.split(jax.random.key(0), size.seeds)
    share = jax.jit(jax.vmap(escaped, (0, None)), static_argnums=1)
    out = {batch: np.asarray(share(keys, batch)) for batch in (1, 16)}
    figures |= {f"share that leaves the shallow well, batch {b}": s for b, s in out.items()}
    gains = {
        f"error, batch 512 - batch 8, {few} epochs each": errors[1] - errors[0],
        f"error, batch 512 with {many} epochs - batch 8": errors[2] - errors[0],
        "share that leaves the shallow well, batch 1 - batch 16": out[1] - out[16],
    }
    claim = "The noise of small batches helps to generalise and to leave local minima."
    print_claim("C48", claim, figures, gains)


def main(given: Sequence[str] | None = None) -> None:
    size, claims = arguments(__doc__, given, ("C44", "C45", "C47", "C48"))
    if {"C44", "C45"} & set(claims):
        sizes(size, claims)
    if "C47" in claims:
        growth(size)
        print()
    if "C48" in claims:
        noise(size)


if __name__ == "__main__":
    main()
