"""Claims about where descent ends: in local minima, with SGD and with Adam (C60), and in NaN,
unless gradients are clipped (C64).

    python experiments/claims_descent.py
    python experiments/claims_descent.py --quick --claims C64

20 seeds, of 64 starts each in C60. Found:
C60 depends: on XOR with 2 hidden units 28 % of the starts with SGD and 37 % with Adam end above the
lowest loss, all of them in minima (no Hessian has a negative eigenvalue); with 16 units none does,
and a 64-64-64-10 perceptron on digits gets all training examples right with both.
C64 depends: over 50 steps of a ReLU recurrence of radius 1.5 no run stays finite without clipping
and all do with it, while the loss falls by 4 powers of ten; over 250 steps the gradient itself
overflows, clipped or not, and only leaving such steps out keeps the parameters (as they were). A
tanh recurrence stays finite without clipping.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from report import print_claim
from sweeps import Size, classifier, print_claims, splits, swept

from jaxd2l import apply, data, init, optim
from jaxd2l.layers import RNN, Dense, LastStep, Layer, Serial
from jaxd2l.models import mlp
from jaxd2l.ops import losses, penalties
from jaxd2l.ops.initializers import Table
from jaxd2l.train import ensemble, make_run

STARTS = 64  # random starts for each seed
DECAY = 1e-3  # of all parameters: it makes minima out of descents to infinity
STUCK = 0.1  # nats above the lowest loss that any start found
SIDE = 16  # units of the recurrent network
RADIUS = 1.5


def exclusive_or(hidden: int) -> tuple[Layer, Callable[[Any], jax.Array]]:
    """A network for the four points of XOR, and its loss with an L2 penalty."""
    net = mlp((hidden,), num_classes=2, activation="tanh")
    points = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    labels = jnp.array([0, 1, 1, 0])

    def loss(params: Any) -> jax.Array:
        logits, _ = apply(net, params, {}, 2 * points - 1)
        values = losses.softmax_cross_entropy(logits, labels)
        return values.mean() + DECAY * penalties.l2_penalty(params)

    return net, loss


@functools.cache
def minima(hidden: int, method: str, seeds: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The losses where descent ends, and the index of the Hessian there: (seeds, STARTS) both.

    The gradient is that of all points plus noise, and the rate falls to 0.
    """
    net, loss = exclusive_or(hidden)
    make, rate = {"SGD": (optim.sgd, 0.5), "Adam": (optim.adam, 0.05)}[method]
    optimizer = make(optim.cosine(rate, steps))

    def one(key: jax.Array) -> Any:
        params, _ = init(net, key, (2,))

        def step(carry: Any, number: jax.Array) -> Any:
            params, state = carry
            grads = jax.grad(loss)(params)
            flat, restore = jax.flatten_util.ravel_pytree(grads)
            noise = 0.05 * jax.random.normal(jax.random.fold_in(key, number), flat.shape)
            updates, state = optimizer.update(restore(flat + noise), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
        return loss(params), optim.classify_critical_point(loss, params, tol=1e-3).negative

    keys = jax.random.split(jax.random.key(0), seeds * STARTS)
    found = jax.jit(jax.vmap(one))(keys)
    values, index = (np.asarray(a).reshape(seeds, STARTS) for a in found)
    return values, index


def local_minima(size: Size) -> None:
    """C60."""
    figures, gains = {}, {}
    steps = size.epochs(4000)
    for hidden in (2, 16):
        found = {m: minima(hidden, m, size.seeds, steps) for m in ("SGD", "Adam")}
        lowest = min(values.min() for values, _ in found.values())
        for method, (values, index) in found.items():
            stuck = values > lowest + STUCK
            share = 100 * stuck.mean(1)
            what = f"XOR, {hidden} hidden units, {method}"
            figures[f"{what}: starts that end above the lowest loss, %"] = share
            gains[f"{what}: % of starts that end above the lowest loss"] = share
            if hidden == 2:
                saddles = (stuck & (index > 0)).sum(1) / np.maximum(stuck.sum(1), 1)
                figures[f"{what}: of these at a saddle, %"] = 100 * saddles
    parts = splits(data.load_digits(8), (1024, 300, 473), size.seeds)
    for method, optimizer, rate in (("SGD", optim.sgd, 0.2), ("Adam", optim.adam, 0.003)):
        run = classifier(mlp((64, 64)), optimizer, size.epochs(40))
        wrong = swept(run, {"learning_rate": [rate]}, parts).train[0]
        what = f"digits, 64-64-64-10, {method}"
        figures[f"{what}: training error, %"] = wrong
        gains[f"{what}: training error left, %"] = wrong
    claim = "Neither SGD nor Adam avoids bad local minima."
    print_claim("C60", claim, figures, gains)


def recurrent(activation: str) -> Layer:
    """A recurrence whose kernel is RADIUS times the identity."""
    rows = tuple(tuple(map(float, row)) for row in RADIUS * np.eye(SIDE))
    rnn = RNN("rnn", SIDE, activation=activation, recurrent_init=Table(rows))
    return Serial([rnn, LastStep(), Dense("output", 1)])


def guarded(limit: float | None, skip: bool) -> Callable[[Any], optax.GradientTransformation]:
    """Descent, with gradients clipped to the norm `limit` and bad steps left out if asked for."""

    def make(learning_rate: Any) -> optax.GradientTransformation:
        sgd = optim.sgd(learning_rate)
        clipped = sgd if limit is None else optax.chain(optim.clip_by_norm(limit), sgd)
        return optim.skip_non_finite(clipped) if skip else clipped

    return make


def clipping(size: Size) -> None:
    """C64."""
    figures, gains = {}, {}
    keys = jax.random.split(jax.random.key(0), size.seeds)
    finite, after = {}, {}
    cases = [("relu", 50, None, False), ("relu", 50, 1.0, False), ("tanh", 50, None, False)]
    cases += [("relu", 250, 1.0, False), ("relu", 250, 1.0, True)]
    for activation, length, limit, skip in cases:
        x = np.random.RandomState(0).uniform(-1, 1, (256, length, 1)).astype(np.float32)
        y = x[:, -5:].mean(1)
        run = make_run(
            recurrent(activation),
            losses.squared_loss,
            guarded(limit, skip),
            epochs=size.epochs(30),
            batch_size=32,
        )
        out = ensemble(run, keys, (x, y), {"learning_rate": 0.01}, how="vmap")
        name = f"{activation}, {length} steps, " + ("clipped" if limit else "plain")
        name += ", bad steps left out" if skip else ""
        good = [
            np.isfinite(np.asarray(a)).reshape(size.seeds, -1).all(1)
            for a in jax.tree.leaves(out.params)
        ]
        finite[name] = 100.0 * np.all(good, axis=0)
        figures[f"{name}: runs whose parameters stay finite, %"] = finite[name]
        loss = np.asarray(out.history["loss"], np.float64)
        after[name] = np.log10(np.nan_to_num(loss, nan=1e38).clip(1e-8, 1e38))
        figures[f"{name}: log10 loss of the first epoch"] = after[name][:, 0]
        figures[f"{name}: log10 loss of the last epoch"] = after[name][:, -1]
    plain, clipped = "relu, 50 steps, plain", "relu, 50 steps, clipped"
    gains = {
        "50 steps: runs that clipping keeps finite, %": finite[clipped] - finite[plain],
        "50 steps, clipped: log10 loss, first - last epoch": after[clipped][:, 0]
        - after[clipped][:, -1],
        "250 steps, clipped: runs that stay finite, %": finite["relu, 250 steps, clipped"],
    }
    claim = "Clipping the gradient's norm keeps a recurrence of spectral radius 1.5 from NaN."
    print_claim("C64", claim, figures, gains)


CLAIMS = {"C60": local_minima, "C64": clipping}


def main(given: Sequence[str] | None = None) -> None:
    print_claims(__doc__, given, CLAIMS)


if __name__ == "__main__":
    main()
