"""Claims about what lowers the error on new data: early stopping, augmentation and ensembles (C87),
bagging and boosting (C88); and about data without neighbourhoods (C58).

    python experiments/claims_overfitting.py
    python experiments/claims_overfitting.py --quick --claims C58

Small networks, 200 digits to train on (C88: 40 points of a noisy sine); 20 seeds, each with a split
of its own. Found:
C87 depends: early stopping saves 8 of 22 points of error where a fifth of the training labels are
random, and nothing where all are right; an ensemble of 5 saves 0.15 -+ 0.13 of 6.7; shifts by a
pixel cost 1.4 (dense) and perhaps 0.8 (convolutions), because all digits are centred, test ones too
(augmentation.py tests on shifted ones); reflections, which change digits, cost 3.0.
C88 depends: bagging lowers the variance of a network that overfits (32-32 ReLU, 0.044 to 0.034) but
not of a smooth one (64 tanh, 0.0137 to 0.0142); boosting lowers the squared bias of single units
from 0.32 to 0.19.
C58 true: permuting the pixels costs a convolutional network 3.9 points of error (6.7 to 10.5 %), a
dense one 0.0 (6.9 %), and permuting the columns of a table a dense one 0.1 (2.8 %).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from report import print_claim
from sweeps import Size, Splits, classifier, print_claims, splits, swept

from jaxd2l import data, optim, train
from jaxd2l.layers import Activation, Augment, Conv, Dense, Flatten, Layer, MaxPool, Serial
from jaxd2l.models import mlp
from jaxd2l.ops import losses, metrics
from jaxd2l.ops.augment import Augmentation, RandomFlip, RandomShift
from jaxd2l.train.mapping import How

SIZES = (200, 500, 500)
RATES = (0.001, 0.003, 0.01)  # of Adam
WRONG = 0.2  # of the training labels drawn anew where labels are noisy
MEMBERS = 5
MARGIN = 1.5  # points of percent that count as no effect of a permutation
POINTS, NOISE = 40, 0.3  # a training set of the regression, and the deviation of its targets


def with_wrong_labels(parts: Splits) -> Splits:
    """A share of the training labels drawn at random; those of the other parts stay."""
    random = np.random.RandomState(0)
    labels = np.asarray(parts.train.targets)
    anew = np.where(random.rand(len(labels)) < WRONG, random.randint(0, 10, len(labels)), labels)
    return parts._replace(train=replace(parts.train, targets=jnp.asarray(anew, jnp.int32)))


def stopping(size: Size, parts: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Test error at the end and at the epoch with the lowest validation loss; Adam at 0.003."""
    run = classifier(mlp((64,)), optim.adam, size.epochs(150))
    hyper = {"learning_rate": [0.003]}
    valid, test = (
        swept(run, hyper, parts, watched=part).history for part in (parts.valid, parts.test)
    )
    errors = 100 * (1 - test["valid_accuracy"][0])  # (S, epochs)
    epoch = valid["valid_loss"][0].argmin(1)
    return errors[:, -1], np.take_along_axis(errors, epoch[:, None], 1)[:, 0]


def convolutional() -> Layer:
    relu = Activation("relu")
    return Serial(
        [
            *(Conv("conv1", 8, 3, padding=1), relu, MaxPool(2)),
            *(Conv("conv2", 16, 3, padding=1), relu, MaxPool(2)),
            *(Flatten(), Dense("output", 10)),
        ]
    )


def augmented(
    size: Size, parts: Splits, kind: str, step: Augmentation | None
) -> tuple[str, np.ndarray]:
    """Test error at the best rate, of a dense or a convolutional network."""
    epochs, how = {"dense": (300, "vmap"), "convolutions": (60, "map")}[kind]
    net = mlp((64,)) if kind == "dense" else convolutional()
    net = net if step is None else Serial([Augment("augment", step), net])
    run = classifier(net, optim.adam, size.epochs(epochs))
    found = swept(run, {"learning_rate": RATES}, parts, how=cast(How, how))
    return f"rate {RATES[found.best]:g}", found.test[found.best]


def committee(size: Size, parts: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Mean test error of MEMBERS networks, and the error of their mean probabilities."""
    run = classifier(mlp((64,)), optim.adam, size.epochs(100))

    def one(key: jax.Array, rows: Any, test_rows: Any) -> Any:
        mine, test = replace(parts.train, rows=rows), replace(parts.test, rows=test_rows)
        keys = jax.random.split(key, MEMBERS)
        out = train.ensemble(run, keys, mine, {"learning_rate": 0.003}, how="vmap")
        x, y = test.inputs[test.rows], test.targets[test.rows]
        logits = train.predict_members(run.model, out.params, out.state, x, how="vmap")
        together = metrics.correct(train.average_probabilities(logits), y)
        return jax.vmap(metrics.correct, (0, None))(logits, y).mean(), together.mean()

    keys = jax.random.split(jax.random.key(0), size.seeds)
    alone, together = jax.jit(jax.vmap(one))(keys, parts.train.rows, parts.test.rows)
    return 100 * (1 - np.asarray(alone)), 100 * (1 - np.asarray(together))


def remedies(size: Size) -> None:
    """C87."""
    figures, gains = {}, {}
    clean = splits(data.load_digits(10), SIZES, size.seeds)
    for labels, parts in (
        ("clean labels", clean),
        ("20 % random labels", with_wrong_labels(clean)),
    ):
        last, stopped = stopping(size, parts)
        figures[f"{labels}: test error, %, after all epochs"] = last
        figures[f"{labels}: test error, %, stopped early"] = stopped
        gains[f"{labels}: error that early stopping saves"] = last - stopped
    shifts, reflections = RandomShift(1), RandomFlip()
    cases = {"dense": {"shifts": shifts, "reflections": reflections}}
    cases["convolutions"] = {"shifts": shifts}
    for kind, steps in cases.items():
        rate, plain = augmented(size, clean, kind, None)
        figures[f"{kind}: test error, %, images as they are, {rate}"] = plain
        for name, step in steps.items():
            rate, error = augmented(size, clean, kind, step)
            figures[f"{kind}: test error, %, {name}, {rate}"] = error
            gains[f"{kind}: error that {name} save"] = plain - error
    alone, together = committee(size, clean)
    figures["test error, %, one network"] = alone
    figures[f"test error, %, {MEMBERS} networks together"] = together
    gains["error that an ensemble saves"] = alone - together
    claim = "Early stopping, augmentation and ensembles lower the test error (200 examples)."
    print_claim("C87", claim, figures, gains)


def wave(x: Any) -> Any:
    return jnp.sin(4 * x)


def combined(size: Size) -> None:
    """C88: bias and variance of networks alone, in bags and boosted; 32 training sets a seed."""
    sets = 32 if size.share == 1 else 8

    def regression(net: Layer, epochs: int) -> train.Run:
        """A run by gradients of all points."""
        loss, adam = losses.squared_loss, optim.adam
        return train.make_run(net, loss, adam, epochs=size.epochs(epochs), batch_size=POINTS)

    smooth, one_unit = (regression(mlp((width,), 1, "tanh"), 300) for width in (64, 1))
    wild = regression(mlp((32, 32), 1, "relu"), 500)
    hyper = {"learning_rate": jnp.float32(0.02)}
    grid = jnp.linspace(-1, 1, 101)[:, None]

    def points(key: jax.Array) -> Any:
        x = jax.random.uniform(key, (POINTS, 1), minval=-1, maxval=1)
        noise = NOISE * jax.random.normal(jax.random.fold_in(key, 1), x.shape)
        return x, wave(x) + noise

    def alone(run: train.Run) -> Any:
        def predict(key: jax.Array) -> jax.Array:
            out = run.train(key, points(key), hyper)
            return train.model_of(run.model).apply(out.params, out.state, grid, train=False)[0]

        return predict

    def bagged(run: train.Run) -> Any:
        def predict(key: jax.Array) -> jax.Array:
            keys = jax.random.split(key, 10)
            out = train.bagging(run, keys, points(key), hyper, how="vmap").outcome
            return train.predict_members(run.model, out.params, out.state, grid).mean(0)

        return predict

    def boosted(key: jax.Array) -> jax.Array:
        found = train.least_squares_boosting(one_unit, key, points(key), 20, hyper, shrinkage=0.5)
        return train.boosted_values(one_unit.model, found, grid)

    cases = {
        "64 tanh": alone(smooth),
        "10 bagged x 64 tanh": bagged(smooth),
        "32-32 ReLU": alone(wild),
        "10 bagged x 32-32 ReLU": bagged(wild),
        "1 tanh": alone(one_unit),
        "20 boosted x 1 tanh": boosted,
    }
    figures, bias, variance = {}, {}, {}
    for name, predict in cases.items():

        def one(key: jax.Array, predict: Any = predict) -> Any:
            keys = jax.random.split(key, sets)
            return train.bias_variance(predict, keys, wave(grid), how="vmap")

        keys = jax.random.split(jax.random.key(0), size.seeds)
        found = jax.jit(jax.vmap(one))(keys)
        bias[name], variance[name] = np.asarray(found.bias), np.asarray(found.variance)
        figures[f"{name}: squared bias"] = bias[name]
        figures[f"{name}: variance"] = variance[name]
    gains = {
        f"{name}: variance that bagging takes away": variance[name]
        - variance[f"10 bagged x {name}"]
        for name in ("64 tanh", "32-32 ReLU")
    }
    less = bias["1 tanh"] - bias["20 boosted x 1 tanh"]
    gains["1 tanh: squared bias that boosting takes away"] = less
    claim = (
        "Bagging lowers the variance, boosting the bias (regression of a sine by small networks)."
    )
    print_claim("C88", claim, figures, gains)


def cells() -> data.Dataset:
    """The 569 cells of the Wisconsin breast cancer data, 30 measures each, standardised."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    x = (bunch.data - bunch.data.mean(0)) / bunch.data.std(0)
    return data.Dataset(x.astype(np.float32), bunch.target.astype(np.int32))


def shuffled(dataset: data.Dataset, parts: Splits) -> Splits:
    """The parts with all features permuted, in another way for each seed."""
    seeds, n = parts.train.rows.shape[0], len(dataset)
    orders = [data.permute_features(dataset.inputs, seed) for seed in range(seeds)]
    inputs = jnp.concatenate([jnp.asarray(order) for order in orders])
    targets = jnp.tile(jnp.asarray(dataset.targets), seeds)
    first = n * jnp.arange(seeds)[:, None]
    return Splits(*(replace(p, inputs=inputs, targets=targets, rows=p.rows + first) for p in parts))


def permuted(size: Size) -> None:
    """C58: the same permutation of the features of all examples, another one for each seed."""
    seeds = size.seeds
    digits, table = data.load_digits(8), cells()
    cases: dict[str, tuple[Layer, data.Dataset, tuple[int, ...], Any]] = {
        "convolutions, digits": (convolutional(), digits, SIZES, "map"),
        "dense, digits": (mlp((64,)), digits, SIZES, "vmap"),
        "dense, table": (mlp((64,), 2), table, (200, 100, 269), "vmap"),
    }
    figures, gains = {}, {}
    for name, (net, dataset, sizes, how) in cases.items():
        epochs = size.epochs(40)
        run = classifier(net, optim.adam, epochs, 20)
        errors = []
        for what in ("as they are", "permuted"):
            parts = splits(dataset, sizes, seeds)
            if what == "permuted":
                parts = shuffled(dataset, parts)
            found = swept(run, {"learning_rate": (0.003, 0.01)}, parts, how=how)
            errors.append(found.test[found.best])
            figures[f"{name} {what}: test error, %"] = errors[-1]
        lost = errors[1] - errors[0]
        if name.startswith("conv"):
            gains[f"{name}: error that the permutation adds"] = lost
        else:
            gains[f"{name}: {MARGIN:g} - error that it adds"] = MARGIN - lost
            gains[f"{name}: {MARGIN:g} + error that it adds"] = MARGIN + lost
    claim = "Permuting features hurts a convolutional network, not a dense one, nor on tables."
    print_claim("C58", claim, figures, gains)


CLAIMS = {"C87": remedies, "C88": combined, "C58": permuted}


def main(given: Sequence[str] | None = None) -> None:
    print_claims(__doc__, given, CLAIMS)


if __name__ == "__main__":
    main()
