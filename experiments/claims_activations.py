"""Claims about activations: units of ReLU die (C14) and leaky ReLU keeps them alive (C15), ReLU
makes gradients explode, or keeps them from it (C21), exponentials cost more than a maximum (C22),
and the kink of ReLU does no harm (C23).

    python experiments/claims_activations.py            # about 1 minute; --quick: seconds

Stochastic gradient descent on the 8x8 digits, perceptrons of 64 units a layer, 20 seeds, each with
its own split; errors in percent of the test part. Times are of one machine.
Found: C14 true (3.5, 16 and 100 % dead units at the rates 0.5, 1, 2, of 2.7 at the start). C15
depends: at the rate of 2 errors fall from 90 to 15 %; units with a bias of -10 learn again, but
slowly, and after 20 epochs lag behind others. C21 depends: the gradient grows by 2^-10, 1, 2^10,
2^30 over 20 layers at the gains 1, sqrt 2, 2, 4. C22 depends: 1.2 to 2.1 times the time over 10^7
numbers, but nothing to be seen in the gradient of 784-256-10. C23 true.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from report import print_claim
from starts import Ends, digits, drawn, trained
from sweeps import QUICK, Size, Splits, print_claims

from jaxd2l.layers import Activation, Dense, Flatten, Function, Layer, Serial
from jaxd2l.ops.activations import ACTIVATIONS
from jaxd2l.ops.initializers import HeNormal

WIDTH = 64
BURIED = -10.0  # a bias below anything that these weights make of the inputs
SHARPNESS = 50.0


def network(activation: Layer, depth: int = 1) -> Layer:
    """A perceptron with He's initialisation."""
    hidden = [Dense(f"dense{i}", WIDTH, kernel_init=HeNormal()) for i in range(depth)]
    blocks = [layer for dense in hidden for layer in (dense, activation)]
    return Serial([Flatten(), *blocks, Dense("output", 10)])


def runs(net: Layer, cases: Sequence[tuple[float, float]], parts: Splits, epochs: int) -> Ends:
    """Every case, a learning rate with the bias that the first hidden units start with."""
    rates, biases = np.asarray(cases, np.float32).T
    params, state = drawn(net, parts, [None] * len(cases))
    params["dense0"]["bias"] += biases[:, None, None]
    return trained(net, (params, state), rates, parts, epochs)


def dead(found: Ends, parts: Splits) -> np.ndarray:
    """Percent of the first hidden units that are below 0 for all training examples: (R, S)."""
    dense = found.params["dense0"]

    @jax.jit
    def share(kernel: jax.Array, bias: jax.Array, rows: jax.Array) -> jax.Array:
        x = parts.train.inputs[rows].reshape(len(rows), -1)
        return 100 * jnp.mean(~(x @ kernel + bias > 0).any(0))

    over_seeds = jax.vmap(share)
    return np.stack(
        [
            over_seeds(*case, parts.train.rows)
            for case in zip(dense["kernel"], dense["bias"], strict=True)
        ]
    ).astype(np.float64)


def dying(size: Size) -> None:
    """C14 and C15."""
    parts = digits(8, size)
    rates = (0.0, 0.1, 0.5, 1.0, 2.0)
    cases = [*((rate, 0.0) for rate in rates), *((rate, BURIED) for rate in rates[2:])]
    found = [
        runs(network(Activation(kind)), cases, parts, size.epochs(20))
        for kind in ("relu", "leaky_relu")
    ]
    usual, buried = ([f.test[: len(rates)] for f in found], [f.test[len(rates) :] for f in found])
    shares = dead(found[0], parts)
    first, *later = shares[: len(rates)]  # at rate 0 nothing has changed
    figures = {"at the start: dead units, %": first}
    gains = {}
    for rate, share in zip(rates[1:], later, strict=True):
        figures[f"rate {rate:g}: dead units, %"] = share
        (gains if rate > 0.1 else figures)[f"rate {rate:g}: dead units added, %"] = share - first
    for rate, share in zip(rates[2:], shares[len(rates) :], strict=True):
        gains[f"bias of -10, rate {rate:g}: dead units, %, - 99"] = share - 99
    print_claim(
        "C14",
        "At large rates units of ReLU die: they become 0 for all examples, for ever.",
        figures,
        gains,
    )
    print()
    figures, gains = {}, {}
    for i, rate in enumerate(rates[1:], 1):
        name = f"rate {rate:g}, leaky ReLU"
        figures[f"{name}: test error, %"] = usual[1][i]
        figures[f"{name}: error saved, %"] = usual[0][i] - usual[1][i]
    for i, rate in enumerate(rates[2:]):
        name, error = f"bias of -10, rate {rate:g}, leaky ReLU", buried[1][i]
        figures[f"{name}: test error, %"] = error
        gains[f"{name}: error saved, %"] = buried[0][i] - error
        gains[f"{name}: 10 - error added to a usual start's, %"] = 10 - (error - usual[1][i + 2])
    print_claim("C15", "Leaky ReLU cures dead units.", figures, gains)


@jax.jit
def growth(key: jax.Array, gains: jax.Array) -> jax.Array:
    """log2 of |dL/dx| / |dL/dh_20| through 20 layers of 128 with weights of standard deviation
    gain / sqrt(128): (gains, relu and tanh)."""
    kernels = jax.random.normal(key, (20, 128, 128)) / 128**0.5
    x, direction = jax.random.normal(jax.random.fold_in(key, 1), (2, 64, 128))

    def one(gain: jax.Array, activation: Callable[..., jax.Array]) -> jax.Array:
        def forward(x: jax.Array) -> jax.Array:
            h, _ = jax.lax.scan(lambda h, w: (activation(h @ (gain * w)), None), x, kernels)
            return (h * direction).sum()

        return jnp.log2(jnp.linalg.norm(jax.grad(forward)(x)) / jnp.linalg.norm(direction))

    def both(gain: jax.Array) -> jax.Array:
        return jnp.stack([one(gain, jax.nn.relu), one(gain, jnp.tanh)])

    return jax.lax.map(both, gains)


def explosion(size: Size) -> None:
    """C21."""
    names = {"1": 1.0, "sqrt 2": 2**0.5, "2": 2.0, "4": 4.0}
    seeds = range(size.seeds)
    found = np.stack([growth(jax.random.key(s), jnp.array([*names.values()])) for s in seeds], 2)
    figures, gains = {}, {}
    for name, (relu, tanh) in zip(names, found.astype(np.float64), strict=True):
        figures[f"gain {name}, ReLU: log2 growth of the gradient over 20 layers"] = relu
        figures[f"gain {name}, tanh: the same"] = tanh
        gains[f"gain {name}: ReLU explodes, growth - 5"] = relu - 5
        gains[f"gain {name}: more than tanh"] = relu - tanh
    print_claim("C21", "ReLU makes gradients explode.", figures, gains)


def timed(functions: dict[str, Callable[[], Any]], blocks: int) -> dict[str, np.ndarray]:
    """Milliseconds of each, turn by turn: medians of `blocks` times seven calls."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(7 * blocks + 1):
        for name, function in functions.items():
            before = time.perf_counter()
            jax.block_until_ready(function())
            if turn:  # the first one compiles
                times[name].append(1e3 * (time.perf_counter() - before))
    return {name: np.median(np.reshape(t, (blocks, 7)), 1) for name, t in times.items()}


def cost(size: Size) -> None:
    """C22."""
    elements, blocks = (10**5, 2) if size == QUICK else (10**7, 10)
    keys = jax.random.split(jax.random.key(0), 4)
    x, h = jax.random.normal(keys[0], (elements,)), jax.random.normal(keys[1], (256, 784))
    kernels = tuple(
        jax.random.normal(k, s) for k, s in zip(keys[2:], ((784, 256), (256, 10)), strict=True)
    )

    def step(kind: str) -> Callable[..., Any]:
        def loss(kernels: Any, h: jax.Array) -> jax.Array:
            return (ACTIVATIONS[kind](h @ kernels[0]) @ kernels[1]).sum()

        return partial(jax.jit(jax.grad(loss)), kernels, h)

    kinds = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus")
    alone = timed({kind: partial(jax.jit(ACTIVATIONS[kind]), x) for kind in kinds}, blocks)
    whole = timed({kind: step(kind) for kind in ("relu", "sigmoid", "tanh")}, blocks)
    figures = {f"{kind}: ms": values for kind, values in alone.items()}
    figures |= {f"gradient of 784-256-10, {kind}: ms": values for kind, values in whole.items()}
    gains = {
        f"{kind}: log2 of its time / relu's": np.log2(alone[kind] / alone["relu"])
        for kind in kinds[2:]
    }
    for kind in ("sigmoid", "tanh"):
        ratio = np.log2(whole[kind] / whole["relu"])
        gains[f"gradient of 784-256-10, {kind}: log2 of the ratio / 1.2"] = ratio - np.log2(1.2)
    claim = f"Exponentials cost more than a maximum ({elements:.0e} numbers)."
    print_claim("C22", claim, figures, gains)


def kink(size: Size) -> None:
    """C23."""
    parts = digits(8, size)

    def smooth(x: jax.Array) -> jax.Array:
        return jax.nn.softplus(SHARPNESS * x) / SHARPNESS

    rates = (0.03, 0.1, 0.3)
    cases = [(rate, 0.0) for rate in rates]
    sharp, soft = (
        runs(network(activation, 3), cases, parts, size.epochs(15)).test
        for activation in (Activation("relu"), Function(smooth))
    )
    figures, gains = {}, {}
    for i, rate in enumerate(rates):
        figures[f"rate {rate:g}, softplus(50 x)/50: test error, %"] = soft[i]
        gains[f"rate {rate:g}: 1 - error added by ReLU, %"] = 1 - (sharp[i] - soft[i])
    print_claim("C23", "That ReLU has no derivative at 0 does no harm (1 %).", figures, gains)


CLAIMS = {"C14": dying, "C21": explosion, "C22": cost, "C23": kink}


def main(given: Sequence[str] | None = None) -> None:
    print_claims(__doc__, given, CLAIMS)


if __name__ == "__main__":
    main()
