"""experiments/house_prices.py: nothing is learnt from the houses that judge, and it runs."""

import importlib
import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from jaxd2l import data

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
NAMES = ("house_prices", "report")


@pytest.fixture
def module(monkeypatch):
    """The experiment, imported as a script imports its neighbours; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    yield importlib.import_module("house_prices")
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture
def houses(module):
    return module.made_up(30, 10)


@pytest.mark.smoke
def test_every_fold_is_judged_by_what_has_not_seen_it(module, houses, monkeypatch):
    table = houses.train | {"row": np.arange(30.0)}
    calls = []

    def recorded(part, y, new, seed, scale):
        rows, others = (np.rint(np.expm1(t["row"])).astype(int) for t in (part, new))
        np.testing.assert_allclose(y, np.log(houses.prices)[rows])
        calls.append((set(rows.tolist()), set(others.tolist())))
        ridge = np.tile(np.log(houses.prices)[others], (len(module.STRENGTHS), 1))
        ridge[[0, 1, 3, 4]] += 1  # the third strength is the best
        return ridge, ridge[2] + 0.5

    monkeypatch.setattr(module, "all_predictions", recorded)
    errors, chosen = module.own(houses._replace(train=table), 3, module.Scale(1, 0))
    assert errors == pytest.approx({"ridge": 0, "perceptrons": 0.5, "both": 0.25, "chosen": 0})
    assert chosen == ["ridge"] * 5
    judged = []
    for outer in range(5):
        *inner, (trained, held) = calls[5 * outer : 5 * outer + 5]
        judged += sorted(held)
        assert trained | held == set(range(30))
        for part, other in (*inner, (trained, held)):
            assert not part & held
            assert not part & other
        assert set.union(*(other for _, other in inner)) == trained
    assert sorted(judged) == list(range(30))
    assert len(calls) == 25


def test_matrices_know_the_first_table_only(module, houses):
    table = module.features(houses.train)
    parts = [data.take_rows(table, rows) for rows in (np.arange(20), np.arange(20, 30))]
    first, second = module.matrices(*parts, module.Scale(1, 20))
    assert first.shape == (20, 20)
    np.testing.assert_allclose(first[:, :3].mean(0), 0, atol=1e-6)
    area = np.log1p(houses.train["GrLivArea"])
    column = (area[20:] - area[:20].mean()) / area[:20].std(ddof=1)
    assert any(np.allclose(column, c, atol=1e-5) for c in second.T)
    other = {n: c[:5] for n, c in parts[1].items()}
    np.testing.assert_array_equal(
        module.matrices(parts[0], other, module.Scale(1, 20))[1], second[:5]
    )
    assert (second[:, -3:] == 0).all()  # filled up
    kinds = table["MSSubClass"].tolist()
    assert set(kinds) == {"20", "60", "120"}


def test_ridge_predictions_are_those_of_scikit_learn(module, houses):
    draw = np.random.RandomState(0)
    x, new = (draw.randn(n, 4).astype(np.float32) for n in (12, 5))
    y = draw.randn(12).astype(np.float32) + 12
    found = module.ridge_predictions(x, y, new, module.STRENGTHS)
    wanted = [Ridge(alpha=float(c)).fit(x, y).predict(new) for c in module.STRENGTHS]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_predictions_are_those_of_the_model_chosen(module, monkeypatch, capsys, tmp_path):
    def known(part, y, new, seed, scale):
        value = new["YearBuilt"]  # the perceptrons are right, but for one house
        wrong = np.tile(value, (len(module.STRENGTHS), 1)) + 9
        return wrong, value + 0.01

    houses = module.made_up(160, 40)
    cheap = houses._replace(prices=np.exp(houses.train["YearBuilt"] / 10))
    cheap.train["YearBuilt"] /= 10
    cheap.test["YearBuilt"] /= 10
    monkeypatch.setattr(module, "made_up", lambda n, m: cheap)
    monkeypatch.setattr(module, "all_predictions", known)
    monkeypatch.setattr(module, "book", lambda houses, seeds: np.array([0.1, 0.2]))
    out = tmp_path / "predictions.csv"
    module.main(["--quick", "--seeds", "2", "--out", str(out)])
    table = data.read_csv(out)
    assert list(table) == ["Id", "SalePrice"]
    np.testing.assert_array_equal(table["Id"], np.arange(161, 201))
    wanted = np.exp(cheap.test["YearBuilt"] + 0.01)
    np.testing.assert_allclose(table["SalePrice"], wanted, rtol=1e-6)
    assert "chosen: 0 x ridge, 10 x perceptrons, 0 x both" in capsys.readouterr().out


@pytest.mark.slow
def test_house_prices_runs(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    arguments = ["--quick", "--seeds", "2", "--book-seeds", "3"]
    monkeypatch.setattr(sys, "argv", ["house_prices.py", *arguments])
    jax.config.update("jax_disable_most_optimizations", True)  # to compile
    try:
        runpy.run_path(str(EXPERIMENTS / "house_prices.py"), run_name="__main__")
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
        for name in NAMES:
            sys.modules.pop(name, None)
    printed = capsys.readouterr().out
    assert "mean squared error over 5 folds, 3 seeds" in printed
    values = dict(re.findall(r"^  (\w+) +([\d.e+-]+) \[", printed, re.M))
    assert float(values["chosen"]) == pytest.approx(0.1, abs=0.03)  # the noise of the prices
    assert float(values["chosen"]) <= float(values["perceptrons"])
    assert "house verdict: true" in printed


def test_house_prices_needs_data(module, capsys):
    with pytest.raises(SystemExit):
        module.main([])
    assert "give the folder of the competition's files" in capsys.readouterr().err
