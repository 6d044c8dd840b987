"""claims_capacity.py runs, in a short form, and prints what it promises."""

import importlib
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
NUMBER = r"(-?[\d.]+(?:e[+-]\d+)?)"
LINE = re.compile(rf"  (\S.*?) +{NUMBER} \[{NUMBER}, {NUMBER}\](?:  (?:yes|no|open))?")


@pytest.fixture
def capacity(monkeypatch):
    """The module, as a script in experiments/ finds it; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    before = set(sys.modules)
    yield importlib.import_module("claims_capacity")
    for name in set(sys.modules) - before:
        if EXPERIMENTS in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
            del sys.modules[name]


@pytest.fixture
def printed(capacity, capsys):
    """{claim: ({figure or part: its mean}, verdict)} of some claims, in short."""

    def run(*claims):
        capacity.main(["--quick", "--claims", *claims])
        found, means = {}, {}
        for line in capsys.readouterr().out.splitlines():
            if match := LINE.fullmatch(line):
                means[match[1]] = float(match[2])
            elif match := re.match(r"(C\d+) verdict: (\w+) ", line):
                found[match[1]], means = (means, match[2]), {}
        return found

    return run


def test_fits_are_least_squares_of_each_data_set(capacity):
    random = np.random.RandomState(0)
    x, y = random.randn(2, 3, 7), random.randn(2, 3, 7)
    features = capacity.powers(x, 3)
    assert features.shape == (2, 3, 7, 4)
    np.testing.assert_allclose(features[1, 2, :, 3], x[1, 2] ** 3 / 6)
    found = capacity.fitted(features, y)
    for i, j in np.ndindex(2, 3):
        wanted = np.linalg.lstsq(features[i, j], y[i, j], rcond=None)[0]
        np.testing.assert_allclose(found[i, j], wanted, rtol=1e-8)


def test_errors_of_a_line(capacity):
    x = np.array([[[-1.0, 0.0, 1.0, 2.0]]])
    train, test, w = capacity.error_of_line(x, 1 + 2 * x, 3)
    np.testing.assert_allclose(w, [[[1, 2, 0, 0]]], atol=1e-12)
    np.testing.assert_allclose([train, test], [[[0]], [[0.01]]], atol=1e-12)
    train, test, _ = capacity.error_of_line(x, 1 + 2 * x, 0)  # the mean of the four is 2
    np.testing.assert_allclose(train, [[5.0]])
    fresh = np.random.RandomState(1).randn(1000)
    np.testing.assert_allclose(test, [[((2 * fresh - 1) ** 2).mean() + 0.01]])


def test_cubics_on_lines(printed):
    found = printed("C77", "C78")
    cubic, verdict = found["C77"]
    assert verdict == "true"
    assert cubic["4 points: median test error of the cubic"] > 0.5
    assert cubic["4 points: of the line"] == pytest.approx(0.015, rel=0.2)
    assert cubic["1000 points: median test error of the cubic"] == pytest.approx(0.01, rel=0.02)
    noise, verdict = found["C78"]
    assert verdict == "true"
    ratios = [noise[f"{n} points: training error / variance of the noise"] for n in (4, 5, 100)]
    np.testing.assert_allclose(ratios, [0, 0.2, 0.96], atol=0.1)


def test_folds_and_degrees(printed):
    found = printed("C83", "C89")
    errors = found["C83"][0]
    assert errors["training error"] < 1 < errors["true error of the model of all data"]
    assert errors["5-fold validation error"] == pytest.approx(1.15, abs=0.1)
    parts, verdict = found["C89"]
    assert verdict == "true"
    assert parts["degree 1: squared bias"] > 5
    # fixed inputs: the mean over them of a least-squares fit's variance is near d / n
    assert parts["degree 3: variance"] == pytest.approx(4 / 20, rel=0.4)


def test_a_fifth_of_the_labels_are_random_and_weights_are_bounded(capacity):
    parts = capacity.noisy(capacity.Size(2, 1.0))
    assert parts.train.rows.shape == (2, 200)
    same = np.asarray(parts.train.targets) == capacity.data.load_digits(8).targets
    assert same.mean() == pytest.approx(1 - 0.2 * 0.9, abs=0.02)
    optimizer = capacity.bounded(0.0, 0.5)
    params = {"dense": {"kernel": jnp.array([[3.0, 0.1], [4.0, 0.2]])}}
    updates, _ = optimizer.update(
        jax.tree.map(jnp.ones_like, params), optimizer.init(params), params
    )
    bounded = params["dense"]["kernel"] + updates["dense"]["kernel"]
    np.testing.assert_allclose(bounded, [[0.3, 0.1], [0.4, 0.2]], rtol=1e-5)


@pytest.mark.slow
def test_perceptrons(printed):
    found = printed("C79", "C84", "C85")
    assert list(found) == ["C79", "C80", "C81", "C84", "C85"]
    wider, swapped, second = (found[claim][0] for claim in ("C79", "C80", "C81"))
    difference = wider["128-256: test error, %"] - wider["256-128: test error, %"]
    assert swapped["test error, 128-256 - 256-128"] == pytest.approx(difference, abs=0.02)
    added = second["1 - error added by 128"] + second["1 - error added by 256"]
    assert added == pytest.approx(2, abs=0.01)
    data, weights = found["C84"][0], found["C85"][0]
    assert data["60 examples: test error, %"] > data["960 examples: test error, %"]
    norms = [weights[f"limit {x}: mean norm of a hidden unit's weights"] for x in ("0.5", "1")]
    assert norms[0] <= 0.5 < norms[1] <= 1
