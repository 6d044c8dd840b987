"""How often `train.diagnose` finds what is wrong, and how often it accuses a healthy network.

    python experiments/diagnosis.py

Every fault is put into networks that train well without it: a perceptron, LeNet, a small ResNet, a
recurrent and a transformer language model, linear and logistic regression. Healthy networks are
looked at before training and after 5, 50 and 300 steps, on a batch with their optimiser and on
their data set. Found, over three seeds: every fault on every seed, all of them alone but the dead
units that steps at a rate of 100 leave, which come with too large weights; no false alarm. Rates of
100 times 0.1 (gradient descent) and 1000 times 0.001 (Adam) and more are faults here; Adam at 0.1
is none: in three epochs it trains the perceptron to 94 % and the ResNet to 91 %.
"""

import argparse
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxd2l import data, init, models, train
from jaxd2l.layers import Activation, Function, Layer, Serial
from jaxd2l.models.resnet import resnet
from jaxd2l.ops import losses

Change = Callable[[Any], Any]
TEXT = "the quick brown fox jumps over the lazy dog and then sleeps in the sun for a while "


class Healthy(NamedTuple):
    """A network, its data, loss and optimiser, which go well together."""

    net: Layer
    data: data.Dataset
    loss: Callable[..., Any]
    optimizer: optax.GradientTransformation


class Fault(NamedTuple):
    """What is wrong, where it was put, and the diagnosis of a seed."""

    cause: str
    name: str
    diagnose: Callable[[int], train.Diagnosis]


@functools.cache
def healthy(names: tuple[str, ...] | None = None) -> dict[str, Healthy]:
    """The healthy networks by name; all, or those asked for."""
    small, large = data.load_digits(8), data.load_digits()
    odd = data.Dataset(small.inputs, (small.targets % 2).astype(np.float32)[:, None])
    tokens = np.frombuffer((TEXT * 20).encode(), np.uint8).astype(np.int32) % 28
    text = data.text.windows(tokens, 16)
    ce, binary, squared = (
        losses.softmax_cross_entropy,
        losses.sigmoid_cross_entropy,
        losses.squared_loss,
    )
    sigmoid_lenet = functools.partial(models.lenet, activation="sigmoid", pooling="avg")
    every = {
        "mlp": Healthy(models.mlp((64,)), small, ce, optax.adam(1e-3)),
        "mlp sgd": Healthy(models.mlp((64,)), small, ce, optax.sgd(0.1)),
        "mlp tanh": Healthy(models.mlp((64, 64), activation="tanh"), small, ce, optax.adam(2e-3)),
        "mlp sigmoid": Healthy(
            models.mlp((64,), activation="sigmoid"), small, ce, optax.adam(3e-3)
        ),
        "mlp dropout": Healthy(
            models.mlp((64, 64), dropout=(0.5, 0.5)), small, ce, optax.adam(1e-3)
        ),
        "mlp deep": Healthy(models.mlp((64,) * 8), small, ce, optax.adam(1e-3)),
        "softmax": Healthy(models.softmax_regression(), small, ce, optax.sgd(0.1)),
        "logistic": Healthy(models.logistic_regression(), odd, binary, optax.sgd(0.1)),
        "linear": Healthy(
            models.linear_regression(), data.synthetic_linear(0), squared, optax.sgd(0.03)
        ),
        "lenet": Healthy(models.lenet(), large, ce, optax.adam(2e-3)),
        "lenet sigmoid": Healthy(sigmoid_lenet(), large, ce, optax.adam(5e-3)),
        "lenet norm": Healthy(sigmoid_lenet(batch_norm=True), large, ce, optax.sgd(0.5)),
        "resnet": Healthy(resnet((1, 1), 10, features=8), large, ce, optax.adam(2e-3)),
        "lstm": Healthy(models.lstm_lm(features=32), text, ce, optax.adam(5e-3)),
        "gru": Healthy(
            models.gru_lm(features=32, depth=2, embedding=16), text, ce, optax.adam(5e-3)
        ),
        "gpt": Healthy(models.gpt(features=32, depth=2, length=16), text, ce, optax.adam(2e-3)),
    }
    return every if names is None else {name: every[name] for name in names}


def changed(params: Any, pattern: str, change: Change) -> Any:
    """The parameters with those whose path holds `pattern` changed."""

    def one(path: Any, leaf: Any) -> Any:
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        return change(leaf) if pattern in text else leaf

    return jax.tree_util.tree_map_with_path(one, params)


def diagnosed(
    case: Healthy,
    seed: int,
    *,
    params: tuple[str, Change] | None = None,
    inputs: Change | None = None,
    targets: Change | None = None,
    optimizer: optax.GradientTransformation | None = None,
    size: int = 64,
) -> train.Diagnosis:
    """The diagnosis of the fresh network on a batch, with what is given changed."""
    drawn, state = init(case.net, jax.random.key(seed), case.data.inputs.shape[1:])
    if params is not None:
        drawn = changed(drawn, *params)
    batch = next(data.Batches(case.data, size, seed).epoch(0))
    x = batch.inputs if inputs is None else inputs(batch.inputs)
    t = batch.targets if targets is None else targets(batch.targets)
    return train.diagnose(case.net, drawn, state, (x, t), case.loss, optimizer=optimizer)


def _one_nan(x: Any) -> Any:
    return np.where(np.arange(x.size).reshape(x.shape) == 77, np.nan, x).astype(np.float32)


def _rare(t: Any) -> Any:
    first = np.arange(len(t)).reshape(-1, *[1] * (t.ndim - 1)) < len(t) * 15 // 16
    return np.where(first, np.zeros_like(t), t)


def image_faults(name: str, case: Healthy) -> Iterator[Fault]:
    """What can be wrong with a classifier of images."""

    def fault(cause: str, what: str, at: Healthy = case, **change: Any) -> Fault:
        return Fault(cause, f"{name}: {what}", lambda seed: diagnosed(at, seed, **change))

    yield fault("inputs_not_finite", "a NaN", inputs=_one_nan)
    yield fault("inputs_constant", "one image", inputs=lambda x: np.repeat(x[:1], len(x), 0))
    yield fault("inputs_not_normalised", "bytes", inputs=lambda x: x * 255)
    yield fault("inputs_not_normalised", "x 0.001", inputs=lambda x: x * 1e-3)
    yield fault("labels_out_of_range", "from 1", targets=lambda t: t + 1)
    yield fault("labels_out_of_range", "from -1", targets=lambda t: t - 1)
    yield fault("classes_imbalanced", "94% zeros", targets=_rare)
    yield fault(
        "parameters_not_finite", "a NaN", params=("output/bias", lambda v: v.at[0].set(jnp.nan))
    )
    yield fault("symmetric_initialisation", "zeros", params=("kernel", lambda v: 0 * v))
    yield fault("symmetric_initialisation", "0.05", params=("kernel", lambda v: 0 * v + 0.05))
    yield fault("weights_too_large", "all x 20", params=("kernel", lambda v: 20 * v))
    yield fault("weights_too_large", "last x 30", params=("output/kernel", lambda v: 30 * v))
    yield fault("outputs_biased", "bias of 10", params=("output/bias", lambda v: v.at[3].set(10.0)))
    for kind in ("softmax", "sigmoid", "relu", "tanh"):
        net = Serial([*_parts(case.net), Activation(kind)])
        yield fault("last_activation", kind, case._replace(net=net))
    hidden = Serial([*_parts(case.net), Function(jax.nn.softmax)])
    yield fault("last_activation", "a function", case._replace(net=hidden))
    yield fault("last_activation", "none", case._replace(loss=losses.cross_entropy))
    yield from rate_faults(name, case, "sgd", optax.sgd, 0.1, (100.0, 1e3, 1e4))
    yield from rate_faults(name, case, "adam", optax.adam, 1e-3, (1e3, 1e4))


def rate_faults(
    name: str, case: Healthy, kind: str, optimizer: Any, usual: float, factors: Sequence[float]
) -> Iterator[Fault]:
    """Rates too high by factors, and too low by ten times these."""
    for factor in factors:
        for cause, rate in (
            ("learning_rate_too_high", usual * factor),
            ("learning_rate_too_low", usual / factor / 10),
        ):
            wrong = optimizer(rate)
            yield Fault(
                cause,
                f"{name}: {kind}({rate:g})",
                lambda seed, wrong=wrong: diagnosed(case, seed, optimizer=wrong),
            )


def _parts(net: Layer) -> tuple[Layer, ...]:
    return tuple(net.layers)  # type: ignore[attr-defined]


def unit_faults(case: Healthy) -> Iterator[Fault]:
    """Units and gradients: perceptrons of several depths and activations on the digits."""

    def fault(cause: str, net: Layer, what: str, **change: Any) -> Fault:
        at = case._replace(net=net)
        return Fault(cause, what, lambda seed: diagnosed(at, seed, **change))

    kernels: Callable[[float], Any] = lambda c: ("kernel", lambda v: c * v)  # noqa: E731
    yield fault(
        "dead_units", case.net, "mlp: biases of -10", params=("dense1/bias", lambda v: v - 10)
    )
    for kind in ("sigmoid", "tanh"):
        net = models.mlp((64,), activation=kind)
        change = ("dense1/bias", lambda v: v + 10)
        yield fault("saturated_units", net, f"{kind}: biases of 10", params=change)
    for depth in (10, 20):
        net = models.mlp((64,) * depth, activation="sigmoid")
        yield fault("gradients_vanish", net, f"sigmoid, {depth} layers")
    deep = models.mlp((64,) * 10)
    yield fault("gradients_vanish", deep, "relu, 10 layers: x 0.1", params=kernels(0.1))
    yield fault("gradients_explode", deep, "relu, 10 layers: x 4", params=kernels(4.0))
    yield fault(
        "loss_too_high", case.net, "mlp: last x 7", params=("output/kernel", lambda v: 7 * v)
    )
    yield Fault("dead_units", "mlp: after 5 steps of sgd(100)", lambda seed: ruined(case, seed))
    few = functools.partial(train.diagnose, case.net, loss=case.loss)
    yield Fault(
        "examples_too_few",
        "mlp: 30 digits",
        lambda seed: few(
            *init(case.net, jax.random.key(seed), case.data.inputs.shape[1:]),
            batch=case.data.take(range(30 * seed, 30 * seed + 30)),
        ),
    )


def ruined(case: Healthy, seed: int) -> train.Diagnosis:
    """What five steps at a rate of 100 leave of a network of three hidden layers."""
    case = case._replace(net=models.mlp((64,) * 3), optimizer=optax.sgd(100.0))
    *_, (params, state, batch) = moments(case, seed, (5,))
    return train.diagnose(case.net, params, state, batch, case.loss)


def number_faults(linear: Healthy, logistic: Healthy) -> Iterator[Fault]:
    """Regression: numbers to be predicted, and one logit."""

    def fault(cause: str, what: str, at: Healthy = linear, **change: Any) -> Fault:
        return Fault(cause, what, lambda seed: diagnosed(at, seed, **change))

    scales = np.array([1, 1000], np.float32)
    yield fault("inputs_not_normalised", "linear: a feature x 1000", inputs=lambda x: x * scales)
    yield fault(
        "targets_not_finite", "linear: a NaN", targets=lambda t: np.where(t > t[0], t, np.nan)
    )
    yield fault("targets_not_normalised", "linear: x 1000", targets=lambda t: 1000 * t)
    yield fault("outputs_biased", "linear: targets + 60", targets=lambda t: t + 60)
    for kind in ("relu", "sigmoid", "tanh"):
        net = Serial([*_parts(linear.net), Activation(kind)])
        yield fault("last_activation", f"linear: {kind}", linear._replace(net=net))
    yield from rate_faults("linear", linear, "sgd", optax.sgd, 0.1, (100.0, 1e3))
    ended = logistic._replace(net=Serial([*_parts(logistic.net), Activation("sigmoid")]))
    yield fault("last_activation", "logistic: sigmoid", ended)
    yield fault("classes_imbalanced", "logistic: 97% zeros", logistic, targets=_rare)


def text_faults(name: str, case: Healthy) -> Iterator[Fault]:
    """Language models."""

    def fault(cause: str, what: str, at: Healthy = case, **change: Any) -> Fault:
        return Fault(cause, f"{name}: {what}", lambda seed: diagnosed(at, seed, **change))

    ended = case._replace(net=Serial([*_parts(case.net), Activation("softmax")]))
    yield fault("last_activation", "softmax", ended)
    yield fault("labels_out_of_range", "+ 10", targets=lambda t: t + 10)
    yield fault("symmetric_initialisation", "zeros", params=("kernel", lambda v: 0 * v))
    yield fault("weights_too_large", "all x 20", params=("kernel", lambda v: 20 * v))
    yield fault("learning_rate_too_high", "adam(10)", optimizer=optax.adam(10.0))
    yield fault("learning_rate_too_low", "adam(1e-6)", optimizer=optax.adam(1e-6))


def all_faults() -> Iterator[Fault]:
    """Every fault, in every network that it is put into."""
    every = healthy()
    yield from unit_faults(every["mlp"])
    yield from number_faults(every["linear"], every["logistic"])
    for name in ("mlp", "lenet", "resnet"):
        yield from image_faults(name, every[name])
    for name in ("lstm", "gpt"):
        yield from text_faults(name, every[name])


def moments(
    case: Healthy, seed: int, steps: Sequence[int], size: int = 64
) -> Iterator[tuple[Any, Any, data.Batch]]:
    """(params, state, a batch) after each number of training steps."""
    step = _step(case.net, case.loss, case.optimizer)
    shape = case.data.inputs.shape[1:]
    current = train.start(case.net, case.optimizer, jax.random.key(seed), shape, {})
    batches = data.Batches(case.data, size, seed, drop_last=True)
    stream = (batch for epoch in range(max(steps) + 1) for batch in batches.epoch(epoch))
    done = 0
    for number in steps:
        for batch in (next(stream) for _ in range(number - done)):
            current = step(current, batch)
        done = number
        kept = jax.tree.map(jnp.copy, (current.params, current.state))
        yield *kept, next(stream)


@functools.cache
def _step(net: Layer, loss: Any, optimizer: Any) -> Any:
    return train.make_step(net, loss, optimizer, {}, padded=False)


def false_alarms(case: Healthy, seed: int, steps: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """The causes found in a healthy network, for each moment and form of data."""
    for params, state, batch in moments(case, seed, steps):
        known = (case.net, params, state)
        yield train.diagnose(*known, batch, case.loss, optimizer=case.optimizer).causes
        yield train.diagnose(*known, case.data, case.loss).causes


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="linear models only")
    options = parser.parse_args(arguments)
    every = healthy()
    faults = list(all_faults())
    if options.quick:
        every = healthy(("linear",))
        faults = [*number_faults(every["linear"], healthy()["logistic"])][:4]
    print(f"{'fault':<26} {'put into':<34} found  alone  of {options.seeds}")
    for fault in faults:
        found = [fault.diagnose(seed).causes for seed in range(options.seeds)]
        hits = sum(fault.cause in causes for causes in found)
        alone = sum(causes == (fault.cause,) for causes in found)
        others = sorted({each for causes in found for each in causes} - {fault.cause})
        print(
            f"{fault.cause:<26} {fault.name:<34} {hits:>5}  {alone:>5}  {', '.join(others)}",
            flush=True,
        )
    print()
    alarms = total = 0
    for name, case in every.items():
        for seed in range(options.seeds):
            for causes in false_alarms(case, seed, (0, 5, 50, 300)):
                total += 1
                alarms += bool(causes)
                if causes:
                    print(f"false alarm: {name}, seed {seed}: {causes}")
    print(f"false alarms: {alarms} of {total} diagnoses of {len(every)} healthy networks")


if __name__ == "__main__":
    main()
