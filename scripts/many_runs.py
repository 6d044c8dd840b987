"""Many runs as one program, beside separate runs in PyTorch and our own `fit`.

    python scripts/many_runs.py [--repeats 5] [--cases mlp-64 mlp-784 lenet]
    python scripts/many_runs.py --quick
    python scripts/many_runs.py --rule        how to map runs of several networks: vmap, map or loop

Each case trains the same network for each of 5 folds and 8 learning rates (LeNet: 4 rates, one
split), all with stochastic gradient descent, on the embedded digits; both sides shuffle in every
epoch, add up the training loss and the share that is right, and validate after every epoch.
Microseconds a step of one run, medians of calls in turn in one process; the first call compiles.
Of `fit` two runs are timed, by their epochs.
PyTorch takes part where it can be imported: a plain loop over batches, data in memory as tensors,
with one thread and with as many as there are cores. Expected before the first run: 10 to 14 times
PyTorch for the small network, 1.5 to 2.5 for the large one, LeNet as one run after another.
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from jaxd2l import data, layers, models, train
from jaxd2l.layers import Layer
from jaxd2l.ops import losses
from jaxd2l.train import mapping

RATES = np.geomspace(0.01, 0.3, 8)
LOSS = losses.softmax_cross_entropy


class Case:
    """A network, the digits at its size, and the size of a batch."""

    def __init__(self, net: Layer, size: int, batch: int, folds: int, rates: int, epochs: int):
        self.net, self.batch, self.folds, self.epochs = net, batch, folds, epochs
        self.digits = data.load_digits(size)
        self.rates = RATES[:: 8 // rates]
        splits = data.k_folds(len(self.digits), 5 if folds == 1 else folds, 0)[:folds]
        self.parts = [(self.digits.take(f.train), self.digits.take(f.valid)) for f in splits]

    @property
    def steps(self) -> int:
        """Steps of all runs together."""
        runs = len(self.parts) * len(self.rates)
        return runs * self.epochs * -(-len(self.parts[0][0]) // self.batch)


CASES: dict[str, Callable[[int], Case]] = {
    "mlp-64": lambda epochs: Case(models.mlp((64,)), 8, 32, 5, 8, 10 * epochs),
    "mlp-784": lambda epochs: Case(models.mlp((256,)), 28, 64, 5, 8, 2 * epochs),
    "lenet": lambda epochs: Case(models.lenet(), 28, 64, 1, 4, epochs),
}


def ours(case: Case, how: mapping.How | None = None) -> Callable[[], Any]:
    """All runs as one call; gives the validation accuracy of each, (folds, rates)."""
    run = train.make_run(case.net, LOSS, optax.sgd, epochs=case.epochs, batch_size=case.batch)
    hyper, key = {"learning_rate": case.rates}, jax.random.key(0)

    def call() -> Any:
        if case.folds > 1:
            folds = train.cross_validate(
                run, case.digits, case.folds, hyper, key=key, shuffle=0, how=how
            )
            return np.asarray(folds.valid["accuracy"])
        seen, unseen = case.parts[0]
        outcome = train.sweep(run, hyper, seen, key=key, valid=unseen, how=how)
        return np.asarray(outcome.history["valid_accuracy"])[None, :, -1]

    return call


def by_fit(case: Case) -> tuple[float, float]:
    """(seconds a step, best validation accuracy) of `train.fit`: the median over the epochs of two
    of the runs, all but the first, in which steps are compiled."""
    seconds, found = [], []
    seen, unseen = case.parts[0]
    for rate in case.rates[-2:]:
        result = train.fit(
            case.net,
            seen,
            loss=LOSS,
            optimizer=optax.sgd(float(rate)),
            epochs=max(case.epochs, 3),
            batch_size=case.batch,
            test=unseen,
        )
        seconds += [record["seconds"] for record in result.history[1:]]
        found.append(result.history[-1]["test_accuracy"])
    return statistics.median(seconds) / -(-len(seen) // case.batch), max(found)


def torch_network(net: Layer) -> Any:
    """The same network as a module, from its record."""
    from torch import nn

    if net == models.lenet():
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip
    size, width = (64, 64) if net == models.mlp((64,)) else (784, 256)
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, 10))


def by_torch(case: Case, threads: int) -> Callable[[], Any]:
    """The same runs, one after another, in PyTorch."""
    import torch

    def tensors(part: data.Dataset) -> tuple[Any, Any]:
        images = np.array(part.inputs).transpose(0, 3, 1, 2)
        return torch.from_numpy(images.copy()), torch.from_numpy(np.array(part.targets, np.int64))

    pairs = [(tensors(seen), tensors(unseen)) for seen, unseen in case.parts]
    criterion = torch.nn.CrossEntropyLoss()

    def one(x: Any, y: Any, xv: Any, yv: Any, rate: float) -> float:
        torch.manual_seed(0)
        net = torch_network(case.net)
        optimizer = torch.optim.SGD(net.parameters(), lr=rate)
        for _ in range(case.epochs):
            total, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
            for index in torch.randperm(len(x)).split(case.batch):
                inputs, labels = x[index], y[index]
                optimizer.zero_grad()
                logits = net(inputs)
                loss = criterion(logits, labels)
                loss.backward()
                optimizer.step()
                with torch.no_grad():
                    total += loss * len(index)
                    right += (logits.argmax(1) == labels).sum()
            with torch.no_grad():
                outputs = net(xv)
                criterion(outputs, yv).item()
                accuracy = (outputs.argmax(1) == yv).float().mean().item()
            total.item(), right.item()
        return accuracy

    def call() -> Any:
        torch.set_num_threads(threads)
        found = []
        for (x, y), (xv, yv) in pairs:
            for rate in case.rates:
                found.append(one(x, y, xv, yv, float(rate)))
        return np.reshape(found, (len(pairs), -1))

    return call


def measure(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call; the first of each, which compiles, is the first in its list."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
            time.sleep(0.01)  # idle threads of the one spin into the time of the other
    return seconds


def table(names: list[str], epochs: int, repeats: int) -> None:
    """Print microseconds a step, and how many times as long the others take."""
    print("| case | how | us a step of a run | times ours | first call, s | accuracy |")
    print("|---|---|---|---|---|---|")
    for name in names:
        case = CASES[name](epochs)
        calls = {"one program": ours(case)}
        if case.folds == 1:
            calls["one run after another"] = ours(case, "loop")
        if importlib.util.find_spec("torch") is not None:
            for threads in sorted({1, os.cpu_count() or 1}):
                calls[f"PyTorch, {threads} threads"] = by_torch(case, threads)
        seconds = measure(calls, repeats)
        each = {key: statistics.median(v[1:]) / case.steps for key, v in seconds.items()}
        first = {key: f"{values[0]:.1f}" for key, values in seconds.items()}
        best = {key: call().max() for key, call in calls.items()}
        each["fit"], best["fit"] = by_fit(case)
        for key, value in each.items():
            print(
                f"| {name} | {key} | {1e6 * value:,.1f} | {value / each['one program']:.2f} "
                f"| {first.get(key, '-')} | {100 * best[key]:.1f} % |",
                flush=True,
            )


def convolutions(channels: int) -> Layer:
    """Two 3x3 convolutions, the second of twice the channels."""
    return layers.Serial(
        [
            layers.Conv("conv1", channels, 3, padding=1),
            layers.Activation("relu"),
            layers.MaxPool(2),
            layers.Conv("conv2", 2 * channels, 3, padding=1),
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dense("output", 10),
        ]
    )


RULE = {
    "softmax 64-10, 32": lambda: Case(models.softmax_regression(), 8, 32, 5, 8, 4),
    "mlp 64-16-10, 32": lambda: Case(models.mlp((16,)), 8, 32, 5, 8, 4),
    "mlp 64-64-10, 32": lambda: Case(models.mlp((64,)), 8, 32, 5, 8, 4),
    "mlp 64-64-10, 128": lambda: Case(models.mlp((64,)), 8, 128, 5, 8, 4),
    "mlp 64-128-10, 32": lambda: Case(models.mlp((128,)), 8, 32, 5, 8, 4),
    "mlp 64-256-10, 32": lambda: Case(models.mlp((256,)), 8, 32, 5, 8, 2),
    "mlp 64-64-64-10, 32": lambda: Case(models.mlp((64, 64)), 8, 32, 5, 8, 2),
    "mlp 784-256-10, 64": lambda: Case(models.mlp((256,)), 28, 64, 5, 8, 1),
    "lenet, 64": lambda: Case(models.lenet(), 28, 64, 1, 4, 1),
    "conv 8-16, 32": lambda: Case(convolutions(8), 8, 32, 1, 4, 1),
    "conv 32-64, 32": lambda: Case(convolutions(32), 8, 32, 1, 4, 1),
}


def rule(repeats: int) -> None:
    """Print what each way of mapping takes, and the way that `mapping.choose` takes."""
    print("| network, batch | vmap | map | loop | chosen |")
    print("|---|---|---|---|---|")
    for name, make in RULE.items():
        case = make()
        calls = {how: ours(case, how) for how in mapping.WAYS}
        seconds = measure(calls, repeats)
        us = {how: statistics.median(v[1:]) / case.steps * 1e6 for how, v in seconds.items()}
        shape = case.digits.inputs.shape[1:]
        chosen = mapping.choose(case.net, shape, case.batch, jax.default_backend())
        print(
            f"| {name} | "
            + " | ".join(f"{us[how]:,.1f}" for how in mapping.WAYS)
            + f" | {chosen} |",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rule", action="store_true", help="time the ways of mapping instead")
    parser.add_argument("--quick", action="store_true", help="one short case")
    options = parser.parse_args()
    if options.rule:
        rule(options.repeats)
    elif options.quick:
        table(["lenet"], 1, 1)
    else:
        table(options.cases, 2, options.repeats)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
