"""The book's networks on MNIST's test images: accuracy, seconds and parameters of each.

    python experiments/mnist_networks.py --data MNIST_DIR
        MNIST_DIR holds MNIST's 10,000 test images: 8,000 to train on, the last 2,000 to test
    python experiments/mnist_networks.py
        the digits of scikit-learn, a fifth held out
    python experiments/mnist_networks.py --data MNIST_DIR --only small_resnet bn_lenet

Adam, batches of 64. Images are resized as far as each network needs: the book's 96 and 224 pixels
are for GPUs. Widths are the book's but where `NETWORKS` says otherwise.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import optax

from jaxd2l import data, models, summarize, train
from jaxd2l.layers import Augment, Layer, Serial
from jaxd2l.models import d2l
from jaxd2l.ops import losses
from jaxd2l.ops.augment import RandomShift

BATCH = 64


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table: how a network is made, and how it is trained."""

    make: Callable[[], Layer]
    size: int
    epochs: int
    rate: float = 1e-3
    seeds: int = 5


def small_resnet() -> Layer:
    """The book's ResNet with one block in each of three stages, a quarter as wide."""
    return d2l.resnet18(units=(1, 1, 1), features=16)


NARROW = ((1, 16), (1, 32), (2, 64), (2, 128), (2, 128))  # the book's choice for Fashion-MNIST
NETWORKS = {
    "lenet": Case(models.lenet, 28, 10, 2e-3),
    "bn_lenet": Case(lambda: models.lenet(batch_norm=True), 28, 10, 2e-3),
    "bn_lenet_after": Case(
        lambda: models.lenet(batch_norm=True, norm_position="after"), 28, 10, 2e-3
    ),
    "alexnet": Case(lambda: d2l.alexnet(hidden=512), 67, 3, 3e-4, seeds=1),
    "vgg": Case(lambda: d2l.vgg(NARROW, hidden=512), 32, 5),
    # Three of its ten classes are never learnt: its last block is ten channels wide with a ReLU
    # after each convolution, the last included, and units that are 0 everywhere stay so. Rates of
    # 1e-4 to 1e-3, SGD, warm-up, clipping, Xavier, biases of 1, no last ReLU: 55 to 72 % or less.
    "nin": Case(d2l.nin, 67, 5, 3e-4, seeds=1),
    "googlenet": Case(d2l.googlenet, 32, 5, seeds=1),
    "resnet18": Case(d2l.resnet18, 28, 3, seeds=1),
    "small_resnet": Case(small_resnet, 28, 10, 3e-3),
    "small_resnet_shifted": Case(
        lambda: Serial([Augment("augment", RandomShift(1)), small_resnet()]), 28, 10, 3e-3
    ),
    "densenet": Case(d2l.densenet, 32, 4, seeds=1),
}


def run(case: Case, parts: data.Parts, seed: int, epochs: int) -> tuple[float, float]:
    """Test accuracy after the last epoch, and the seconds of the run, compiling included."""
    began = time.perf_counter()
    steps = epochs * -(-len(parts.train) // BATCH)
    result = train.fit(
        case.make(),
        parts.train,
        loss=losses.softmax_cross_entropy,
        optimizer=optax.adam(optax.cosine_decay_schedule(case.rate, steps)),
        epochs=epochs,
        batch_size=BATCH,
        seed=seed,
        test=parts.test,
    )
    return result.history[-1]["test_accuracy"], time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", help="a folder of IDX files")
    parser.add_argument("--hold-out", type=int, help="examples to test on (default: a fifth)")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, help="runs of each network (default: 5 or 1)")
    parser.add_argument("--epochs", type=int, help="of each run (default: by network)")
    arguments = parser.parse_args()
    print(
        "| network | input | parameters | epochs | test accuracy, median (range) | seconds a run |"
    )
    print("|:--|--:|--:|--:|--:|--:|")
    for name in arguments.only:
        case = NETWORKS[name]
        parts = data.load(arguments.data, size=(case.size, case.size), hold_out=arguments.hold_out)
        epochs = arguments.epochs or case.epochs
        found = [run(case, parts, seed, epochs) for seed in range(arguments.seeds or case.seeds)]
        jax.clear_caches()
        accuracies = [100 * accuracy for accuracy, _ in found]
        spread = f" ({min(accuracies):.2f}-{max(accuracies):.2f})" if len(found) > 1 else ""
        table = summarize(case.make(), parts.train.inputs.shape[1:])
        print(
            f"| {name} | {case.size}x{case.size} | {table.parameters:,} | {epochs} "
            f"| {statistics.median(accuracies):.2f} %{spread} "
            f"| {statistics.median(seconds for _, seconds in found):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
