"""Claims about small convolutional networks: that ReLU trains several times faster than tanh
(C130), that local response norm is of no use (C131), and that global average pooling in the place
of dense layers has fewer parameters and overfits less (C132).

    python experiments/claims_cnn.py

Three convolutions and a head on the 8x8 digits, stochastic gradient descent at learning rates a
factor of 2 apart, five seeds; every network at the rate that suits it best.
Found: C130 depends: at the small rate 0.05 ReLU is there 1.9 times as soon, at the best rate of
each it is not sooner, and three times never. C131 open: it costs 1.0 [-0.4, 2.5] epochs and saves
-0.3 [-2.1, 1.4] % of test error. C132 open: 58 % of the parameters saved, but the gap of 9.5 %
only by 1.3 [-1.2, 3.7] %. With --seeds 15 both stay open: norms cost 0.8 [0.05, 1.6] epochs and
save 0.3 [-0.7, 1.3] % of test error, and the gap shrinks by 0.3 [-0.7, 1.2] %.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from report import print_claim
from trials import best, epochs_until, trials

from jaxd2l import data, summarize
from jaxd2l.layers import (
    Activation,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Serial,
)
from jaxd2l.ops.initializers import HeNormal, XavierNormal

RATES = (0.05, 0.1, 0.2, 0.4, 0.8)
SIZE = 8
FEW = 200  # examples to train on where overfitting is measured


def network(kind: str = "relu", respond: bool = False, head: str = "linear") -> Layer:
    """Convolutions with 8, 16 and 32 channels, the first two with local response norm if asked,
    and a head: "linear" on all positions, "dense" with 64 hidden units, or "average"."""
    init = HeNormal() if kind == "relu" else XavierNormal()
    act = Activation(kind)
    norm: list[Layer] = [LocalResponseNorm()] if respond else []

    def conv(number: int, features: int) -> Layer:
        return Conv(f"conv{number}", features, 3, padding=1, kernel_init=init)

    heads: dict[str, list[Layer]] = {
        "linear": [Flatten(), Dense("output", 10)],
        "dense": [Flatten(), Dense("dense", 64, kernel_init=init), act, Dense("output", 10)],
        "average": [Conv("output", 10, 1), GlobalAvgPool()],
    }
    convs = [conv(1, 8), act, *norm, MaxPool(2), conv(2, 16), act, *norm, MaxPool(2), conv(3, 32)]
    return Serial([*convs, act, *heads[head]])


def activations(parts: data.Parts, seeds: int, epochs: int) -> None:
    """C130."""
    figures, gains = {}, {}
    found = {
        kind: trials(network(kind), parts, RATES, seeds, epochs=epochs) for kind in ("relu", "tanh")
    }
    for level in (0.25, 0.05):
        epochs_to = {}
        for kind in found:
            number, epochs_to[kind] = best(epochs_until(found[kind].error, level))
            name = f"{kind}: epochs to {level:.0%} training error, rate {RATES[number]:g}"
            figures[name] = epochs_to[kind]
        sooner = np.log2(epochs_to["tanh"] / epochs_to["relu"])
        gains[f"to {level:.0%}, each at its best rate: log2 of (how many times sooner / 3)"] = (
            sooner - np.log2(3)
        )
        gains[f"to {level:.0%}, each at its best rate: log2 of how many times sooner"] = sooner
    same = {kind: epochs_until(found[kind].error[0], 0.25) for kind in found}
    for kind, values in same.items():
        figures[f"{kind}: epochs to 25% training error, rate {RATES[0]:g}"] = values
    gains[f"to 25%, both at rate {RATES[0]:g}: log2 of how many times sooner"] = np.log2(
        same["tanh"] / same["relu"]
    )
    print_claim("C130", "ReLU trains several times faster than tanh.", figures, gains)


def responses(parts: data.Parts, seeds: int, epochs: int) -> None:
    """C131."""
    figures, epochs_to, errors = {}, [], []
    for respond in (False, True):
        found = trials(network(respond=respond), parts, RATES, seeds, epochs=epochs)
        number, values = best(epochs_until(found.error, 0.05))
        name = "with it" if respond else "without it"
        figures[f"{name}, rate {RATES[number]:g}: epochs to 5% training error"] = values
        epochs_to.append(values)
        number, _ = best(found.train_error)
        errors.append(100 * found.test_error[number])
        figures[f"{name}, rate {RATES[number]:g}: test error, %"] = errors[-1]
    gains = {
        "epochs that it costs": epochs_to[1] - epochs_to[0],
        "1 % - test error that it saves": 1 - (errors[0] - errors[1]),
    }
    claim = "Local response norm is of no use: it neither speeds training nor saves 1 % of errors."
    print_claim("C131", claim, figures, gains)


def heads(parts: data.Parts, seeds: int, epochs: int) -> None:
    """C132."""
    few = data.Parts(parts.train.take(np.arange(FEW)), parts.test)
    figures, gap, errors, counts = {}, {}, {}, {}
    for head in ("dense", "average"):
        net = network(head=head)
        found = trials(net, few, RATES[:4], seeds, epochs=epochs, batch_size=20)
        number, train_error = best(100 * found.train_error)
        errors[head] = 100 * found.test_error[number]
        gap[head] = errors[head] - train_error
        counts[head] = summarize(net, (SIZE, SIZE, 1)).parameters
        name = f"{head} head, {counts[head]} parameters, rate {RATES[number]:g}"
        figures[f"{name}: training error, %"] = train_error
        figures[f"{name}: test error, %"] = errors[head]
    gains = {
        "parameters saved": np.full(seeds, counts["dense"] - counts["average"]),
        "gap between test and training error saved, %": gap["dense"] - gap["average"],
        "test error saved, %": errors["dense"] - errors["average"],
    }
    claim = "Global average pooling instead of dense layers: fewer parameters and less overfitting."
    print_claim("C132", claim, figures, gains)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args(arguments)
    parts = data.train_test_split(data.load_digits(SIZE), 0.2)
    activations(parts, options.seeds, options.epochs)
    print()
    responses(parts, options.seeds, 2 * options.epochs)
    print()
    heads(parts, options.seeds, 6 * options.epochs)


if __name__ == "__main__":
    main()
