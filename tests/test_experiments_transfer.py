"""The experiments on fine-tuning, transferred layers and shifts run and print what they promise."""

import importlib
import re
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import data

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
NUMBER = r"-?[\d.]+(?:e[-+]\d+)?"
LINE = re.compile(rf"  (.+?) +({NUMBER}) \[({NUMBER}), ({NUMBER})\](?:  (yes|no|open))?")


@pytest.fixture
def found(monkeypatch):
    """Modules of the folder, as a script in it finds them; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (Path(getattr(sys.modules[name], "__file__", None) or "/").parent) == EXPERIMENTS:
            del sys.modules[name]


def run(name, options, monkeypatch, capsys):
    """(figures, gains, the last line) that an experiment prints."""
    monkeypatch.setattr(sys, "argv", [name, "--seeds", "2", *options])
    runpy.run_path(str(EXPERIMENTS / name), run_name="__main__")
    first, *lines, last = capsys.readouterr().out.splitlines()
    at = lines.index("holds if above 0:")
    parts = [[LINE.fullmatch(line) for line in part] for part in (lines[:at], lines[at + 1 :])]
    figures, gains = ({m[1]: float(m[2]) for m in part} for part in parts)
    assert all(0 <= value <= 100 for value in figures.values())
    assert all(m[5] for m in parts[1])
    assert not any(m[5] for m in parts[0])
    assert first.split()[0] == last.split()[0]
    word = re.fullmatch(r"C\d+ verdict: (\w+) \(intervals of 95 % over 2 seeds\)", last)[1]
    assert word in ("true", "false", "depends", "open")
    return first.split()[0], figures, gains


@pytest.mark.slow
def test_fine_tuning(found, monkeypatch, capsys):
    options = ["--epochs", "6", "--source-epochs", "6"]
    number, figures, gains = run("fine_tuning.py", options, monkeypatch, capsys)
    assert number == "C139"
    assert len(figures) == 2 * (1 + 2 * 4)
    assert len(gains) == 2 * 2 * 3
    assert figures["clean: digits 0 to 4 before"] > 80
    assert figures["noisy: digits 0 to 4 before"] < figures["clean: digits 0 to 4 before"]
    for name, gain in gains.items():
        setting, method = re.fullmatch(r"(.*): (.*) - scratch", name).groups()
        of, scratch = figures[f"{setting}: {method}"], figures[f"{setting}: from scratch"]
        assert gain == pytest.approx(of - scratch, abs=0.02)
    assert figures["clean, 20 of each: one rate"] > 80


@pytest.mark.slow
def test_transfer_layers(found, monkeypatch, capsys):
    number, figures, gains = run("transfer_layers.py", ["--epochs", "6"], monkeypatch, capsys)
    assert number == "C140"
    assert len(figures) == 1 + 3 * 2
    assert len(gains) == 3
    low, _, high = (
        figures[f"frozen layers: {k}, from: 5 to 9"] - figures[f"frozen layers: {k}, from: 0 to 4"]
        for k in (1, 2, 3)
    )
    assert list(gains.values()) == pytest.approx([1 - low, high, high - low], abs=0.03)
    assert high > 5  # already here


@pytest.mark.slow
def test_augmentation(found, monkeypatch, capsys):
    number, figures, gains = run("augmentation.py", ["--epochs", "6"], monkeypatch, capsys)
    assert number == "C141"
    assert len(figures) == 2 * 4
    plain, shifted = (
        [figures[f"trained on images {how}, tested at {shift} pixels"] for shift in range(4)]
        for how in ("as they are", "shifted")
    )
    assert plain[0] > 80
    wanted = [(plain[0] - plain[s]) - (shifted[0] - shifted[s]) for s in (1, 2, 3)]
    assert list(gains.values()) == pytest.approx(wanted, abs=0.03)
    assert min(gains.values()) > 10  # already here


def test_a_rate_of_zero_freezes(found):
    """What fine_tuning.py calls the head alone changes nothing else, as train.freeze."""
    optimizer = found("fine_tuning").by_rate(0.01, 0.0)
    params = {name: {"kernel": jnp.array([1.5, -2.0, 0.0])} for name in ("conv1", "output")}
    memory, now = optimizer.init(params), params
    for step in range(3):
        grads = jax.tree.map(lambda p, step=step: p - step, params)
        updates, memory = optimizer.update(grads, memory, now)
        now = optax.apply_updates(now, updates)
    np.testing.assert_array_equal(now["conv1"]["kernel"], params["conv1"]["kernel"])
    assert (now["output"]["kernel"] != params["output"]["kernel"]).all()


def test_the_halves_and_the_few(found):
    fine_tuning = found("fine_tuning")
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(10), 30))
    dataset = data.Dataset(np.arange(300.0).reshape(300, 1), labels)
    source, target = fine_tuning.halves(dataset)
    for part, shift in ((source, 0), (target, 5)):
        np.testing.assert_array_equal(labels[part.inputs[:, 0].astype(int)], part.targets + shift)
        assert len(part) == 150
    rows, others = fine_tuning.choose(target, 3)
    assert rows.shape == (5, 20)
    assert sorted([*rows.ravel(), *others]) == list(range(150))
    np.testing.assert_array_equal(target.targets[rows], np.repeat(np.arange(5), 20).reshape(5, 20))
    assert (fine_tuning.choose(target, 4)[0] != rows).any()


def test_images_of_a_folder_are_halved(found, tmp_path):
    fine_tuning = found("fine_tuning")
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (5, 28, 28)).astype(np.uint8)
    for name, array in (("images-idx3", pixels), ("labels-idx1", np.arange(5, dtype=np.uint8))):
        shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
        head = bytes([0, 0, 8, array.ndim]) + shape
        (tmp_path / f"t10k-{name}-ubyte").write_bytes(head + array.tobytes())
    made = fine_tuning.images(tmp_path)
    assert made.inputs.shape == (5, 14, 14, 1)
    block = made.inputs[2, 3, 4, 0]
    assert block == pytest.approx(pixels[2, 6:8, 8:10].mean() / 255, rel=1e-5)
    assert sorted(made.targets) == list(range(5))
    assert fine_tuning.images(None).inputs.shape == (1797, 14, 14, 1)


def test_images_are_moved(found):
    augmentation = found("augmentation")
    image = np.zeros((1, 5, 6, 1))
    image[0, 2, 3] = 1
    assert np.argwhere(augmentation.moved(image, 1, -2)[0, :, :, 0]).tolist() == [[3, 1]]
    assert augmentation.moved(image, -3, 0).sum() == 0
    np.testing.assert_array_equal(augmentation.moved(image, 0, 0), image)


def test_layers_are_frozen_from_below(found):
    transfer_layers = found("transfer_layers")
    assert transfer_layers.rates(0)["rates"] == pytest.approx([1e-3] * 3)
    assert transfer_layers.rates(2)["rates"] == pytest.approx([0, 0, 1e-3])
    few, test = transfer_layers.split(data.Dataset(np.arange(10.0)[:, None], np.arange(10)), 3)
    for seed in range(3):
        both = [*few[1][seed], *test[1][seed]]
        assert sorted(both) == list(range(10))
    assert (few[1][0] != few[1][1]).any()
