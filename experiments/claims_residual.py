"""A claim about residual networks: that the pre-activation order of a unit, batch norm, ReLU,
convolution, works, and needs another learning rate (C124).

    python experiments/claims_residual.py

12 units of 8 channels (26 layers with weights) on the 8x8 digits, averaged down to 4x4, stochastic
gradient descent with momentum 0.9 at four learning rates a factor of 3 apart, five seeds.
Found: C124 depends: it works, with rates about 6 times as large as those of the first order, and
learns a little slower (27.9 to 24.6 % wrong over all epochs).
"""

import argparse
from collections.abc import Sequence

import numpy as np
from report import print_claim
from trials import best, trials

from jaxd2l import data
from jaxd2l.layers import AvgPool, Conv, Dense, GlobalAvgPool, Layer, Repeat, Serial
from jaxd2l.models.blocks import RELU, conv_norm, norm, preactivation_block, residual_block

RATES = (0.01, 0.03, 0.1, 0.3)
UNITS = 12
WIDTH = 8
WORKS = 0.2  # of the training examples wrong after the last epoch


def network(before: bool) -> Layer:
    """Residual units with norm and ReLU before or after each convolution."""
    block = preactivation_block if before else residual_block
    units = Repeat(block("unit", WIDTH), UNITS)
    stem = [Conv("stem", WIDTH, 3, padding=1)] if before else [conv_norm("stem", WIDTH, 3)]
    last = [norm("bn"), RELU] if before else []
    return Serial([AvgPool(2), *stem, units, *last, GlobalAvgPool(), Dense("output", 10)])


def order(parts: data.Parts, seeds: int, epochs: int) -> None:
    """C124."""
    figures, gains, speed, rate = {}, {}, {}, {}
    for name, before in (("norm, ReLU, convolution", True), ("convolution, norm, ReLU", False)):
        found = trials(network(before), parts, RATES, seeds, epochs=epochs, momentum=0.9)
        area = found.error.mean(-1)  # (R, S), the training error over all epochs
        number, speed[before] = best(area)
        rate[before] = np.log10(np.asarray(RATES)[area.argmin(0)])
        _, error = best(found.train_error)
        at = f"{name}, rate {RATES[number]:g}"
        figures[f"{at}: training error over all epochs, %"] = 100 * speed[before]
        figures[f"{at}: test error, %"] = 100 * found.test_error[number]
        figures[f"{name}, at its best rate: training error at the end, %"] = 100 * error
        figures[f"{name}: log10 of the best rate of each seed"] = rate[before]
        if before:
            gains["it works: 20 % - training error at the end"] = 100 * (WORKS - error)
    gains["it needs another rate: |difference of log10| - log10(2)"] = np.abs(
        rate[True] - rate[False]
    ) - np.log10(2)
    gains["it learns faster: training error over all epochs saved, %"] = 100 * (
        speed[False] - speed[True]
    )
    claim = "Units of norm, ReLU, convolution work, need another learning rate and learn faster."
    print_claim("C124", claim, figures, gains)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args(arguments)
    parts = data.train_test_split(data.load_digits(8), 0.2)
    order(parts, options.seeds, options.epochs)


if __name__ == "__main__":
    main()
