"""What experiments print: intervals that cover, and verdicts that follow from them."""

import doctest
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@pytest.fixture
def report(monkeypatch):
    """experiments/report.py, found as a script in its folder finds it."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    yield importlib.import_module("report")
    del sys.modules["report"]


def test_examples(report):
    result = doctest.testmod(report)
    assert result.attempted >= 5
    assert result.failed == 0


def test_the_interval_covers_the_mean_in_95_of_100_cases(report):
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 5))
    found = [report.interval(row) for row in draws]
    covered = np.mean([i.low < 3.0 < i.high for i in found])
    assert abs(covered - 0.95) < 0.015
    assert [i.mean for i in found] == pytest.approx(draws.mean(1))
    # the table of Student's t: 2.776 with four degrees of freedom
    half = 2.776 * draws[0].std(ddof=1) / 5**0.5
    assert found[0].high - found[0].mean == pytest.approx(half, rel=1e-3)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]]])
def test_what_has_no_interval_is_refused(report, values):
    with pytest.raises(ValueError, match="two or more finite values"):
        report.interval(values)


def test_the_verdict_follows_from_the_figures(report, capsys):
    def word(**gains):
        return report.print_claim("C0", "A claim.", {"a figure": [5.0, 6.0]}, gains)

    assert word(a=[1.0, 1.1], b=[2.0, 2.1]) == "true"
    assert word(a=[-1.0, -1.1], b=[2.0, 2.1]) == "depends"
    assert word(a=[-1.0, -1.1], b=[2.0, -2.1]) == "false"
    assert word(a=[0.0, 0.0]) == "false"  # always exactly nothing: no gain
    assert word(a=[-1.0, 1.1], b=[2.0, 2.1]) == "open"
    assert word(a=[-1.0, 1.1]) == "open"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "C0  A claim."
    assert lines[-1] == "C0 verdict: open (intervals of 95 % over 2 seeds)"
    assert lines[-2].split()[-1] == "open"


def test_a_claim_without_parts_or_with_other_seeds_is_refused(report):
    with pytest.raises(ValueError, match="C1 has no part"):
        report.print_claim("C1", "A claim.", {"a figure": [1.0, 2.0]}, {})
    with pytest.raises(ValueError, match=r"C1 has figures of \[2, 3\] seeds"):
        report.print_claim("C1", "A claim.", {"a": [1.0, 2.0]}, {"b": [1.0, 2.0, 3.0]})
