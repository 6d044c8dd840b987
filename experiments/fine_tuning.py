"""C139: fine-tuning beats training from scratch where the target data are few.

    python experiments/fine_tuning.py
    python experiments/fine_tuning.py --data MNIST_DIR

A small LeNet is trained on the digits 0 to 4, and its body goes on to 5 or 20 examples of each of
the digits 5 to 9 with a new head: the head trained alone, the body at a tenth of the head's rate,
or all at one rate; or the same network starts from random numbers. The few examples are repeated
so that every run takes the same number of steps. Accuracy is that on all other examples of 5 to 9,
in percent. All this once with the digits as they are and once with normal noise on every pixel of
both halves. A seed chooses the examples, their order and the random arrays.

The digits are those of scikit-learn at 14x14, or MNIST's from a folder of IDX files, halved. Each
method has the rate that was best, on these examples, of three or four that were tried, and the
noise (sd 0.6) is the one of a few that showed most: the figures are the methods' best, not a test.

Depends, with seeds 0 to 4; accuracy less that from scratch, in points, with its 95 % interval (and
the mean with MNIST's 10,000 test images for digits):

                    clean, 5 of each     clean, 20 of each    noisy, 5 of each    noisy, 20 of each
    from scratch    91.1 % (79.7)        96.4 % (90.1)        44.0 % (36.6)       60.3 % (48.6)
    head alone      -12.7 -+ 5.1 (-8.4)  -11.3 -+ 3.5 (-8.6)  +4.6 -+ 3.7 (+3.5)  -4.9 -+ 2.6 (+1.9)
    body slowed      -5.3 -+ 3.6 (-1.4)   -2.0 -+ 1.6 (-0.8)  +8.2 -+ 3.3 (+5.4)  +0.9 -+ 4.7 (+6.9)
    one rate         -0.5 -+ 4.0 (+0.6)   -0.3 -+ 0.8 (+0.8)  +9.1 -+ 4.1 (+5.7)  +3.2 -+ 4.8 (+7.7)

Clean digits need no body that was trained elsewhere: a few of them teach as good a one, and what
was frozen or slowed is in the way. Under noise the few examples do not teach it.
"""

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from report import print_claim

from jaxd2l import apply, data, init, layers, train
from jaxd2l.ops import losses

Arrays = tuple[np.ndarray, np.ndarray]  # inputs and targets; seeds on the first axis
SIDE, CLASSES = 14, 5
PER_CLASS = (5, 20)
NOISE = {"clean": 0.0, "noisy": 0.6}  # standard deviation; the images lie in [0, 1]


class Method(NamedTuple):
    """How the target is learnt: Adam's rates, and from where."""

    head: float
    body: float
    transferred: bool


SCRATCH = "from scratch"
METHODS = {
    "head alone": Method(1e-2, 0.0, True),
    "body slowed": Method(1e-2, 1e-3, True),
    "one rate": Method(3e-3, 3e-3, True),
    SCRATCH: Method(3e-3, 3e-3, False),
}


def network(classes: int = CLASSES, before: tuple[layers.Layer, ...] = ()) -> layers.Layer:
    """A LeNet of three hidden layers for 14x14 images, after the layers `before`."""
    relu, pool = layers.Activation("relu"), layers.MaxPool(2)
    return layers.Serial(
        [
            *before,
            *(layers.Conv("conv1", 8, 5, padding=2), relu, pool),
            *(layers.Conv("conv2", 16, 3, padding=1), relu, pool),
            *(layers.Flatten(), layers.Dense("dense1", 64), relu),
            layers.Dense("output", classes),
        ]
    )


def images(path: str | os.PathLike[str] | None) -> data.Dataset:
    """All labelled images at 14x14: scikit-learn's digits, or those of a folder at 28x28."""
    if path is None:
        return data.load_digits(SIDE)
    parts = data.load(path)
    inputs = np.concatenate([part.inputs for part in parts])
    inputs = inputs.reshape(len(inputs), SIDE, 2, SIDE, 2, 1).mean((2, 4))
    return data.Dataset(inputs, np.concatenate([part.targets for part in parts]))


def halves(dataset: data.Dataset) -> tuple[data.Dataset, data.Dataset]:
    """The digits 0 to 4, and the digits 5 to 9 with the labels 0 to 4."""
    low, high = (np.flatnonzero((dataset.targets < CLASSES) == side) for side in (True, False))
    other = dataset.take(high)
    return dataset.take(low), data.Dataset(other.inputs, other.targets - CLASSES)


def make_train(
    net: layers.Layer, optimizer: Callable[..., Any], epochs: int, batch_size: int
) -> Callable[..., Any]:
    """(keys, inputs, targets, hyper, initial) -> parameters, with the seeds on the first axis of
    all but hyper; one program. Looping over the seeds takes about as long as mapping them."""
    loss = losses.softmax_cross_entropy
    run = train.make_run(net, loss, optimizer, epochs=epochs, batch_size=batch_size)

    def each(key: Any, inputs: Any, targets: Any, hyper: Any, initial: Any) -> Any:
        return run(key, (inputs, targets), hyper, initial)[0]

    return jax.jit(jax.vmap(each, (0, 0, 0, None, 0)))


@functools.partial(jax.jit, static_argnums=0)
def _hits(net: layers.Layer, params: Any, inputs: Any, targets: Any) -> jax.Array:
    def one(params: Any, inputs: Any, targets: Any) -> jax.Array:
        logits, _ = apply(net, params, {}, inputs)
        return (logits.argmax(-1) == targets).mean()

    return jax.vmap(one)(params, inputs, targets)


def accuracy(net: layers.Layer, params: Any, inputs: Any, targets: Any) -> np.ndarray:
    """Percent for each seed; all three have the seeds on their first axis."""
    return 100 * np.asarray(_hits(net, params, inputs, targets))


def starts(net: layers.Layer, seeds: int, purpose: str) -> tuple[Any, Any]:
    """A key for each seed, and the random parameters (and no statistics) drawn with it."""
    keys = jax.vmap(lambda seed: layers.fold_path(jax.random.key(seed), (purpose,)))(
        np.arange(seeds)
    )
    return keys, jax.jit(jax.vmap(lambda key: init(net, key, (SIDE, SIDE, 1))))(keys)


def for_all(seeds: int, dataset: data.Dataset) -> Arrays:
    """The same inputs and targets for every seed."""
    inputs, targets = dataset.inputs, dataset.targets
    both = (np.broadcast_to(a, (seeds, *a.shape)) for a in (inputs, targets))
    return next(both), next(both)


def by_rate(head: Any, body: Any) -> optax.GradientTransformation:
    """Adam with one rate for the head and one for all else; a rate of 0 freezes."""
    return train.by_path({"output/*": optax.adam(head)}, rest=optax.adam(body))


def choose(dataset: data.Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `dataset`: as many of each class as the largest run needs, class by class; and all
    others."""
    order = np.random.RandomState(seed).permutation(len(dataset))
    chosen = [order[dataset.targets[order] == c][: max(PER_CLASS)] for c in range(CLASSES)]
    return np.stack(chosen), np.setdiff1d(order, chosen)


def measure(
    dataset: data.Dataset, seeds: int, learn_source: Callable[..., Any], learn: Callable[..., Any]
) -> tuple[dict[tuple[str, int], np.ndarray], np.ndarray]:
    """Accuracies by (method, examples of each class), and that of the source: one for each seed."""
    net = network()
    source, target = halves(dataset)
    parts = data.train_test_split(source, 0.2)
    keys, fresh = starts(net, seeds, "source")
    rates = {"head": 1e-3, "body": 1e-3}
    trained = learn_source(keys, *for_all(seeds, parts.train), rates, fresh)
    found = {}
    keys, fresh = starts(net, seeds, "target")
    start = train.transfer((trained, {}), fresh, leave=["output/*"])
    rows = [choose(target, seed) for seed in range(seeds)]
    test = np.stack([others for _, others in rows])
    for n in PER_CLASS:
        chosen = np.stack([np.tile(most[:, :n], max(PER_CLASS) // n).ravel() for most, _ in rows])
        few = target.inputs[chosen], target.targets[chosen]
        for name, method in METHODS.items():
            rates = {"head": method.head, "body": method.body}
            params = learn(keys, *few, rates, start[:2] if method.transferred else fresh)
            found[name, n] = accuracy(net, params, target.inputs[test], target.targets[test])
    return found, accuracy(net, trained, *for_all(seeds, parts.test))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", help="a folder with MNIST's IDX files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30, help="of the target, 100 examples each")
    parser.add_argument("--source-epochs", type=int, default=15)
    options = parser.parse_args()
    clean = images(options.data)
    normal = np.random.RandomState(0).normal(size=clean.inputs.shape)
    learn_source = make_train(network(), by_rate, options.source_epochs, 64)
    learn = make_train(network(), by_rate, options.epochs, 20)
    figures, gains = {}, {}
    for kind, noise in NOISE.items():
        dataset = data.Dataset(clean.inputs + noise * normal, clean.targets)
        found, before = measure(dataset, options.seeds, learn_source, learn)
        figures[f"{kind}: digits 0 to 4 before"] = before
        for (name, n), values in found.items():
            figures[f"{kind}, {n} of each: {name}"] = values
            if name != SCRATCH:
                gains[f"{kind}, {n} of each: {name} - scratch"] = values - found[SCRATCH, n]
    claim = "Fine-tuning beats training from scratch on small target data (accuracy in %)."
    print_claim("C139", claim, figures, gains)


if __name__ == "__main__":
    main()
