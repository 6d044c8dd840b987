"""The experiments on optimisers run, in a short form, and print what they promise."""

import doctest
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@pytest.fixture
def module(monkeypatch):
    """Import from experiments/ as a script there does; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (
            getattr(sys.modules[name], "__file__", None)
            and EXPERIMENTS in Path(sys.modules[name].__file__).resolve().parents
        ):
            del sys.modules[name]


# optimizer_paths.py


def test_the_ways_of_gradient_descent_are_powers(module):
    paths = module("optimizer_paths")
    f = paths.quadratic(paths.hessian(20, False))  # curvatures 0.2 and 4
    from jaxd2l import optim

    way = np.asarray(paths.way(optim.sgd(0.1), f, paths.circle(4)[1], 5))
    steps = np.arange(6)[:, None]
    np.testing.assert_allclose(way, way[0] * np.array([0.98, 0.6]) ** steps, rtol=1e-5)
    assert not doctest.testmod(paths).failed


def test_optimizer_paths_prints_and_draws(module, capsys, tmp_path):
    picture = tmp_path / "ways.png"
    module("optimizer_paths").main(["--quick", "--out", str(picture)])
    out = capsys.readouterr().out
    assert picture.stat().st_size > 20000
    found = {
        (tilt, name): float(mean)
        for tilt, table in re.findall(r"condition 20, (\w+):.*\n((?:  .*\n)+)", out)
        for name, mean in re.findall(r"  (\S.*?)  .* ([\d.]+) \[", table)
    }
    for tilt in ("straight", "tilted"):
        assert found[tilt, "Newton"] == 1
        assert found[tilt, "conjugate gradients"] == 2
        assert 20 < found[tilt, "gradient descent"] < 150
    assert found["straight", "AdaGrad"] < 20 < found["tilted", "AdaGrad"]
    assert "C66 verdict: true" in out


# sweep_pictures.py


@pytest.mark.slow
def test_pictures_of_many_runs(module, capsys, tmp_path):
    module("sweep_pictures").main(["--quick", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    losses = [float(number) for number in re.findall(r"validation loss (?:is )?(\d+\.\d+)", out)]
    assert len(losses) == 5  # four optimisers, and the best of the sweep
    assert all(0 < loss < 2.0 for loss in losses)
    for name in ("bands.png", "heat_map.png"):
        assert (tmp_path / name).stat().st_size > 10000
