"""Claims about dropout, weight decay and batch norm: batch norm instead of dropout (C42), rates of
dropout exchanged (C67), dropout with weight decay (C68), long runs (C69), the best rates (C74) and
slower convergence (C75).

    python experiments/claims_regularisation.py
    python experiments/claims_regularisation.py --quick --claims C67

Perceptrons with hidden layers of 128 units (two; C74: one) on the 8x8 digits, 512 to train on (C68:
1024), 40 epochs of stochastic gradient descent with batches of 32, at the rate of six that a
validation part prefers; 20 seeds, each with a split of its own. Found:
C42 true here: batch norm errs on 2.7 % of the test part, the plain network on 3.8 %, dropout on
3.7 %, both together on 3.1 %. C67 open: 3.8 % exchanged, 3.7 % not, a difference of 0.1 -+ 0.3.
C68 false: both together err on 3.0 % (lambda 1e-4), 3.6 % (1e-3) and 7 % (1e-2; decay alone 12 %);
from 0.03 on the network guesses, without dropout too. C69 depends: from epoch 20 to 200 training
accuracy rises by 1.8 points, but test accuracy as well, by 1.0.
C74 depends: dropping 0.2 and 0.5 errs on 4.6 %, more than 0 and 0.5 (3.8 %) or none (3.9 %), less
than more dropout; dropping 0.8 of the inputs, as the notes can be read, on 15 %.
C75 true: 1.6 more epochs to 6 % error at the best rates, 2.3 more at 0.1, 5.5 more at 0.03.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import optax
from report import print_claim
from sweeps import Found, Size, classifier, print_claims, splits, swept
from trials import epochs_until

from jaxd2l import data, optim
from jaxd2l.layers import Activation, BatchNorm, Dense, Dropout, Flatten, Layer, Serial
from jaxd2l.models import mlp
from jaxd2l.ops.initializers import Normal

SIZES = (512, 300, 985)
WIDTHS = (128, 128)
RATES = (0.03, 0.1, 0.3, 0.6, 1.0, 2.0)
LEVEL = 0.06  # of the validation examples wrong: the error to be reached
MARGIN = 0.5  # points of percent that count as no difference
ORIGINAL, SWAPPED = (0.2, 0.5), (0.5, 0.2)


@functools.cache
def runs(net: Layer, size: Size, rates: tuple[float, ...] = RATES, epochs: int = 40) -> Found:
    parts = splits(data.load_digits(8), SIZES, size.seeds)
    run = classifier(net, optim.sgd, size.epochs(epochs))
    return swept(run, {"learning_rate": rates}, parts)


def best(found: Found) -> tuple[str, np.ndarray]:
    """The test error at the rate that the validation part prefers, and how to call it."""
    return f"test error, %, rate {RATES[found.best]:g}", found.test[found.best]


def network(norm: bool, drop: Sequence[float]) -> Layer:
    """The perceptron with batch norm before each activation, dropout after it, both or neither."""
    found: list[Layer] = [Flatten()]
    for i, width in enumerate(WIDTHS, 1):
        found.append(Dense(f"dense{i}", width))
        found += [BatchNorm(f"bn{i}")] if norm else []
        found.append(Activation("relu"))
        found += [Dropout(f"dropout{i}", drop[i - 1])] if drop else []
    return Serial([*found, Dense("output", 10)])


def norm_or_dropout(size: Size) -> None:
    """C42."""
    names = {(False, ()): "plain", (True, ()): "batch norm", (False, ORIGINAL): "dropout"}
    names[True, ORIGINAL] = "both"
    figures, error, gap = {}, {}, {}
    for (norm, drop), name in names.items():
        found = runs(network(norm, drop), size)
        what, error[name] = best(found)
        gap[name] = error[name] - found.train[found.best]
        figures[f"{name}: {what}"] = error[name]
        figures[f"{name}: test - training error, %"] = gap[name]
    gains = {
        "gap between test and training error, plain - batch norm": gap["plain"] - gap["batch norm"],
        "test error, plain - batch norm": error["plain"] - error["batch norm"],
        "test error: 0.5 - (batch norm - dropout)": MARGIN
        - (error["batch norm"] - error["dropout"]),
        "test error: 0.5 - (batch norm - both)": MARGIN - (error["batch norm"] - error["both"]),
    }
    claim = "Batch norm regularises, so that dropout can be left out."
    print_claim("C42", claim, figures, gains)


def exchanged(size: Size) -> None:
    """C67."""
    figures, error = {}, {}
    for rates in (ORIGINAL, SWAPPED):
        what, error[rates] = best(runs(mlp(WIDTHS, dropout=rates), size))
        figures[f"dropout {rates[0]}, {rates[1]}: {what}"] = error[rates]
    gains = {"test error, exchanged - original": error[SWAPPED] - error[ORIGINAL]}
    print_claim("C67", "Dropout of 0.5 and 0.2 errs more than of 0.2 and 0.5.", figures, gains)


def decayed(learning_rate: Any, strength: Any) -> optax.GradientTransformation:
    """Descent with an L2 penalty on the kernels."""
    return optax.chain(optim.l2(strength), optim.sgd(learning_rate))


def with_decay(size: Size) -> None:
    """C68, at the book's rate of 0.5 from its weights N(0, 0.01^2)."""
    strengths = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1)
    parts = splits(data.load_digits(8), (1024, 300, 473), size.seeds)
    hypers = {"strength": strengths, "learning_rate": [0.5] * len(strengths)}
    figures, error = {}, {}
    for drop in ((), ORIGINAL):
        start = Normal(0.01)
        hidden = [
            [Dense(f"dense{i}", width, kernel_init=start), Activation("relu")]
            + ([Dropout(f"dropout{i}", drop[i - 1])] if drop else [])
            for i, width in enumerate(WIDTHS, 1)
        ]
        flat = itertools.chain.from_iterable(hidden)
        net = Serial([Flatten(), *flat, Dense("output", 10, kernel_init=start)])
        error[bool(drop)] = swept(classifier(net, decayed, size.epochs(40)), hypers, parts).test
        for strength, values in zip(strengths, error[bool(drop)], strict=True):
            what = "decay and dropout" if drop else "decay alone"
            figures[f"{what}, lambda {strength:g}: test error, %"] = values
    worse = np.maximum(error[False], error[True][0])  # of either alone
    gains = {
        f"lambda {strength:g}: error, both - the worse of either alone": error[True][i] - worse[i]
        for i, strength in enumerate(strengths)
        if strength
    }
    claim = "Dropout and weight decay together leave the network guessing (10 % right)."
    print_claim("C68", claim, figures, gains)


def long_runs(size: Size) -> None:
    """C69."""
    parts = splits(data.load_digits(8), SIZES, size.seeds)
    short, long = size.epochs(20), size.epochs(200)
    figures, gains = {}, {}
    for name, net in (("plain", mlp(WIDTHS)), ("dropout", mlp(WIDTHS, dropout=ORIGINAL))):
        run = classifier(net, optim.sgd, long)
        history = swept(run, {"learning_rate": [0.1]}, parts, watched=parts.test).history
        train, test = (100 * history[k][0] for k in ("accuracy", "valid_accuracy"))  # (S, epochs)
        for epochs in (short, long):
            figures[f"{name}: training accuracy, %, epoch {epochs}"] = train[:, epochs - 1]
            figures[f"{name}: test accuracy, %, epoch {epochs}"] = test[:, epochs - 1]
        if name == "plain":
            more = train[:, -1] - train[:, short - 1]
            gains[f"plain: training accuracy gained after epoch {short}, %"] = more
            less = test[:, short - 1] - test[:, -1]
            gains[f"plain: test accuracy lost after epoch {short}, %"] = less
    claim = "Longer training without dropout: training accuracy rises, test accuracy falls."
    print_claim("C69", claim, figures, gains)


def rates_of_dropout(size: Size) -> None:
    """C74: dropped shares of the inputs and of the hidden units, one hidden layer."""
    grid = [(0.2, 0.5), (0.0, 0.0), (0.0, 0.5), (0.2, 0.0), (0.5, 0.5), (0.2, 0.8), (0.8, 0.5)]
    figures, error = {}, {}
    for pair in grid:
        net = Serial(
            [
                *(Flatten(), Dropout("pixels", pair[0]), Dense("dense1", 128)),
                *(Activation("relu"), Dropout("units", pair[1]), Dense("output", 10)),
            ]
        )
        what, error[pair] = best(runs(net, size))
        figures[f"inputs {pair[0]}, hidden {pair[1]}: {what}"] = error[pair]
    gains = {
        f"error, inputs {pair[0]}, hidden {pair[1]} - inputs 0.2, hidden 0.5": error[pair]
        - error[grid[0]]
        for pair in grid[1:]
    }
    claim = "Dropping 0.2 of the inputs and 0.5 of the hidden units is best."
    print_claim("C74", claim, figures, gains)


def slower(size: Size) -> None:
    """C75."""
    figures, gains, epochs = {}, {}, {}
    for name, net in (("plain", mlp(WIDTHS)), ("dropout", mlp(WIDTHS, dropout=ORIGINAL))):
        found = runs(net, size)
        until = epochs_until(1 - found.history["valid_accuracy"], LEVEL)
        number = int(until.mean(1).argmin())
        epochs[name] = until
        figures[f"{name}: epochs to 6 % of the validation examples, rate {RATES[number]:g}"] = (
            until[number]
        )
        figures[f"{name}: log10 training loss at the end, rate 0.1"] = np.log10(
            found.loss[RATES.index(0.1)]
        )
    each = {name: until[int(until.mean(1).argmin())] for name, until in epochs.items()}
    gains["each at its best rate: epochs lost by dropout"] = each["dropout"] - each["plain"]
    for rate in (0.03, 0.1):
        number = RATES.index(rate)
        lost = epochs["dropout"][number] - epochs["plain"][number]
        gains[f"both at rate {rate:g}: epochs lost by dropout"] = lost
    print_claim("C75", "Dropout slows convergence.", figures, gains)


CLAIMS = {
    "C42": norm_or_dropout,
    "C67": exchanged,
    "C68": with_decay,
    "C69": long_runs,
    "C74": rates_of_dropout,
    "C75": slower,
}


def main(given: Sequence[str] | None = None) -> None:
    print_claims(__doc__, given, CLAIMS)


if __name__ == "__main__":
    main()
