"""The experiment on effective receptive fields, effective_field.py, measures what it says."""

import importlib
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxd2l.analysis import EffectiveReceptiveField

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@pytest.fixture
def module(monkeypatch):
    """The experiment, imported as a script beside it would, and made small."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    found = importlib.import_module("effective_field")
    for name, value in {"CHANNELS": 3, "NETWORKS": 2, "SIZE": 41, "DIGITS": 16}.items():
        monkeypatch.setattr(found, name, value)
    yield found
    for name in ("effective_field", "report", "trials"):
        sys.modules.pop(name, None)


def test_the_overlap_is_1_for_a_gaussian_and_less_for_a_flat_field(module):
    line = np.exp(-((np.arange(61) - 30.0) ** 2) / (2 * 6**2))
    plane = line[:, None] * line
    gaussian = EffectiveReceptiveField(plane / plane.sum(), None)
    assert module.gaussian_overlap(gaussian) == pytest.approx(1, abs=1e-4)
    assert module.mean_width(gaussian) == pytest.approx(24, rel=1e-4)
    # A box of half width sqrt(3) in standard deviations, and the Gaussian above it in the middle
    # and beyond its ends: 1 - half of the total difference.
    box = 1 / (2 * math.sqrt(3))
    crossing = math.sqrt(-2 * math.log(box * math.sqrt(2 * math.pi)))
    wanted = 2 * (box * crossing + (math.erf(3**0.5 / 2**0.5) - math.erf(crossing / 2**0.5)) / 2)
    assert module.gaussian_overlap(module.flat(401)) == pytest.approx(wanted, abs=5e-3)


def test_the_variants_differ_as_their_names_say(module):
    shape = (41, 41, module.CHANNELS)
    nets = module.variants(6)
    fields = {name: module.theoretical(net, shape)[0].size for name, net in nets.items()}
    assert fields == {
        "plain": 1 + 2 * 6,
        "dilated": 1 + 2 * 2 * (1 + 2 + 4),
        "strided": 1 + 2 * (1 + 1 + 1 + 2 + 2 + 4),
        "with skips": 1 + 2 * 6,
    }


def test_the_mean_over_networks_fills_the_theoretical_field_and_follows_the_seed(module):
    net = module.stack(2, "linear")
    first, other = (module.measured(net, 7, seed) for seed in (0, 1))
    rim = np.ones((7, 7), bool)
    rim[1:6, 1:6] = False
    assert (first.map[rim] == 0).all()
    assert (first.map[~rim] > 0).all()
    assert first.map[3, 3] > 2 * first.map[1, 1]
    assert abs(first.map - other.map).max() > 1e-3


@pytest.mark.slow
def test_it_prints_four_claims_and_draws(module, tmp_path, capsys):
    module.main(["--seeds", "2", "--epochs", "1", "--depths", "2", "4", "--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    verdicts = [re.fullmatch(r"(ERF\d) verdict: (\w+) \(.* over 2 seeds\)", line) for line in lines]
    assert [match[1] for match in verdicts if match] == ["ERF1", "ERF2", "ERF3", "ERF4"]
    assert {match[2] for match in verdicts if match} <= {"true", "false", "depends", "open"}
    paths = [Path(line) for line in lines if line.startswith(str(tmp_path))]
    assert len(paths) == len(set(paths)) == 8  # four variants; two networks, before and after
    for path in paths:
        assert np.asarray(Image.open(path).convert("L")).std() > 10
