"""The experiments on starts and activations run, in a short form, and print what they promise:
claims_initialisation.py and claims_activations.py with starts.py."""

import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import apply, data, init, train
from jaxd2l.models import mlp
from jaxd2l.ops import losses
from jaxd2l.ops.initializers import Constant

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
NUMBER = r"(-?[\d.]+(?:e[+-]\d+)?)"
PART = re.compile(rf"  (\S.*?) +{NUMBER} \[{NUMBER}, {NUMBER}\]  (yes|no|open)")


@pytest.fixture
def module(monkeypatch):
    """Import from experiments/ as a script there does; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if EXPERIMENTS in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
            del sys.modules[name]


@pytest.fixture
def printed(module, capsys):
    """{claim: ({part: its mean}, verdict)} of the claims of a module, in short."""

    def run(name, *claims):
        module(name).main(["--quick", "--claims", *claims])
        found, parts = {}, {}
        for line in capsys.readouterr().out.splitlines():
            if match := PART.fullmatch(line):
                parts[match[1]] = float(match[2])
            elif match := re.match(r"(C\d+) verdict: (\w+) ", line):
                found[match[1]], parts = (parts, match[2]), {}
        return found

    return run


@pytest.mark.slow
def test_runs_start_where_they_are_told(module):
    starts, sweeps = module("starts"), module("sweeps")
    digits = data.load_digits(8).take(np.arange(96))
    parts = sweeps.splits(digits, (48, 24, 24), 2)
    net = mlp((5,))
    first = starts.drawn(net, parts, [Constant(0.2), None])
    kernel = first[0]["dense1"]["kernel"]
    assert kernel.shape == (2, 2, 64, 5)
    np.testing.assert_array_equal(kernel[0], np.float32(0.2))
    usual, _ = jax.jit(lambda key: init(net, key, (8, 8, 1)))(jax.random.key(1))
    np.testing.assert_allclose(kernel[1, 1], usual["dense1"]["kernel"], rtol=1e-6)

    found = starts.trained(net, first, [0.0, 0.3], parts, 3, 16)
    assert found.valid.shape == found.test.shape == found.loss.shape == (2, 2)
    np.testing.assert_array_equal(found.params["dense1"]["kernel"][0], kernel[0])  # at rate 0
    sgd = module("optax").sgd
    run = train.make_run(net, losses.softmax_cross_entropy, sgd, epochs=3, batch_size=16)
    rows = [np.asarray(part.rows[1]) for part in parts]
    assert len(set(np.concatenate(rows))) == 96
    of_train, valid, test = (digits.take(r) for r in rows)
    start = jax.tree.map(lambda a: a[1, 1], first)
    params, history = jax.jit(run)(
        jax.random.key(1), of_train, {"learning_rate": 0.3}, initial=start
    )
    assert found.loss[1, 1] == pytest.approx(float(history["loss"][-1]), rel=1e-4)
    logits, _ = apply(net, params, {}, jnp.concatenate([valid.inputs, test.inputs]))
    right = np.asarray(logits).argmax(-1) == np.concatenate([valid.targets, test.targets])
    wanted = 100 * (1 - right.reshape(2, 24).mean(1))
    np.testing.assert_allclose([found.valid[1, 1], found.test[1, 1]], wanted, atol=1e-3)


def test_scaled_starts(module):
    scaled = module("claims_initialisation").scaled
    start = {
        "dense1": {"kernel": jnp.ones((1, 2, 3)), "bias": jnp.ones((1, 2))},
        "output": {"kernel": jnp.ones((1, 2, 3))},
    }
    found, state = scaled((start, {}), (0.1, 10.0))
    assert state == {}
    np.testing.assert_allclose(found["dense1"]["kernel"][:, 0, 0], [0.1, 10])
    np.testing.assert_array_equal(found["dense1"]["bias"], np.ones((2, 2)))
    np.testing.assert_array_equal(found["output"]["kernel"], np.ones((2, 2, 3)))


def test_dead_units_are_counted(module):
    """Of three units one is dead, one is alive for a single example of the training part."""
    activations, sweeps = module("claims_activations"), module("sweeps")
    starts = module("starts")
    inputs = np.zeros((6, 2), np.float32)
    inputs[4] = 1  # not in the training part of either seed below
    dataset = data.Dataset(inputs, np.zeros(6, np.int32))
    parts = sweeps.splits(dataset, (4, 1, 1), 1)
    rows = jnp.array([[0, 1, 2, 4]])
    parts = parts._replace(train=module("dataclasses").replace(parts.train, rows=rows))
    kernel = jnp.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])[None, None]
    bias = jnp.array([1.0, -1.0, -2.0])[None, None]
    none = np.zeros((1, 1))
    ends = starts.Ends(none, none, none, {"dense0": {"kernel": kernel, "bias": bias}})
    np.testing.assert_allclose(activations.dead(ends, parts), [[100 / 3]], rtol=1e-6)


def test_the_time_of_a_call_is_a_median(module, monkeypatch):
    activations = module("claims_activations")
    clock = iter(np.cumsum([9, 0, 1, 0, 1, 0, 5, 0, 1, 0, 1, 0, 1, 0, 1]))
    monkeypatch.setattr(activations, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    found = activations.timed({"one": lambda: 0}, 1)
    np.testing.assert_array_equal(found["one"], [1000.0])


def test_equal_softmax_regression_and_the_gain_of_relu(printed):
    parts, verdict = printed("claims_initialisation", "C1")["C1"]
    assert (len(parts), verdict) == (2, "false")
    parts, verdict = printed("claims_activations", "C21")["C21"]
    assert verdict == "depends"
    means = [parts[f"gain {gain}: ReLU explodes, growth - 5"] for gain in ("1", "sqrt 2", "2", "4")]
    np.testing.assert_allclose(means, [-15, -5, 5, 25], atol=0.3)  # 20 log2(gain / sqrt 2) - 5


@pytest.mark.slow
def test_initialisation(printed):
    found = printed("claims_initialisation", "C2", "C5", "C8", "C82")
    assert {claim: len(parts) for claim, (parts, _) in found.items()} == {
        "C2": 18,
        "C5": 12,
        "C8": 6,
        "C82": 6,
    }
    equal, deep = found["C2"][0], found["C82"][0]
    zero = [equal[f"{n} x relu, all 0, rate 1: error - 85"] for n in (1, 2)]
    assert zero[0] == zero[1]  # only the last bias learns, behind one layer as behind two
    for start in ("N(0, 1)", "N(0, 0.01)"):
        assert deep[f"30 layers, {start}: fails, error - 50"] > 20
    assert found["C8"][0]["batch norm, rate 0.01, weights x 10: 2 - error added, %"] < 0


@pytest.mark.slow
def test_activations(printed):
    found = printed("claims_activations", "C14", "C22", "C23")
    assert {claim: len(parts) for claim, (parts, _) in found.items()} == {
        "C14": 6,
        "C15": 6,
        "C22": 6,
        "C23": 3,
    }
    buried = [mean for part, mean in found["C14"][0].items() if part.startswith("bias of -10")]
    assert buried == [1, 1, 1]  # the dead stay dead
