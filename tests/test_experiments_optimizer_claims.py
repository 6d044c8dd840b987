"""The experiments on batch sizes, optimisers, local minima and clipping: what they share, what they
make of given figures, and short runs: sweeps.py, claims_batch_size.py, claims_optimizers.py,
claims_descent.py."""

import importlib
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import apply, data, optim, train
from jaxd2l.models import mlp
from jaxd2l.ops import losses

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


def parts_of(text):
    """Whether each part of the claims holds, by its name."""
    found = re.findall(r"^  (.*?)  +\S+ \[\S+ \S+\]  (yes|no|open)$", text, re.M)
    assert found, text
    return dict(found)


@pytest.mark.smoke
def test_each_seed_has_its_own_disjoint_parts(module):
    sweeps = module("sweeps")
    parts = sweeps.splits(data.load_digits(8), (60, 30, 20), 3)
    assert [part.rows.shape for part in parts] == [(3, 60), (3, 30), (3, 20)]
    rows = np.concatenate([part.rows for part in parts], axis=1)
    assert all(len(set(row.tolist())) == 110 for row in rows)
    assert not np.array_equal(np.sort(rows[0]), np.sort(rows[1]))
    assert sweeps.FULL.epochs(20) == 20
    assert sweeps.QUICK.epochs(20) == 2
    size, claims = sweeps.arguments("doc", ["--quick", "--claims", "C2"], ("C1", "C2"))
    assert (size, claims) == (sweeps.QUICK, ("C2",))


def test_a_swept_run_is_a_run_of_its_own(module):
    sweeps = module("sweeps")
    digits = data.load_digits(8)
    parts = sweeps.splits(digits, (64, 32, 48), 2)
    net, rates = mlp((8,)), [0.0, 0.3]
    found = sweeps.swept(sweeps.classifier(net, optim.sgd, 3), {"learning_rate": rates}, parts)
    assert found.train.shape == found.valid.shape == found.test.shape == found.loss.shape == (2, 2)
    assert found.history["valid_accuracy"].shape == (2, 2, 3)
    assert found.best == 1
    run = train.make_run(net, losses.softmax_cross_entropy, optim.sgd, epochs=3, batch_size=32)
    mine, seen, test = (digits.take(np.asarray(part.rows[1])) for part in parts)
    params, history = jax.jit(run)(jax.random.key(1), mine, {"learning_rate": 0.3}, valid=seen)
    np.testing.assert_allclose(found.history["loss"][1, 1], history["loss"], rtol=1e-4)
    np.testing.assert_allclose(found.history["valid_loss"][1, 1], history["valid_loss"], rtol=1e-4)
    logits, _ = apply(net, params, {}, jnp.asarray(test.inputs))
    wrong = 100 * float((logits.argmax(-1) != jnp.asarray(test.targets)).mean())
    assert found.test[1, 1] == pytest.approx(wrong, abs=1e-4)
    kernel = found.params["dense1"]["kernel"]
    np.testing.assert_allclose(kernel[1, 1], params["dense1"]["kernel"], rtol=1e-3, atol=1e-5)


def test_larger_batches_get_less_far_in_an_epoch(module, capsys):
    module("claims_batch_size").main(["--quick", "--claims", "C44", "C45"])
    text = capsys.readouterr().out
    assert dict(VERDICT.findall(text))["C44"] == "true"
    parts = parts_of(text)
    assert parts["16, 0.2 to 256, 3.2: 1 - difference"] == "no"  # the linear rule has an end


@pytest.mark.slow
def test_beyond_the_edge_of_stability_a_falling_rate_helps_and_a_growing_batch_does_not(module):
    batch_size = module("claims_batch_size")
    assert (batch_size.regression(batch_size.lowered, 2.2, 2) < -2).all()
    assert (batch_size.regression(batch_size.grown, 2.2, 2) > 20).all()


@pytest.mark.parametrize(("grown", "wanted"), [(3.0, "true"), (5.0, "depends")])
def test_growing_batches_must_do_what_falling_rates_do(module, monkeypatch, capsys, grown, wanted):
    batch_size = module("claims_batch_size")

    def swept(run, hypers, parts):
        optimizer = run.optimizer.func
        error = grown if optimizer is batch_size.grown else 3.0
        values = np.full((2, 3), error) + 1e-3 * np.arange(3)
        assert run.optimizer.keywords["every"] * 3 == 64 * run.epochs
        return module("sweeps").Found(*4 * [values], {}, None)

    monkeypatch.setattr(batch_size, "swept", swept)
    monkeypatch.setattr(batch_size, "regression", lambda *_: np.zeros(3))
    batch_size.main(["--quick", "--claims", "C47"])
    assert VERDICT.findall(capsys.readouterr().out) == [("C47", wanted)]


def test_noise_carries_over_the_barrier_and_a_mean_of_16_does_not(module):
    batch_size = module("claims_batch_size")
    share = jax.jit(batch_size.escaped, static_argnums=1)
    assert float(share(jax.random.key(0), 1)) > 0.9
    assert float(share(jax.random.key(0), 16)) == 0.0


@pytest.mark.slow
def test_clipping_prevents_nan_as_long_as_the_gradient_is_finite(module, capsys):
    module("claims_descent").main(["--quick", "--claims", "C64"])
    text = capsys.readouterr().out
    stay = dict(re.findall(r"^  (.*): runs whose parameters stay finite, % +(\S+) \[", text, re.M))
    assert stay == {
        "relu, 50 steps, plain": "0",
        "relu, 50 steps, clipped": "100",
        "tanh, 50 steps, plain": "100",
        "relu, 250 steps, clipped": "0",
        "relu, 250 steps, clipped, bad steps left out": "100",
    }
    assert dict(VERDICT.findall(text)) == {"C64": "depends"}


@pytest.mark.slow
def test_both_methods_end_in_local_minima_of_a_small_network_only(module, monkeypatch):
    descent = module("claims_descent")
    monkeypatch.setattr(descent, "STARTS", 32)
    small = {method: descent.minima(2, method, 1, 1000) for method in ("SGD", "Adam")}
    lowest = min(values.min() for values, _ in small.values())
    for values, index in small.values():
        stuck = values > lowest + descent.STUCK
        assert 0.1 < stuck.mean() < 0.7
        assert (index[stuck] == 0).mean() > 0.9  # minima, not saddles
    large, _ = descent.minima(16, "Adam", 1, 1000)
    assert (large < lowest + descent.STUCK).all()


# What is made of the figures, without training


def found_of(module, rates, seeds, error, epochs_needed=3, epochs=15):
    """Runs that all end with `error` percent wrong and reach the level after the given epochs."""
    history = np.full((len(rates), seeds, epochs), 0.5)
    history[..., epochs_needed - 1 :] = 0.99
    jitter = np.arange(seeds) * 1e-3
    values = np.asarray(error, float).reshape(-1, 1) * np.ones((len(rates), 1)) + jitter
    figures = {"valid_accuracy": history - 1e-4 * jitter[None, :, None]}
    return module("sweeps").Found(values, values, values, values, figures, None)


@pytest.mark.parametrize(
    ("claim", "good", "bad"), [("C55", "true", "false"), ("C63", "true", "depends")]
)
def test_verdicts_follow_from_the_runs(module, monkeypatch, capsys, claim, good, bad):
    optimizers = module("claims_optimizers")
    for better, wanted in (("new", good), ("old", bad)):

        def runs(method, net, batch, rates, size, better=better):
            new = method in ("Nesterov", "RAdam")
            favoured = new == (better == "new")
            error = np.where(np.asarray(rates) <= (0.1 if favoured else 0.03), 3.0, 50.0)
            return found_of(module, rates, size.seeds, error, 2 if favoured else 4)

        monkeypatch.setattr(optimizers, "runs", runs)
        optimizers.main(["--quick", "--claims", claim])
        assert VERDICT.findall(capsys.readouterr().out) == [(claim, wanted)]


def test_warm_up_and_the_newer_methods_are_judged_at_every_part(module, monkeypatch, capsys):
    optimizers = module("claims_optimizers")

    def runs(method, net, batch, rates, size):
        error = {"warm Momentum": 5.0, "warm Adam": 5.0, "Ranger": 2.0}.get(method, 9.0)
        return found_of(module, rates, size.seeds, error, 2 if method == "Ranger" else 4)

    monkeypatch.setattr(optimizers, "runs", runs)
    optimizers.main(["--quick", "--claims", "C62", "C65"])
    text = capsys.readouterr().out
    assert dict(VERDICT.findall(text)) == {"C62": "depends", "C65": "true"}
    parts = parts_of(text)
    assert parts["epochs that Ranger saves"] == parts["Ranger: test error, Adam's - its"] == "yes"
    assert parts["epochs that RAdam saves"] == "no"


def test_the_largest_rate_that_works_is_found_seed_by_seed(module):
    optimizers = module("claims_optimizers")
    train_error = np.array([[1.0, 50.0], [2.0, 60.0], [70.0, 70.0]])
    found = module("sweeps").Found(*4 * [train_error], {}, None)
    rates = (0.001, 0.01, 0.1)
    np.testing.assert_allclose(optimizers.largest(found, rates), [-2.0, -3.0])
    np.testing.assert_allclose(optimizers.working(found), [1.0, 0.0])


def test_a_half_blind_network_sees_all_pixels_later(module):
    model = module("claims_optimizers").half_blind(mlp((8,)), 2)
    params, state = model.init(jax.random.key(0), (8, 8, 1))
    x = jnp.asarray(data.load_digits(8).inputs[:2])
    upper = jnp.concatenate([x[:, :4], jnp.zeros_like(x[:, 4:])], axis=1)
    wanted = [apply(mlp((8,)), params, {}, seen)[0] for seen in (upper, upper, x)]
    for step, logits in enumerate(wanted):
        assert int(state["steps"]) == step
        got, state = model.apply(params, state, x, train=True)
        np.testing.assert_allclose(got, logits, rtol=1e-5)
    np.testing.assert_allclose(model.apply(params, state, x, train=False)[0], wanted[2], rtol=1e-5)
