"""The experiments on regularisation: short runs, and what they make of given figures:
claims_regularisation.py, claims_overfitting.py with sweeps.py."""

import importlib
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import data, layers

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
VERDICT = re.compile(r"^(C\d+) verdict: (true|false|depends|open) \(", re.M)


@pytest.fixture
def module(monkeypatch):
    """Import from experiments/ as a script there does; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == EXPERIMENTS:
            del sys.modules[name]


def figure(text, name):
    """The mean of a figure."""
    (found,) = re.findall(rf"^  {re.escape(name)} +(\S+) \[", text, re.M)
    return float(found)


def test_decayed_descent_shrinks_kernels_and_no_biases(module):
    optimizer = module("claims_regularisation").decayed(0.5, 0.1)
    params = {"dense": {"kernel": jnp.full((2, 2), 4.0), "bias": jnp.full(2, 4.0)}}
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.5 * (1 + 0.1 * 4.0), rtol=1e-6)
    np.testing.assert_allclose(updates["dense"]["bias"], -0.5, rtol=1e-6)


@pytest.mark.parametrize(("together", "wanted"), [(90.0, "true"), (4.0, "false")])
def test_dropout_with_decay_is_held_against_the_worse_of_either(
    module, monkeypatch, capsys, together, wanted
):
    regularisation = module("claims_regularisation")

    def swept(run, hypers, parts):
        strengths = np.asarray(hypers["strength"])
        assert hypers["learning_rate"] == [0.5] * len(strengths)
        both = (strengths > 0) & bool(dropped(run.model))
        error = np.where(both, together, 5.0)[:, None] + 1e-3 * np.arange(3)
        return module("sweeps").Found(*4 * [error], {}, None)

    monkeypatch.setattr(regularisation, "swept", swept)
    regularisation.main(["--quick", "--claims", "C68"])
    assert VERDICT.findall(capsys.readouterr().out) == [("C68", wanted)]


@pytest.mark.slow
def test_strong_decay_leaves_the_network_guessing_without_dropout_too(module, monkeypatch, capsys):
    regularisation = module("claims_regularisation")
    monkeypatch.setattr(regularisation, "WIDTHS", (32, 32))
    regularisation.with_decay(module("sweeps").Size(2, 1.0))
    text = capsys.readouterr().out
    for how in ("decay alone", "decay and dropout"):
        assert figure(text, f"{how}, lambda 0.1: test error, %") > 80
        assert figure(text, f"{how}, lambda 0.0001: test error, %") < 30


def test_the_network_of_batch_norm_and_dropout(module):
    network = module("claims_regularisation").network
    plain, norm, both = network(False, ()), network(True, ()), network(True, (0.2, 0.5))
    assert [type(x).__name__ for x in both.layers[1:5]] == [
        *("Dense", "BatchNorm", "Activation", "Dropout")
    ]
    shapes = [layers.output_shape(net, (8, 8, 1)) for net in (plain, norm, both)]
    assert shapes == [(10,)] * 3
    assert [x.rate for x in both.layers if isinstance(x, layers.Dropout)] == [0.2, 0.5]


# What is made of the figures, without training


def ends(module, rates, seeds, test, train=0.0, level=3):
    """Runs with these errors in percent that reach the level after `level` epochs."""
    shape = (len(rates), seeds)
    jitter = 1e-3 * np.arange(seeds)
    history = np.full((*shape, 250), 0.9)
    history[..., level - 1 :] = 0.99
    found = {"accuracy": history, "valid_accuracy": history - 1e-5 * jitter[:, None]}
    values = [np.full(shape, e) + jitter for e in (train, test, test, 0.1)]
    return module("sweeps").Found(*values, found, None)


def dropped(net):
    return [x.rate for x in net.layers if isinstance(x, layers.Dropout)]


@pytest.mark.parametrize(
    ("claim", "error", "wanted"),
    [
        ("C42", lambda net: 3.0 if "BatchNorm" in str(net) else 5.0, "true"),
        ("C42", lambda net: 5.0 if "BatchNorm" in str(net) else 3.0, "depends"),
        ("C67", lambda net: 3.0 if dropped(net) == [0.2, 0.5] else 5.0, "true"),
        ("C67", lambda net: 5.0 if dropped(net) == [0.2, 0.5] else 3.0, "false"),
        ("C74", lambda net: 3.0 if dropped(net) == [0.2, 0.5] else 5.0, "true"),
        ("C74", lambda net: 3.0 if dropped(net) == [0.0, 0.0] else 5.0, "false"),
    ],
)
def test_verdicts_follow_from_the_errors(module, monkeypatch, capsys, claim, error, wanted):
    regularisation = module("claims_regularisation")

    def runs(net, size, rates=regularisation.RATES, epochs=40):
        return ends(module, rates, size.seeds, error(net))

    monkeypatch.setattr(regularisation, "runs", runs)
    regularisation.main(["--quick", "--claims", claim])
    assert VERDICT.findall(capsys.readouterr().out) == [(claim, wanted)]


def test_slower_convergence_is_counted_in_epochs(module, monkeypatch, capsys):
    regularisation = module("claims_regularisation")
    for late, wanted in ((7, "true"), (2, "false")):

        def runs(net, size, rates=regularisation.RATES, epochs=40, late=late):
            return ends(module, rates, size.seeds, 3.0, level=late if dropped(net) else 4)

        monkeypatch.setattr(regularisation, "runs", runs)
        regularisation.main(["--quick", "--claims", "C75"])
        text = capsys.readouterr().out
        assert VERDICT.findall(text) == [("C75", wanted)]
        (lost,) = re.findall(r"at its best rate: epochs lost by dropout +(\S+) ", text)
        assert float(lost) == pytest.approx(late - 4, abs=0.3)


def test_long_runs_compare_an_early_epoch_with_the_last(module, monkeypatch, capsys):
    regularisation = module("claims_regularisation")
    size = module("sweeps").Size(3, 1.0)
    seen = []

    def swept(run, hypers, parts, *, watched):
        seen.append((run.epochs, watched.rows.shape))
        rising = np.linspace(0.8, 1.0, 200) * np.ones((1, 3, 1))
        falling = 0.95 - 0.1 * rising - 1e-4 * np.arange(3)[None, :, None]
        history = {"accuracy": rising, "valid_accuracy": falling}
        return module("sweeps").Found(*4 * [np.zeros((1, 3))], history, None)

    monkeypatch.setattr(regularisation, "swept", swept)
    regularisation.long_runs(size)
    assert VERDICT.findall(capsys.readouterr().out) == [("C69", "true")]
    assert seen == [(200, (3, 985))] * 2


# Overfitting


@pytest.mark.smoke
def test_each_seed_permutes_its_features_in_its_own_way_and_keeps_its_labels(module):
    overfitting, digits = module("claims_overfitting"), data.load_digits(8)
    parts = module("sweeps").splits(digits, (5, 4, 3), 2)
    mixed = overfitting.shuffled(digits, parts)
    for part, other in zip(parts, mixed, strict=True):
        np.testing.assert_array_equal(part.targets[part.rows], other.targets[other.rows])
        before = np.asarray(part.inputs[part.rows]).reshape(2, -1, 64)
        after = np.asarray(other.inputs[other.rows]).reshape(2, -1, 64)
        np.testing.assert_array_equal(np.sort(before, -1), np.sort(after, -1))
        for seed in range(2):
            wanted = data.permute_features(before[seed], seed)
            np.testing.assert_array_equal(after[seed], wanted)
    assert not np.array_equal(mixed.train.inputs[:1797], mixed.train.inputs[1797:])


def test_wrong_labels_are_a_fifth_of_those_for_training(module):
    overfitting = module("claims_overfitting")
    parts = module("sweeps").splits(data.load_digits(8), (200, 50, 50), 2)
    noisy = overfitting.with_wrong_labels(parts)
    changed = np.asarray(noisy.train.targets != parts.train.targets).mean()
    assert 0.9 * 0.2 * 0.9 < changed < 0.9 * 0.2 * 1.1  # a tenth of those drawn are right again
    assert noisy.valid is parts.valid
    assert noisy.test is parts.test


def test_stopping_early_takes_the_epoch_with_the_lowest_validation_loss(module, monkeypatch):
    overfitting, sweeps = module("claims_overfitting"), module("sweeps")
    parts = sweeps.splits(data.load_digits(8), (20, 10, 10), 2)
    loss = np.array([[[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]])
    accuracy = np.array([[[0.5, 0.8, 0.7], [0.9, 0.6, 0.4]]])

    def swept(run, hyper, parts_, watched):
        history = {"valid_loss": loss if watched is parts.valid else None}
        history["valid_accuracy"] = accuracy if watched is parts.test else None
        return sweeps.Found(*4 * [np.zeros((1, 2))], history, None)

    monkeypatch.setattr(overfitting, "swept", swept)
    last, stopped = overfitting.stopping(sweeps.QUICK, parts)
    np.testing.assert_allclose(last, [30, 60])
    np.testing.assert_allclose(stopped, [20, 10])


def test_a_committee_is_judged_by_its_mean_probabilities(module):
    overfitting = module("claims_overfitting")
    parts = module("sweeps").splits(data.load_digits(8), (40, 10, 60), 2)
    alone, together = overfitting.committee(module("sweeps").Size(2, 0.3), parts)
    assert alone.shape == together.shape == (2,)
    assert (together < alone + 5).all()
    assert (alone < 70).all()  # better than guessing
    assert not np.array_equal(alone, together)


@pytest.mark.parametrize(("bags", "wanted"), [(1.0, "true"), (3.0, "depends")])
def test_bags_are_judged_by_variance_and_boosting_by_bias(
    module, monkeypatch, capsys, bags, wanted
):
    overfitting, sweeps = module("claims_overfitting"), module("sweeps")
    variances = iter([2.0, bags, 2.0, bags, 2.0, 2.0])
    biases = iter([2.0, 2.0, 2.0, 2.0, 2.0, 1.0])

    def bias_variance(predict, keys, truth, *, how):
        assert jax.eval_shape(predict, keys[0]).shape == truth.shape == (101, 1)
        parts = [jnp.array(next(values)) for values in (biases, variances)]
        return overfitting.train.selection.Decomposition(jnp.ones(()), *parts, jnp.zeros(()))

    monkeypatch.setattr(overfitting.train, "bias_variance", bias_variance)
    overfitting.combined(sweeps.QUICK)
    assert VERDICT.findall(capsys.readouterr().out) == [("C88", wanted)]


@pytest.mark.parametrize(("convolutional", "dense", "wanted"), [(9, 3, "true"), (3, 9, "depends")])
def test_a_permutation_must_hurt_convolutions_alone(
    module, monkeypatch, capsys, convolutional, dense, wanted
):
    overfitting = module("claims_overfitting")
    dense_gains = {3: "yes", 9: "no"}

    def swept(run, hypers, parts, *, how):
        permuted = len(parts.train.inputs) > 1797
        error = (convolutional if how == "map" else dense) if permuted else 3.0
        values = np.full((2, 3), float(error)) + 1e-3 * np.arange(3)
        return module("sweeps").Found(*4 * [values], {}, None)

    monkeypatch.setattr(overfitting, "swept", swept)
    monkeypatch.setattr(overfitting, "cells", lambda: data.load_digits(8))
    overfitting.main(["--quick", "--claims", "C58"])
    text = capsys.readouterr().out
    for name in ("dense, digits", "dense, table"):
        pattern = rf"{name}: 1.5 - error that it adds .*  {dense_gains[dense]}$"
        assert re.search(pattern, text, re.M)
    assert VERDICT.findall(text) == [("C58", wanted)]
