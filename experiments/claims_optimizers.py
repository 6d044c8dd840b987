"""Claims about first-order methods: Nesterov's momentum (C55), Adam against SGD (C59), LookAhead,
RAdam and Ranger (C62), RAdam instead of warm-up (C63), and warm-up (C65).

    python experiments/claims_optimizers.py
    python experiments/claims_optimizers.py --quick --claims C55

Perceptrons with 1 or 6 hidden layers of 64 units on the 8x8 digits, 1024 to train on, 15 epochs of
batches of 32, every method at all rates and then at the one that a validation part prefers; 20
seeds (C55, C65: 40), each with a split of its own. Found:
C55 true: 2.5 epochs to 6 % error instead of 3.4, with batches of 256 5.9 instead of 7.3; the test
errors do not differ. C59 depends: momentum errs on 3.1 %, Adam on 3.4 %; but half an experiment of
incomplete images costs Adam nothing (-0.4), momentum 0.1.
C62 depends: none is faster than Adam (RAdam takes 1.6 epochs longer); LookAhead and Ranger train at
rates that span 2.4 powers of ten instead of 2.0; LookAhead errs on 3.6 % instead of 4.3 %.
C63 open: RAdam trains at rates 2.7 times as large as Adam, 2.0 times as Adam with warm-up; its best
error is 4.9 % instead of 4.5 %, which might be a point more.
C65 depends: at rate 0.03 warm-up saves 71 points (momentum) and 3.5 (Adam) of error if weights
start twice as large as He's; with He's weights it costs momentum 1.4 and leaves Adam as it is.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from report import print_claim
from sweeps import Found, Size, classifier, print_claims, splits, swept
from trials import epochs_until

from jaxd2l import data, layers, optim
from jaxd2l.geometry import iterations_per_epoch
from jaxd2l.layers import Activation, Dense, Flatten, Layer, Serial
from jaxd2l.models import mlp
from jaxd2l.ops import losses
from jaxd2l.ops.initializers import Normal
from jaxd2l.train import Model, make_run

SIZES = (1024, 300, 473)
EPOCHS = 15
WIDE = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
LARGE = (0.03, 0.06, 0.1, 0.2, 0.3, 0.6, 1.0)
STEEP = (0.003, 0.01, 0.03, 0.06)
LEVEL = 0.06  # of the validation examples wrong: the error to be reached
WORKS = 10.0  # percent: a rate works if no more of the training examples are wrong at the end
WARM = 5  # epochs of warm-up
MARGIN = 1.0  # points of percent that count as no difference
SHALLOW, DEEP = mlp((64,)), mlp((64,) * 6)


def warm(optimizer: Callable[..., Any], batch: int) -> Callable[..., Any]:
    """The optimiser with a rate that rises from 0 in the first WARM epochs."""
    steps = WARM * iterations_per_epoch(SIZES[0], batch)
    return lambda learning_rate: optimizer(optim.warm_up(optim.constant(learning_rate), steps))


def look_ahead(learning_rate: Any) -> optax.GradientTransformation:
    return optim.lookahead(optim.adam(learning_rate))


METHODS: dict[str, Callable[..., Any]] = {
    "Momentum": optim.momentum,
    "Nesterov": optim.nesterov,
    "Adam": optim.adam,
    "RAdam": optim.radam,
    "LookAhead": look_ahead,
    "Ranger": optim.ranger,
    "warm Momentum": warm(optim.momentum, 32),
    "warm Adam": warm(optim.adam, 32),
}


def scaled(depth: int, scale: float) -> Layer:
    """A perceptron whose kernels start `scale` times as large as He's."""
    kernel = Normal(scale * math.sqrt(2 / 64))
    hidden = [
        layer
        for i in range(depth)
        for layer in (Dense(f"dense{i + 1}", 64, kernel_init=kernel), Activation("relu"))
    ]
    return Serial([Flatten(), *hidden, Dense("output", 10)])


@functools.cache
def runs(method: str, net: Layer, batch: int, rates: tuple[float, ...], size: Size) -> Found:
    parts = splits(data.load_digits(8), SIZES, size.seeds)
    run = classifier(net, METHODS[method], size.epochs(EPOCHS), batch)
    return swept(run, {"learning_rate": rates}, parts)


def speed(found: Found) -> tuple[int, np.ndarray]:
    """The rate with the fewest epochs until LEVEL, as its number, and the epochs."""
    epochs = epochs_until(1 - found.history["valid_accuracy"], LEVEL)  # (H, S)
    number = int(epochs.mean(1).argmin())
    return number, epochs[number]


def nesterov(size: Size) -> None:
    """C55, where gradients are noisy; epochs scatter so much that it takes twice the seeds."""
    size = size._replace(seeds=2 * size.seeds)
    figures, gains = {}, {}
    for batch in (32, 256):
        epochs = []
        for method in ("Momentum", "Nesterov"):
            found = runs(method, SHALLOW, batch, LARGE, size)
            number, values = speed(found)
            figures[f"{method}, batch {batch}: epochs to 6 %, rate {LARGE[number]:g}"] = values
            epochs.append(values)
            what = f"{method}, batch {batch}: test error, %, rate {LARGE[found.best]:g}"
            figures[what] = found.test[found.best]
        gains[f"batch {batch}: epochs that Nesterov saves"] = epochs[0] - epochs[1]
    claim = "Nesterov's momentum is faster than momentum (a perceptron on digits, noisy gradients)."
    print_claim("C55", claim, figures, gains)


def half_blind(net: Layer, steps: int) -> Model:
    """A network that sees only the upper half of the images in the first `steps` steps."""

    def init(key: Any, shape: Any) -> Any:
        params, _ = layers.init(net, key, shape)
        return params, {"steps": jnp.zeros((), jnp.int32)}

    def apply(params: Any, state: Any, x: Any, *, train: bool = False, **given: Any) -> Any:
        del given
        if train:
            blind = state["steps"] < steps
            lower = jnp.arange(x.shape[1])[:, None, None] >= x.shape[1] // 2
            x = jnp.where(blind & lower, 0, x)
            state = {"steps": state["steps"] + 1}
        return layers.apply(net, params, {}, x)[0], state

    return Model(init, apply)


def adam_and_sgd(size: Size) -> None:
    """C59."""
    parts = splits(data.load_digits(8), SIZES, size.seeds)
    figures, best, lost = {}, {}, {}
    early = size.epochs(EPOCHS)
    for method, rates in (("Momentum", LARGE), ("Adam", WIDE)):
        found = runs(method, SHALLOW, 32, rates, size)
        best[method] = found.test[found.best]
        figures[f"{method}: test error, %, rate {rates[found.best]:g}"] = best[method]
        rate = {"learning_rate": rates[found.best : found.best + 1]}
        steps = early * iterations_per_epoch(SIZES[0], 32)
        run = make_run(
            half_blind(SHALLOW, steps),
            losses.softmax_cross_entropy,
            METHODS[method],
            epochs=2 * early,
            batch_size=32,
        )
        late = swept(run, rate, parts).test[0]
        figures[f"{method}: the same after {early} epochs with the upper halves alone"] = late
        lost[method] = late - best[method]
    gains = {
        "SGD generalises as well: 0.5 - its error + Adam's": 0.5
        - (best["Momentum"] - best["Adam"]),
        "what early features cost, Adam - SGD": lost["Adam"] - lost["Momentum"],
    }
    claim = "Adam over-weights the features that come first; SGD generalises as well."
    print_claim("C59", claim, figures, gains)


def working(found: Found) -> np.ndarray:
    """How many of the rates work, for each seed: in powers of 10 between neighbours of about 3."""
    return 0.5 * (found.train < WORKS).sum(0)


def newer(size: Size) -> None:
    """C62."""
    figures, gains = {}, {}
    epochs, width, test = {}, {}, {}
    for method in ("Adam", "LookAhead", "RAdam", "Ranger"):
        found = runs(method, DEEP, 32, WIDE, size)
        number, epochs[method] = speed(found)
        width[method] = working(found)
        test[method] = found.test[found.best]
        figures[f"{method}: epochs to 6 %, rate {WIDE[number]:g}"] = epochs[method]
        figures[f"{method}: powers of 10 of rates that train"] = width[method]
        figures[f"{method}: test error, %, rate {WIDE[found.best]:g}"] = test[method]
    for method in ("LookAhead", "RAdam", "Ranger"):
        gains[f"epochs that {method} saves"] = epochs["Adam"] - epochs[method]
        gains[f"{method}: more rates that train"] = width[method] - width["Adam"]
        gains[f"{method}: test error, Adam's - its"] = test["Adam"] - test[method]
    claim = "LookAhead, RAdam and Ranger are faster and more stable than Adam (6 hidden layers)."
    print_claim("C62", claim, figures, gains)


def largest(found: Found, rates: Sequence[float]) -> np.ndarray:
    """log10 of the largest rate that works, for each seed; of the smallest where none does."""
    works = found.train < WORKS
    return np.log10(np.where(works, np.asarray(rates)[:, None], rates[0]).max(0))


def rectified(size: Size) -> None:
    """C63."""
    found = {m: runs(m, DEEP, 32, WIDE, size) for m in ("Adam", "warm Adam", "RAdam")}
    rate = {m: largest(f, WIDE) for m, f in found.items()}
    test = {m: f.test[f.best] for m, f in found.items()}
    figures = {f"{m}: log10 of the largest rate that trains": rate[m] for m in found}
    figures |= {f"{m}: test error, %, rate {WIDE[f.best]:g}": test[m] for m, f in found.items()}
    for number in (WIDE.index(0.03), WIDE.index(0.1)):
        for method, runs_ in found.items():
            figures[f"{method}: test error, %, rate {WIDE[number]:g}"] = runs_.test[number]
    gains = {
        "log10 of the largest rate, RAdam - Adam": rate["RAdam"] - rate["Adam"],
        "log10 of the largest rate, RAdam - warm Adam": rate["RAdam"] - rate["warm Adam"],
        "each at its best rate: 1 - (error, RAdam - warm Adam)": MARGIN
        - (test["RAdam"] - test["warm Adam"]),
    }
    claim = "RAdam needs no warm-up: it trains at larger rates than Adam with it or without."
    print_claim("C63", claim, figures, gains)


def warming(size: Size) -> None:
    """C65; twice the seeds, since large rates scatter so much."""
    size = size._replace(seeds=2 * size.seeds)
    figures, gains = {}, {}
    at = STEEP.index(0.03)
    for scale, start in ((1.0, "He's weights"), (2.0, "weights twice He's")):
        for method in ("Momentum", "Adam"):
            plain, warmed = (
                runs(m, scaled(6, scale), 32, STEEP, size) for m in (method, f"warm {method}")
            )
            for name, found in ((method, plain), (f"warm {method}", warmed)):
                what = f"{start}, {name}: test error, %"
                figures[f"{what}, rate 0.03"] = found.test[at]
                figures[f"{what}, best rate {STEEP[found.best]:g}"] = found.test[found.best]
            saved = plain.test[at] - warmed.test[at]
            gains[f"{start}, {method}, rate 0.03: error that warm-up saves"] = saved
    claim = "A warm-up of the learning rate helps where the rate is large (6 hidden layers)."
    print_claim("C65", claim, figures, gains)


CLAIMS = {"C55": nesterov, "C59": adam_and_sgd, "C62": newer, "C63": rectified, "C65": warming}


def main(given: Sequence[str] | None = None) -> None:
    print_claims(__doc__, given, CLAIMS)


if __name__ == "__main__":
    main()
