"""The experiments on claims of the notes run, in a short form, and print what they promise:
claims_batch_norm.py, claims_cnn.py, claims_residual.py, claims_compression.py with trials.py."""

import doctest
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

from jaxd2l import apply, data, init, train
from jaxd2l.layers import BatchNorm, Conv, Dense, Flatten, Serial
from jaxd2l.models import mlp
from jaxd2l.ops import losses

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


# What they share


@pytest.fixture
def parts():
    digits = data.load_digits(8)
    return data.Parts(digits.take(np.arange(96)), digits.take(np.arange(96, 160)))


def test_trials_are_runs_of_every_rate_and_seed(module, parts):
    trials = module("trials").trials
    found = trials(mlp((8,)), parts, [0.0, 0.1, 0.3], 2, epochs=4, batch_size=32)
    assert found.error.shape == found.loss.shape == (3, 2, 4)
    assert found.params["dense1"]["kernel"].shape == (3, 2, 64, 8)
    loss = losses.softmax_cross_entropy
    run = jax.jit(train.make_run(mlp((8,)), loss, optax.sgd, epochs=4, batch_size=32))
    params, history = run(jax.random.key(1), parts.train, {"learning_rate": 0.3})
    np.testing.assert_allclose(found.loss[2, 1], history["loss"], rtol=1e-4)
    for ours, wanted in zip(jax.tree.leaves(found.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours[2, 1], wanted, rtol=1e-3, atol=1e-5)
    logits, _ = apply(mlp((8,)), params, {}, jnp.asarray(parts.test.inputs))
    wrong = float((logits.argmax(-1) != jnp.asarray(parts.test.targets)).mean())
    assert found.test_error[2, 1] == pytest.approx(wrong)
    assert np.ptp(found.loss[0], axis=1).max() < 1e-4  # nothing is learnt at rate 0
    assert (found.loss[2, :, -1] < 0.9 * found.loss[0, :, -1]).all()


def test_settled_statistics_are_those_of_all_examples(module, parts, key):
    net = Serial([BatchNorm("first"), Flatten(), Dense("dense", 3), BatchNorm("second")])
    params, _ = init(net, key, (8, 8, 1))
    state = module("trials").settled(net, params, parts.train)
    x = parts.train.inputs
    mean, var = state["first"]["mean"], state["first"]["var"]
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, x.var((0, 1, 2)), rtol=1e-5)
    y = ((x - mean) / np.sqrt(var + 1e-5)).reshape(96, 64) @ params["dense"]["kernel"]
    np.testing.assert_allclose(state["second"]["mean"], y.mean(0), atol=1e-5)
    np.testing.assert_allclose(state["second"]["var"], y.var(0), rtol=1e-4)


def test_epochs_until_and_best(module):
    trials = module("trials")
    assert doctest.testmod(trials).failed == 0
    error = np.array([[0.5, 0.3, 0.1], [0.2, 0.1, 0.3], [0.9, 0.9, 0.9], [0.1, 0.1, 0.1]])
    # interpolated from 1 before the first epoch; all three epochs where the level is not reached
    wanted = [2.5, 1.0, 3.0, 8 / 9]
    np.testing.assert_allclose(trials.epochs_until(error, 0.2), wanted)
    np.testing.assert_allclose(trials.epochs_until(error[None], 0.2), [wanted])
    number, values = trials.best(np.array([[1.0, 4.0], [2.0, 2.0]]))
    assert (number, values.tolist()) == (1, [2.0, 2.0])


def test_truncation_and_pruning(module, key):
    compression = module("claims_compression")
    params, _ = init(Conv("conv2", 6, 3), key, (8, 8, 4))
    kernel = params["conv2"]["kernel"]
    matrix = compression.as_matrix(kernel)
    assert matrix.shape == (6, 36)
    np.testing.assert_array_equal(matrix[1].reshape(3, 3, 4), kernel[..., 1])
    assert np.linalg.matrix_rank(compression.as_matrix(compression.truncated(kernel, 2))) == 2
    np.testing.assert_allclose(compression.truncated(kernel, 6), kernel, atol=1e-6)
    error = jnp.sum((compression.truncated(kernel, 2) - kernel) ** 2) / jnp.sum(kernel**2)
    assert float(error) == pytest.approx(1 - float(compression.energy(kernel)[1]), rel=1e-4)

    mask = compression.kept(params, 0.7)
    left = compression.pruned(params, mask)["conv2"]["kernel"]
    assert float((left == 0).mean()) == pytest.approx(0.7, abs=0.01)
    assert float(abs(left[left != 0]).min()) >= float(abs(kernel[left == 0]).max())
    assert mask["conv2"]["bias"].all()


# What they print


def claims(text, seeds):
    """{id: ({part: "yes", "no" or "open"}, verdict)}; every line has its form."""
    number, found, parts = None, {}, {}
    value = r"(-?[\d.]+(?:e[+-]\d+)?)"
    for line in filter(None, text.splitlines()):
        if match := re.fullmatch(r"(C\d+)  (.{20,})", line):
            assert number is None
            number, parts = match[1], {}
        elif match := re.fullmatch(rf"(C\d+) verdict: (\w+) \(.* 95 % over {seeds} seeds\)", line):
            assert match[1] == number
            found[number], number = (parts, match[2]), None
        elif line != "holds if above 0:":
            form = rf"  (\S.*?) +{value} \[{value}, {value}\](?:  (yes|no|open))?"
            name, mean, low, high, word = re.fullmatch(form, line).groups()
            assert float(low) <= float(mean) <= float(high)
            if word:
                parts[name] = word
                above, below = float(low) > 0, float(high) < 0 or float(low) == float(high) <= 0
                assert word == ("yes" if above else "no" if below else "open"), line
    assert number is None
    return found


def printed(name, monkeypatch, capsys, *options):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    monkeypatch.setattr(sys, "argv", [name, "--seeds", "2", *options])
    runpy.run_path(str(EXPERIMENTS / name), run_name="__main__")
    found = claims(capsys.readouterr().out, 2)
    for parts, verdict in found.values():
        words = set(parts.values())
        yes, no = "yes" in words, "no" in words
        all_yes = words == {"yes"}
        wanted = "true" if all_yes else "open" if not no else "depends" if yes else "false"
        assert verdict == wanted
    return {number: len(parts) for number, (parts, _) in found.items()}


def test_compression(module, monkeypatch, capsys):
    found = printed("claims_compression.py", monkeypatch, capsys, "--epochs", "1")
    assert found == {"C135": 2, "C136": 6}


@pytest.mark.slow
def test_batch_norm(module, monkeypatch, capsys):
    found = printed("claims_batch_norm.py", monkeypatch, capsys, "--epochs", "1")
    assert found == {"C94": 6, "C102": 4}


@pytest.mark.slow
def test_cnn(module, monkeypatch, capsys):
    found = printed("claims_cnn.py", monkeypatch, capsys, "--epochs", "1")
    assert found == {"C130": 5, "C131": 2, "C132": 3}


@pytest.mark.slow
def test_residual(module, monkeypatch, capsys):
    found = printed("claims_residual.py", monkeypatch, capsys, "--epochs", "1")
    assert found == {"C124": 3}
