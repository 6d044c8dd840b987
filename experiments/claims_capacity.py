"""Claims about capacity: cubics on linear data (C77, C78), wider and deeper perceptrons (C79, C80,
C81), K-fold cross-validation (C83), more data (C84), the range of the weights (C85), and bias and
variance (C89).

    python experiments/claims_capacity.py            # about 1 minute; --quick: seconds

Polynomials are fitted in closed form, 400 data sets (C77: 40 of 1000 points) for each of 20
figures; perceptrons are trained on the 8x8 digits by stochastic gradient descent, 20 seeds, each
with its own split.
Found: C77 true (4 points: training error 1e-27, test error 4.3, of a line 0.015; 1000 points: both
0.010). C78 true (0.96 of the noise's variance is left; 0 with 4 points). C79 open (loss falls with
width and depth; test errors 4.5, 4.0, 3.7 %, the last step undecided). C80 false, C81 true (less
than 1 % between 128-256, 256-128 and 256-256). C83 true (1.15 for 1.11, and for 1.15 of the models
of the folds). C84 true (test errors 17.5, 6.9, 4.5 % with 60, 240, 960 examples). C85 true of the
gap between test and training error (7, 11, 28, 36 %), while test errors hardly differ from the
limit of 1 on. C89 true.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from report import print_claim
from starts import digits
from sweeps import Found, Size, Splits, classifier, print_claims, splits, swept

from jaxd2l import data, optim
from jaxd2l.models import mlp
from jaxd2l.train import decompose

NOISE = 0.1  # deviation of the targets about the line, so that errors are 0.01 at best
TRUTH = (5.0, 1.2, -3.4, 5.6)  # of x^i / i!, the book's cubic


def powers(x: np.ndarray, degree: int) -> np.ndarray:
    """x^i / i! for every number of an array: (..., degree + 1)."""
    return data.polynomial_features(x.ravel(), degree).reshape(*x.shape, degree + 1)


def fitted(features: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares for each data set.

    Shapes: features (..., n, d); y (..., n); result (..., d).
    """
    q, r = np.linalg.qr(features)
    return np.linalg.solve(r, q.swapaxes(-1, -2) @ y[..., None])[..., 0]


def lines(n: int, size: Size, sets: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """x ~ N(0, 1) and y = 1 + 2 x + noise: (seeds, sets, n) each."""
    sets = max(20, round(size.share * sets))
    random = np.random.RandomState(n)
    x = random.randn(size.seeds, sets, n)
    return x, 1 + 2 * x + NOISE * random.randn(*x.shape)


def error_of_line(x: np.ndarray, y: np.ndarray, degree: int) -> tuple[np.ndarray, ...]:
    """(training error, error on new data, coefficients) of each data set; errors (seeds, sets)."""
    w = fitted(powers(x, degree), y)
    fresh = np.random.RandomState(1).randn(1000)
    off = w @ powers(fresh, degree).T - (1 + 2 * fresh)
    train = ((powers(x, degree) @ w[..., None])[..., 0] - y) ** 2
    return train.mean(-1), (off**2).mean(-1) + NOISE**2, w


def cubic_on_lines(size: Size) -> None:
    """C77."""
    figures, gains = {}, {}
    for n in (4, 1000):
        x, y = lines(n, size, 400 if n == 4 else 40)
        train, cubic, w = error_of_line(x, y, 3)
        _, line, _ = error_of_line(x, y, 1)
        cubic, line = np.median(cubic, 1), np.median(line, 1)
        figures[f"{n} points: median test error of the cubic"] = cubic
        figures[f"{n} points: of the line"] = line
        figures[f"{n} points: log10 of the cubic's training error"] = np.log10(train.mean(1))
        if n == 4:
            gains["4 points: -15 - log10 of the training error"] = -15 - np.log10(train.mean(1))
            gains["4 points: log10 of cubic's / line's test error"] = np.log10(cubic / line)
        else:
            gains["1000 points: 1.05 - cubic's / line's test error"] = 1.05 - cubic / line
            size_of_cube = np.abs(w[..., 3]).mean(1) / 6  # the feature is x^3 / 6
            gains["1000 points: 0.01 - size of the cubic coefficient"] = 0.01 - size_of_cube
    claim = "A cubic on linear data: 4 points are met exactly and overfit, 1000 do no harm."
    print_claim("C77", claim, figures, gains)


def noise_stays(size: Size) -> None:
    """C78."""
    figures, gains = {}, {}
    for n in (4, 5, 100):
        train = error_of_line(*lines(n, size), 3)[0].mean(1)
        error = train / NOISE**2
        figures[f"{n} points: training error / variance of the noise"] = error
        if n > 4:  # n - 4 of n directions are left for the noise
            gains[f"{n} points: training error above 0"] = train
    gains["100 points: training error / variance - 0.9"] = error - 0.9
    claim = "A cubic cannot bring the mean training error of 100 noisy points to 0."
    print_claim("C78", claim, figures, gains)


def perceptrons(size: Size) -> dict[str, Found]:
    """Five architectures, each at two rates."""
    parts = digits(8, size)
    found = {}
    for hidden in ((32,), (256,), (256, 256), (256, 128), (128, 256)):
        run = classifier(mlp(hidden), optax.sgd, size.epochs(15))
        name = "-".join(map(str, hidden))
        found[name] = swept(run, {"learning_rate": (0.1, 0.3)}, parts)
    return found


def wider(size: Size) -> None:
    """C79, C80 and C81."""
    found = perceptrons(size)
    test = {name: f.test[f.best] for name, f in found.items()}
    loss = {
        name: np.log10(f.history["loss"][f.best, :, -1].astype(np.float64))
        for name, f in found.items()
    }
    figures = {f"{name}: test error, %": error for name, error in test.items()}
    figures |= {f"{name}: log10 of the last epoch's loss": loss[name] for name in list(loss)[:3]}
    gains = {}
    for less, more in (("32", "256"), ("256", "256-256")):
        gains[f"log10 of the loss, {less} - {more}"] = loss[less] - loss[more]
        gains[f"test error, {less} - {more}"] = test[less] - test[more]
    claim = "More capacity, in width or depth, lowers training and test error."
    print_claim("C79", claim, figures, gains)
    print()
    difference = test["128-256"] - test["256-128"]
    claim = "Widths must decrease: 128-256 errs more than 256-128, by 1 % at least."
    figures = {"test error, 128-256 - 256-128": difference}
    print_claim("C80", claim, figures, {"test error added - 1": difference - 1})
    print()
    difference = test["256-128"] - test["256-256"]
    claim = "Whether the second hidden layer has 256 or 128 units matters little (1 %)."
    gains = {"1 - error added by 128": 1 - difference, "1 - error added by 256": 1 + difference}
    print_claim("C81", claim, {"test error, 256-128 - 256-256": difference}, gains)


def folds(size: Size) -> None:
    """C83."""
    n, d, k = 50, 5, 5
    random = np.random.RandomState(0)
    sets = max(20, round(400 * size.share))
    x = random.randn(size.seeds, sets, n, d)
    y = x @ np.ones(d) + random.randn(size.seeds, sets, n)

    def error(train: Any, valid: Any) -> np.ndarray:
        w = fitted(x[..., train, :], y[..., train])
        return (((x[..., valid, :] @ w[..., None])[..., 0] - y[..., valid]) ** 2).mean(-1)

    every = np.arange(n)
    crossed = np.mean([error(*fold) for fold in data.k_folds(n, k, 0)], 0).mean(1)
    true = 1 + ((fitted(x, y) - 1) ** 2).sum(-1).mean(1)  # on new data, in expectation over them
    fewer = np.array([f.train for f in data.k_folds(n, k, 0)])
    of_folds = np.mean(
        [1 + ((fitted(x[..., f, :], y[..., f]) - 1) ** 2).sum(-1) for f in fewer], (0, 2)
    )
    figures = {
        "training error": error(every, every).mean(1),
        "5-fold validation error": crossed,
        "true error of the model of all data": true,
        "true error of the models of the folds": of_folds,
    }
    gains = {
        "1.05 x true error - validation error": 1.05 * true - crossed,
        "validation error - 0.95 x true error": crossed - 0.95 * true,
        "1.02 x that of the folds' models - validation error": 1.02 * of_folds - crossed,
        "validation error - 0.98 x that of the folds' models": crossed - 0.98 * of_folds,
    }
    print_claim("C83", "The mean over K folds estimates the error on new data.", figures, gains)


def more_data(size: Size) -> None:
    """C84."""
    figures, gains, before = {}, {}, None
    for n in (60, 240, 960):
        parts = splits(data.load_digits(8), (n, 300, 300), size.seeds)
        run = classifier(mlp((64,)), optax.sgd, size.epochs(12000 // n))  # equally many steps
        found = swept(run, {"learning_rate": (0.3,)}, parts)
        gap, test = found.test[0] - found.train[0], found.test[0]
        figures[f"{n} examples: training error, %"] = found.train[0]
        figures[f"{n} examples: test error, %"] = test
        if before is not None:
            gains[f"{n} examples: gap between the two lessened by, %"] = before[0] - gap
            gains[f"{n} examples: test error lessened by, %"] = before[1] - test
        before = gap, test
    print_claim("C84", "More data overfits less.", figures, gains)


def noisy(size: Size) -> Splits:
    """Digits of which a fifth have a random label: 18 % of errors at best."""
    dataset = data.load_digits(8)
    random = np.random.RandomState(0)
    wrong = random.rand(len(dataset)) < 0.2
    labels = np.where(wrong, random.randint(0, 10, len(dataset)), dataset.targets)
    return splits(
        data.Dataset(dataset.inputs, labels.astype(np.int32)), (200, 300, 600), size.seeds
    )


def bounded(learning_rate: Any, limit: Any) -> optax.GradientTransformation:
    return optax.chain(optax.sgd(learning_rate), optim.max_norm(limit))


def large_weights(size: Size) -> None:
    """C85."""
    limits = (0.5, 1.0, 2.0, 4.0)
    run = classifier(mlp((64,)), bounded, size.epochs(150))
    hypers = {"learning_rate": [0.3] * len(limits), "limit": limits}
    found = swept(run, hypers, noisy(size))
    gap = found.test - found.train
    figures, gains = {}, {}
    for i, limit in enumerate(limits):
        norm = np.linalg.norm(np.asarray(found.params["dense1"]["kernel"][i]), axis=1).mean(-1)
        name = f"limit {limit:g}"
        figures[f"{name}: mean norm of a hidden unit's weights"] = norm.astype(np.float64)
        figures[f"{name}: training error, %"] = found.train[i]
        figures[f"{name}: test error, %"] = found.test[i]
        if i:
            gains[f"{name}: gap added to the limit before's, %"] = gap[i] - gap[i - 1]
    print_claim(
        "C85",
        "Weights that may be larger overfit more: the gap of test and training error.",
        figures,
        gains,
    )


def bias_and_variance(size: Size) -> None:
    """C89."""
    n, sets = 20, max(20, round(400 * size.share))
    random = np.random.RandomState(0)
    x = np.linspace(-2, 2, n)
    y = powers(x, 3) @ np.array(TRUTH) + random.randn(size.seeds, sets, n)
    grid = np.linspace(-2, 2, 81)
    truth = powers(grid, 3) @ np.array(TRUTH)
    figures, parts = {}, {}
    for degree in (1, 3, 12):
        outputs = fitted(powers(x, degree), y) @ powers(grid, degree).T  # (seeds, sets, 81)
        found = [decompose(jnp.asarray(o), jnp.asarray(truth)) for o in outputs.astype(np.float32)]
        bias, variance = (
            np.array([float(getattr(f, p)) for f in found]) for p in ("bias", "variance")
        )
        figures[f"degree {degree}: squared bias"] = bias
        figures[f"degree {degree}: variance"] = variance
        parts[degree] = bias, variance
    gains = {
        "degree 1: bias - variance": parts[1][0] - parts[1][1],
        "degree 1: bias - that of degree 3": parts[1][0] - parts[3][0],
        "degree 12: variance - bias": parts[12][1] - parts[12][0],
        "degree 12: variance - that of degree 3": parts[12][1] - parts[3][1],
    }
    claim = "Underfitting is high bias, overfitting high variance (a cubic fitted by degrees)."
    print_claim("C89", claim, figures, gains)


CLAIMS = {
    "C77": cubic_on_lines,
    "C78": noise_stays,
    "C79": wider,
    "C83": folds,
    "C84": more_data,
    "C85": large_weights,
    "C89": bias_and_variance,
}


def main(given: Sequence[str] | None = None) -> None:
    print_claims(__doc__, given, CLAIMS)


if __name__ == "__main__":
    main()
