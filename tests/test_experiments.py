"""Every experiment runs, in a short form, and prints what it promises."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxd2l import output_shape

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


DIAGNOSE = "test_diagnose_faults.py"  # tests diagnosis.py


def test_every_experiment_is_tested():
    tests = [*Path(__file__).parent.glob("test_experiments*.py"), Path(__file__).parent / DIAGNOSE]
    text = "\n".join(path.read_text("utf-8") for path in tests)
    names = {path.name for path in EXPERIMENTS.glob("*.py")}
    assert "lenet.py" in names
    assert {name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)} == set()


def test_lenet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--seeds", "2", "--epochs", "2", "--set", "batch_norm=True"]
    monkeypatch.setattr(sys, "argv", ["lenet.py", *options])
    runpy.run_path(str(EXPERIMENTS / "lenet.py"), run_name="__main__")
    *runs, median = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"seed (\d): test accuracy (\d+\.\d+) %  \(.* s\)", r) for r in runs]
    assert [match[1] for match in found] == ["0", "1"]
    values = [float(match[2]) for match in found]
    assert min(values) > 80  # with batch norm two epochs do
    printed = re.fullmatch(r"median of 2 seeds: (.*) %", median)
    assert abs(float(printed[1]) - sum(values) / 2) < 0.011
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


@pytest.mark.slow
def test_mnist_networks(monkeypatch, capsys):
    options = ["--only", "small_resnet", "--epochs", "2", "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", ["mnist_networks.py", *options])
    runpy.run_path(str(EXPERIMENTS / "mnist_networks.py"), run_name="__main__")
    head, rule, row = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == 7
    found = re.fullmatch(
        r"\| small_resnet \| 28x28 \| 78,538 \| 2 \| (.*) % \((.*)-(.*)\) \| \d+ \|", row
    )
    median, low, high = map(float, found.groups())
    assert 70 < low <= median <= high <= 100


def test_the_networks_on_mnist_are_the_books():
    networks = runpy.run_path(str(EXPERIMENTS / "mnist_networks.py"))["NETWORKS"]
    assert {"lenet", "bn_lenet", "small_resnet"} <= set(networks)
    for name in ("alexnet", "densenet", "googlenet", "nin", "resnet18", "vgg"):
        assert name in networks
    for case in networks.values():  # every one fits its input
        assert output_shape(case.make(), (case.size, case.size, 1)) == (10,)


def test_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pictures.py", "--out", str(tmp_path), "--epochs", "1"])
    runpy.run_path(str(EXPERIMENTS / "pictures.py"), run_name="__main__")
    accuracy, *paths = capsys.readouterr().out.splitlines()
    assert float(re.fullmatch(r"test accuracy (.*) %", accuracy)[1]) > 20
    names = ["kernels", "feature_maps_conv1", "feature_maps_conv2", "augmentations"]
    assert [Path(path).stem for path in paths] == names
    for path in paths:
        picture = np.asarray(Image.open(path).convert("L"))
        assert picture.std() > 10  # not one shade
