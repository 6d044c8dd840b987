"""experiments/transformer_norms.py: its parts against plain loops, and that it runs."""

import importlib
import itertools
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
from jaxd2l.layers import BatchNorm, Dense, Embedding, LayerNorm, Repeat, Serial
from jaxd2l.ops import losses

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
NAMES = ("transformer_norms", "text_classifiers", "report")


@pytest.fixture
def norms(monkeypatch):
    """The experiment, imported as a script imports its neighbours; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    yield importlib.import_module("transformer_norms")
    for name in NAMES:
        sys.modules.pop(name, None)


def test_batches_hold_every_example_once_an_epoch(norms):
    order = norms.shuffled(10, 4, 5, range(2))  # two epochs of 10 are five batches of 4
    assert order.shape == (2, 5, 4)
    for run in order:
        assert np.bincount(run.ravel()).tolist() == [2] * 10
    assert (order[0] != order[1]).any()

    lengths = np.random.RandomState(0).randint(1, 40, 22)
    order = norms.of_like_length(lengths, 4, 10, range(2))
    assert order.shape == (2, 10, 4)
    for run in order:
        for epoch in (run[:5].ravel(), run[5:].ravel()):  # two of 22 are left out
            assert len(set(epoch)) == 20
        spans = sorted((lengths[b].min(), lengths[b].max()) for b in run[:5])
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
        assert sorted(spans) != [(lengths[b].min(), lengths[b].max()) for b in run[:5]]


@pytest.fixture
def tokens():
    draw = np.random.RandomState(1)
    return data.Dataset(draw.randint(0, 5, (9, 32)), draw.randint(0, 5, (9, 32)))


FAST = {"xla_backend_optimization_level": 0}  # to compile
NET = Serial([Embedding("embedding", 5, 3), BatchNorm("bn"), Dense("output", 5)])


def test_runs_are_steps_of_adam_from_every_seed(norms, tokens):
    order = norms.shuffled(9, 3, 2, range(2))
    rates, seeds = norms.runs_of([0.01, 0.1], 2)
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.1, 0.1])
    assert seeds.tolist() == [0, 1, 0, 1]
    every = norms.trained(
        NET, tokens.inputs, tokens.targets, rates, seeds, np.tile(order, (2, 1, 1))
    )
    optimizer, loss = optax.adam(0.1), losses.softmax_cross_entropy
    update = jax.jit(train.make_update(NET, loss, optimizer, {}), compiler_options=FAST)
    wanted = train.start(NET, optimizer, jax.random.key(1), (32,), {})
    for at in order[1]:
        batch = data.Batch(tokens.inputs[at], tokens.targets[at], np.ones(3, bool), at)
        wanted = update(wanted, batch)
    params, state = wanted.params, wanted.state
    found = jax.tree.map(lambda a: a[3], every)  # the second rate, the second seed
    for ours, theirs in zip(*map(jax.tree.leaves, (found, (params, state))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)

    # what is measured: the running statistics, or those of each batch
    x, y = jnp.asarray(tokens.inputs), tokens.targets
    one = jax.tree.map(lambda a: a[3:], every)
    whole = loss(apply(NET, params, state, x)[0], y)
    assert norms.measured(NET, one, tokens, 9)[0] == pytest.approx(float(whole.mean()), rel=1e-4)
    parts = [
        loss(apply(NET, params, state, x[i : i + 4], train=True)[0], y[i : i + 4]).mean()
        for i in (0, 4)  # the short last batch is left out
    ]
    own = norms.measured(NET, one, tokens, 4, training=True)[0]
    assert own == pytest.approx(float(np.mean(parts)), rel=1e-4)
    assert abs(own - norms.measured(NET, one, tokens.take(np.arange(8)), 4)[0]) > 1e-3


@pytest.mark.parametrize("norm", [BatchNorm, LayerNorm])
def test_later_letters_leak_through_batch_norm_only(norms, tokens, norm):
    net = Serial([Embedding("embedding", 5, 3), norm("norm"), Dense("output", 5)])
    run = jax.tree.map(lambda a: a[None], init(net, jax.random.key(0), (32,)))
    moved = norms.leak(net, run, tokens, 3)
    assert moved.shape == (1,)
    assert moved[0] > 0.01 if norm is BatchNorm else moved[0] < 1e-6


def test_bodies(norms):
    for first in (True, False):
        parts = norms.body(7, 3, 9, LayerNorm, causal=True, norm_first=first)
        assert isinstance(parts[2], Repeat)
        assert parts[2].times == 3
        assert isinstance(parts[-1], LayerNorm if first else Repeat)


@pytest.mark.slow
def test_transformer_norms(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    name = "transformer_norms.py"
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--seeds", "2"])
    jax.config.update("jax_disable_most_optimizations", True)  # to compile
    try:
        runpy.run_path(str(EXPERIMENTS / name), run_name="__main__")
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
        for neighbour in NAMES:
            sys.modules.pop(neighbour, None)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("AT6  ", "pre-norm  "))]
    verdicts = [line for line in lines if " verdict: " in line]
    assert [line.split()[0] for line in verdicts] == ["AT6", "pre-norm"]
    value = r"(-?[\d.]+(?:e[+-]\d+)?)"
    parts = [re.fullmatch(rf"  (\S.*?) +{value} \[{value}, {value}\](.*)", line) for line in lines]
    found = {part[1]: (float(part[2]), part[5].strip()) for part in parts if part}
    assert sum(word in ("yes", "no", "open") for _, word in found.values()) == 6 + 3
    loss = "2 windows, {} norm (rate {}): validation loss, nats"
    rates = [
        re.search(r"rate ([\d.e-]+)", name)[1] for name in found if name.startswith("2 windows, la")
    ]
    assert rates
    layer = found[loss.format("layer", rates[0])][0]
    assert 2.5 < layer < np.log(28) + 0.3
    gap = found["2 windows, evaluation: batch norm - layer norm, nats"][0]
    other = next(v for n, (v, _) in found.items() if re.match(r"2 windows, batch .*: valid", n))
    assert gap == pytest.approx(other - layer, abs=2e-3)
