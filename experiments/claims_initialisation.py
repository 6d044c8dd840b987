"""Claims about how weights start: all equal (C1 softmax regression, C2 perceptrons), too large
(C5), behind batch norm (C8), and in deep networks (C82).

    python experiments/claims_initialisation.py            # about 2 minutes; --quick: seconds

Stochastic gradient descent on the digits, 20 seeds (C5, C82: 10), each with its own split; errors
in percent of the test part. A rate that is not named is the best of several on the validation part.
Found: C1 false (4.5 % of errors from 0, from 0.5 and from random weights). C2 depends: at chance
from 0 with ReLU, and at large rates; else 65 to 76 % of errors, against 3.7 to 6.8 from random
weights. C5 depends: true of 784-256-256-10, where N(0, 1) is left at chance, but N(0, 0.1) too at
the rate of 0.5; of 784-256-10 all train. C8 depends: weights ten times larger cost 32, 9 and 2 % at
the rates 0.01, 0.1 and 1, ten times smaller ones at most 2 % (without batch norm 47). C82 depends:
30 layers end in NaN from N(0, 1) and are at chance from N(0, 0.01) and Xavier, but learn from He
and with shortcuts.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from report import print_claim
from starts import Ends, digits, drawn, half, trained
from sweeps import Size, Splits, print_claims

from jaxd2l.layers import (
    Activation,
    BatchNorm,
    Dense,
    Flatten,
    Identity,
    Layer,
    Parallel,
    Repeat,
    Serial,
)
from jaxd2l.models import mlp, softmax_regression
from jaxd2l.ops.initializers import Constant, HeNormal, Initializer, Normal, XavierNormal

CHANCE = 85.0  # percent of errors that nothing learnt has; guessing has 90
WIDTH = 64  # as many as there are pixels, so that all blocks are alike


def runs(
    net: Layer,
    cases: Sequence[tuple[Initializer, float]],
    parts: Splits,
    epochs: int,
    batch_size: int = 32,
) -> Ends:
    """Every case, the initialiser of all kernels with the learning rate, and every seed."""
    kernels, rates = zip(*cases, strict=True)
    return trained(net, drawn(net, parts, kernels), rates, parts, epochs, batch_size)


def equal_regression(size: Size) -> None:
    """C1."""
    parts = digits(8, size)
    kernels: dict[str, Initializer] = {
        "all 0": Constant(0.0),
        "all 0.5": Constant(0.5),
        "N(0, 0.01)": Normal(0.01),
    }
    found = runs(softmax_regression(), [(k, 0.5) for k in kernels.values()], parts, size.epochs(20))
    figures = {f"{name}: test error, %": v for name, v in zip(kernels, found.test, strict=True)}
    gains = {
        f"{name}: error - {CHANCE:g}": v - CHANCE
        for name, v in zip(kernels, found.test[:2], strict=False)
    }
    claim = "Equal weights leave softmax regression at chance."
    print_claim("C1", claim, figures, gains)


def equal_perceptron(size: Size) -> None:
    """C2."""
    parts = digits(8, size)
    nets = {
        "1 x relu": mlp((WIDTH,)),
        "2 x relu": mlp((WIDTH, WIDTH)),
        "1 x sigmoid": mlp((WIDTH,), activation="sigmoid"),
    }
    values, rates = (0.0, 0.01, 0.1), (0.1, 1.0)
    cases = [(c, rate) for c in values for rate in rates]
    figures: dict[str, Any] = {}
    gains: dict[str, Any] = {}
    for name, net in nets.items():
        settings: list[tuple[Initializer, float]] = [
            *((Constant(c), rate) for c, rate in cases),
            (HeNormal(), 0.1),
        ]
        found = runs(net, settings, parts, size.epochs(30))
        figures[f"{name}, He, rate 0.1: test error, %"] = found.test[-1]
        for (c, rate), error in zip(cases, found.test, strict=False):
            gains[f"{name}, all {c:g}, rate {rate:g}: error - {CHANCE:g}"] = error - CHANCE
    claim = "Equal weights leave a perceptron with hidden layers at chance."
    print_claim("C2", claim, figures, gains)


def large_weights(size: Size) -> None:
    """C5."""
    parts = digits(28, half(size))
    figures: dict[str, Any] = {}
    gains: dict[str, Any] = {}
    deviations = (0.01, 0.1, 1.0)
    cases = [(s, rate) for rate in (0.5, 0.1) for s in deviations]
    for hidden in ((256,), (256, 256)):
        settings = [(Normal(s), rate) for s, rate in cases]
        found = runs(mlp(hidden), settings, parts, size.epochs(20), 128)
        for (s, rate), error in zip(cases, found.test, strict=True):
            name = "-".join(map(str, (784, *hidden, 10))) + f", N(0, {s:g}), rate {rate:g}"
            figures[f"{name}: test error, %"] = error
            what = (
                ("1 blows up, error - 50", error - 50)
                if s == 1
                else ("trains, 20 - error", 20 - error)
            )
            gains[f"{name}: {what[0]}"] = what[1]
    claim = "N(0, 0.01) and N(0, 0.1) train; N(0, 1) gives gradients too large for SGD."
    print_claim("C5", claim, figures, gains)


def scaled(start: Any, factors: Sequence[float]) -> Any:
    """The start (1, seeds, ...) with the kernels before the output times each factor."""

    def times(path: Any, leaf: jax.Array) -> jax.Array:
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        inner = where.endswith("kernel") and "output" not in where
        return jnp.concatenate([leaf * (f if inner else 1.0) for f in factors])

    return jax.tree_util.tree_map_with_path(times, start)


def behind_batch_norm(size: Size) -> None:
    """C8."""
    parts = digits(8, size)
    factors, rates = (0.1, 1.0, 10.0), (0.01, 0.1, 1.0)
    cases = [(f, rate) for rate in rates for f in factors]
    dense = [[Dense(f"dense{i}", WIDTH), BatchNorm(f"bn{i}"), Activation("relu")] for i in (1, 2)]
    figures: dict[str, Any] = {}
    gains: dict[str, Any] = {}
    for norm in (True, False):
        blocks = [layer for block in dense for layer in block if norm or layer != block[1]]
        net = Serial([Flatten(), *blocks, Dense("output", 10)])
        start = scaled(drawn(net, parts, [HeNormal()]), [factor for factor, _ in cases])
        found = trained(net, start, [rate for _, rate in cases], parts, size.epochs(5))
        errors = found.test.reshape(len(rates), len(factors), -1)
        for rate, (small, usual, large) in zip(rates, errors, strict=True):
            name = f"{'batch norm' if norm else 'plain'}, rate {rate:g}"
            figures[f"{name}: test error, %"] = usual
            for factor, error in ((0.1, small), (10, large)):
                what = f"{name}, weights x {factor:g}: "
                if norm:
                    gains[what + "2 - error added, %"] = 2 - (error - usual)
                else:
                    figures[what + "error added, %"] = error - usual
    claim = "With batch norm it does not matter how large the weights start (2 % after 5 epochs)."
    print_claim("C8", claim, figures, gains)


def deep(size: Size) -> None:
    """C82."""
    parts = digits(8, half(size))
    dense, relu = Dense("dense", WIDTH), Activation("relu")
    plain, norm = Serial([dense, relu]), Serial([dense, BatchNorm("bn"), relu])
    shortcut = Parallel([plain, Identity()], "add")
    xavier, he, small, large = XavierNormal(), HeNormal(), Normal(0.01), Normal(1.0)
    usual = {"N(0, 1)": large, "N(0, 0.01)": small, "Xavier": xavier, "He": he}
    networks = (
        ("2 layers", plain, 2, usual),
        ("30 layers", plain, 30, usual),
        ("30 layers with batch norm", norm, 30, {"He": he}),
        ("30 layers with shortcuts", shortcut, 30, {"N(0, 0.01)": small}),
    )
    rates = (0.001, 0.01, 0.1)
    figures: dict[str, Any] = {}
    gains: dict[str, Any] = {}
    for name, block, depth, kernels in networks:
        net = Serial([Flatten(), Repeat(block, depth), Dense("output", 10)])
        cases = [(kernel, rate) for kernel in kernels.values() for rate in rates]
        found = runs(net, cases, parts, size.epochs(15))
        for i, start in enumerate(kernels):
            here = slice(i * len(rates), (i + 1) * len(rates))
            best = here.start + int(found.valid[here].mean(1).argmin())
            error = found.test[best]
            figures[f"{name}, {start}: test error, %, rate {cases[best][1]:g}"] = error
            lost = 100 * np.mean(~np.isfinite(found.loss[here]), axis=0)
            if lost.any():
                figures[f"{name}, {start}: runs that end in inf or NaN, %"] = lost
            if depth == 30:
                gains[f"{name}, {start}: fails, error - 50"] = error - 50
    claim = "Deep networks do not train: their gradients vanish or become NaN."
    print_claim("C82", claim, figures, gains)


CLAIMS = {
    "C1": equal_regression,
    "C2": equal_perceptron,
    "C5": large_weights,
    "C8": behind_batch_norm,
    "C82": deep,
}


def main(given: Sequence[str] | None = None) -> None:
    print_claims(__doc__, given, CLAIMS)


if __name__ == "__main__":
    main()
