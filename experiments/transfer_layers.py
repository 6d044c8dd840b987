"""C140: low layers are general, high layers are specific to what they were trained for.

    python experiments/transfer_layers.py
    python experiments/transfer_layers.py --data MNIST_DIR

The first k layers of a small LeNet trained on the digits 0 to 4 are frozen in a network that learns
the digits 5 to 9 with all other layers new, k = 0 to 3 (conv1, conv2, dense1). As a control the
frozen layers come from a network trained on the same digits 5 to 9, so that what freezing costs by
itself is known. Accuracy is that on the held-out half of the digits 5 to 9, in percent. A seed
chooses the halves, the order of the examples and the random arrays.

The digits are those of scikit-learn at 14x14, or MNIST's from a folder of IDX files, halved.
The form of the experiment is that of Yosinski et al. 2014.

True, with seeds 0 to 4 (and with MNIST's 10,000 test images for digits):

    frozen layers              0            1            2            3
    from the digits 0 to 4     97.3 (97.7)  97.1 (97.7)  95.6 (96.7)  77.4 (87.6)
    from the digits 5 to 9                  97.4 (97.5)  97.2 (97.5)  96.6 (97.3)

One layer of the other digits loses 0.2 -+ 0.6 points against one of the same digits, all three
19 -+ 5 (10 -+ 2).
"""

import argparse
from typing import Any

import numpy as np
import optax
from fine_tuning import Arrays, accuracy, for_all, halves, images, make_train, network, starts
from report import print_claim

from jaxd2l import data, train

LAYERS = ("conv1", "conv2", "dense1")
RATE = 1e-3


def by_layer(rates: Any) -> optax.GradientTransformation:
    """Adam with a rate for each hidden layer; a rate of 0 freezes."""
    groups = {f"{name}/*": optax.adam(rates[i]) for i, name in enumerate(LAYERS)}
    return train.by_path(groups, rest=optax.adam(RATE))


def rates(frozen: int) -> dict[str, np.ndarray]:
    """Hyper-parameters that freeze the first layers."""
    return {"rates": np.where(np.arange(len(LAYERS)) < frozen, 0.0, RATE).astype(np.float32)}


def split(target: data.Dataset, seeds: int) -> tuple[Arrays, Arrays]:
    """One half to train on and one to test on, drawn for each seed."""
    parts = [data.train_test_split(target, 0.5, seed) for seed in range(seeds)]
    few, test = (
        (np.stack([p[half].inputs for p in parts]), np.stack([p[half].targets for p in parts]))
        for half in (0, 1)
    )
    return few, test


def measure(dataset: data.Dataset, seeds: int, epochs: int) -> dict[tuple[str, int], np.ndarray]:
    """Accuracies by (where the layers come from, how many are frozen), one for each seed."""
    net = network()
    source, target = halves(dataset)
    few, test = split(target, seeds)
    learn = make_train(net, by_layer, epochs, 32)
    keys, fresh = starts(net, seeds, "source")
    trained = {
        "0 to 4": learn(keys, *for_all(seeds, source), rates(0), fresh),
        "5 to 9": learn(keys, *few, rates(0), fresh),
    }
    keys, fresh = starts(net, seeds, "target")
    found = {("nothing", 0): accuracy(net, learn(keys, *few, rates(0), fresh), *test)}
    for k in range(1, len(LAYERS) + 1):
        new = [f"{name}/*" for name in (*LAYERS[k:], "output")]
        for name, params in trained.items():
            start = train.transfer((params, {}), fresh, leave=new)
            found[name, k] = accuracy(net, learn(keys, *few, rates(k), start[:2]), *test)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", help="a folder with MNIST's IDX files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    found = measure(images(options.data), options.seeds, options.epochs)
    figures = {f"frozen layers: {k}, from: {name}": v for (name, k), v in found.items()}
    # by how much the layers of the other digits are worse than those of the same digits
    low, *_, high = (found["5 to 9", k] - found["0 to 4", k] for k in range(1, len(LAYERS) + 1))
    gains = {
        "one layer of the other digits loses less than 1": 1 - low,
        "all layers of the other digits lose": high,
        "and lose more than one layer": high - low,
    }
    claim = "Low layers are general, high layers specific (accuracy in %)."
    print_claim("C140", claim, figures, gains)


if __name__ == "__main__":
    main()
