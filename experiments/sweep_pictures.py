"""Pictures of many runs at once: learning curves with bands, and a heat map of a sweep.

    python experiments/sweep_pictures.py --out pictures

Trains an MLP on the 8x8 digits of scikit-learn: by four optimisers from 20 seeds each (bands.png:
the median validation loss after each epoch, and the band from the 10th to the 90th percentile), and
by AdamW at 8 learning rates times 6 strengths of weight decay (heat_map.png). Expected: after 20
epochs the optimisers end within 0.1 of each other at these rates, the best of the sweep has a
validation loss below 0.2, and the largest rates diverge at the strongest decay. Found: 0.133 to
0.139, 0.127, 2 of 48.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxd2l import data, models, optim, plot, train
from jaxd2l.ops import losses

OPTIMIZERS = {
    "SGD, 0.3": (optim.sgd, 0.3),
    "momentum, 0.03": (optim.momentum, 0.03),
    "RMSProp, 0.003": (optim.rmsprop, 0.003),
    "Adam, 0.003": (optim.adam, 0.003),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--quick", action="store_true", help="fewer seeds, settings and epochs")
    options = parser.parse_args(arguments)
    seeds, rates, decays, epochs = (3, 3, 2, 2) if options.quick else (20, 8, 6, 20)
    parts = data.train_test_split(data.load_digits(8), 0.25)
    loss, net, key = losses.softmax_cross_entropy, models.mlp((32,)), jax.random.key(0)

    curves = {}
    for name, (optimizer, rate) in OPTIMIZERS.items():
        run = train.make_run(net, loss, optimizer, epochs=epochs, batch_size=32)
        outcome = train.ensemble(
            run,
            jax.random.split(key, seeds),
            parts.train,
            {"learning_rate": rate},
            valid=parts.test,
        )
        curves[name] = np.asarray(outcome.history["valid_loss"])  # (seeds, epochs)
        print(f"{name}: validation loss {np.median(curves[name][:, -1]):.3f}")

    values = {
        "learning_rate": np.geomspace(1e-4, 1.0, rates),
        "weight_decay": np.geomspace(1e-3, 10.0, decays),
    }
    run = train.make_run(net, loss, optim.adamw, epochs=epochs, batch_size=32)
    swept = train.sweep(run, train.grid(values), parts.train, key=key, valid=parts.test)
    scores = np.asarray(swept.history["valid_loss"])[:, -1]
    best, lost = np.nanmin(scores), int(np.isnan(scores).sum())
    print(f"AdamW: {scores.size} settings, {lost} diverged, the best validation loss is {best:.3f}")
    options.out.mkdir(parents=True, exist_ok=True)
    label = "validation loss"
    bands, heat_map = options.out / "bands.png", options.out / "heat_map.png"
    for picture in (
        plot.learning_bands(curves, bands, f"{seeds} seeds each", ylabel=label, log=True),
        plot.sweep_heat_map(scores, values, heat_map, "AdamW on digits", label=label),
    ):
        print(f"wrote {picture}")


if __name__ == "__main__":
    main()
