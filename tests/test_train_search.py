"""Grids, random and narrowing searches, successive halving, Bayesian search, architectures."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import models, optim, train
from jaxd2l.layers import BatchNorm, Dense, Dropout, Serial
from jaxd2l.ops import losses
from jaxd2l.train.selection.halving import budgets

KEY = jax.random.key(0)
EPOCHS = 4


@pytest.fixture(scope="module")
def line():
    x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
    return x, 3 * x


@pytest.fixture(scope="module")
def points():
    x = np.random.RandomState(0).randn(10, 3).astype(np.float32)
    return jnp.asarray(x), jnp.asarray((x[:, 0] > 0).astype(np.int32))


@pytest.fixture(scope="module")
def regression():
    """One step an epoch from zero: after it the kernel is known in closed form."""
    return train.make_run(
        models.linear_regression(), losses.squared_loss, optim.sgd, epochs=1, batch_size=8
    )


def noisy_run(epochs=EPOCHS):
    """With everything that must go on where it stopped: moments, schedule, statistics, dropout."""
    # Without a bias, which batch norm takes out: its gradient would be rounding, and Adam's steps
    # on it as long as any.
    hidden = Dense("a", 4, bias=False)
    net = Serial([hidden, BatchNorm("bn"), Dropout("drop", 0.5), Dense("b", 2)])

    def optimizer(learning_rate):
        return optax.adam(optim.factor(learning_rate, 0.9))

    return train.make_run(net, losses.softmax_cross_entropy, optimizer, epochs=epochs, batch_size=4)


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.smoke
def test_grid_has_all_combinations_and_reshapes_back():
    rates, decays, widths = [0.1, 0.2, 0.3], [0.0, 1.0], [1, 2]
    settings = train.grid({"rate": rates, "decay": decays, "width": widths})
    met = {tuple(np.float64([v[i] for v in settings.values()]).round(3)) for i in range(12)}
    assert met == {(r, d, w) for r in rates for d in decays for w in widths}
    shaped = settings["rate"].reshape(3, 2, 2)
    np.testing.assert_allclose(shaped, np.broadcast_to(np.array(rates)[:, None, None], (3, 2, 2)))
    assert settings["width"].dtype == jnp.int32


def test_random_settings_have_the_distribution_of_their_range():
    """Kolmogorov-Smirnov distance to the uniform below the 0.1 % point, 1.95 / sqrt(n)."""
    n = 2000
    ranges = {"rate": train.LogUniform(1e-4, 10.0), "drop": train.Uniform(0.2, 0.6)}
    settings = train.random_search(ranges, n, KEY)
    log = (np.log10(np.asarray(settings["rate"], np.float64)) + 4) / 5
    linear = (np.asarray(settings["drop"], np.float64) - 0.2) / 0.4
    for values in (log, linear):
        distance = np.abs(np.sort(values) - (np.arange(n) + 0.5) / n).max()
        assert distance < 1.95 / np.sqrt(n)
    assert abs(np.corrcoef(log, linear)[0, 1]) < 4 / np.sqrt(n)
    alone = train.random_search({"rate": ranges["rate"]}, n, KEY)
    np.testing.assert_array_equal(alone["rate"], settings["rate"])


def test_a_run_goes_on_where_a_shorter_one_stopped(points):
    """Bit for bit, also for a padded part of the data, whose epochs have fewer steps."""
    rate = {"learning_rate": 0.1}
    part = train.Part(*points, jnp.arange(10), jnp.array(7), 7)

    @jax.jit
    def both(part):
        full = noisy_run().train(KEY, part, rate, valid=points)
        start = noisy_run(1).train(KEY, part, rate, valid=points)
        return full, noisy_run().train(KEY, part, rate, valid=points, before=start)

    jax.tree.map(np.testing.assert_array_equal, *both(part))


def test_going_on_says_what_is_wrong(line, regression):
    rate = {"learning_rate": 0.1}
    before = regression.train(KEY, line, rate)
    with pytest.raises(ValueError, match="give initial or before, not both"):
        regression.train(KEY, line, rate, initial=(before.params, {}), before=before)
    two = dataclasses.replace(regression, epochs=2)
    with pytest.raises(ValueError, match="the same figures as the run"):
        two.train(KEY, line, rate, valid=line, before=before)
    long = before._replace(history={"loss": jnp.zeros(5)})
    with pytest.raises(ValueError, match="5 epochs behind it, more than the 2"):
        two.train(KEY, line, rate, before=long)


def test_coarse_to_fine_narrows_around_the_best(line, regression):
    """One full step of rate r on 1/2 (w - 3)^2 x^2: best at r = 1 / mean(x^2), known exactly."""
    x, _ = line
    ranges = {"learning_rate": train.LogUniform(1e-2, 1e2)}
    tried = train.coarse_to_fine(regression, ranges, line, key=KEY, valid=line, points=5, rounds=5)
    exact = 1 / float((x**2).mean())
    logs = np.log10(tried.hypers["learning_rate"]).reshape(5, 5)
    np.testing.assert_allclose(logs[0], [-2, -1, 0, 1, 2], atol=1e-5)
    widths = logs[:, -1] - logs[:, 0]
    np.testing.assert_allclose(widths, 4 / 2.0 ** np.arange(5), rtol=1e-4)
    spacing = widths[-1] / 4
    assert abs(np.log10(tried.best["learning_rate"] / exact)) <= spacing
    assert tried.best_score == tried.scores.min()
    np.testing.assert_array_equal(tried.rounds, np.repeat(np.arange(5), 5))


def test_narrowing_stays_within_the_ranges(line, regression):
    ranges = {"learning_rate": train.Uniform(0.01, 0.1)}  # the best is far above
    tried = train.coarse_to_fine(regression, ranges, line, key=KEY, valid=line)
    rates = tried.hypers["learning_rate"]
    assert tried.best["learning_rate"] == pytest.approx(0.1)
    assert rates[5:].min() == pytest.approx(0.1 - 0.0225)
    assert rates.max() == pytest.approx(0.1)


def test_rounds_of_halving():
    for count, epochs, eta in [(27, 27, 3), (10, 100, 2), (5, 3, 4), (1, 9, 2), (16, 2, 2)]:
        rounds = budgets(count, epochs, eta)
        assert rounds[0][0] == count
        assert rounds[-1][1] == epochs
        assert [n for n, _ in rounds] == [count // eta**i for i in range(len(rounds))]
        assert [e for _, e in rounds] == [epochs // eta**i for i in range(len(rounds))][::-1]
        assert rounds[-1][0] < eta or rounds[0][1] < eta  # no further round was possible


def check_survivors(run, points, key, rates, rounds):
    """`rounds` as (count, epochs): the dropped are the worst when they stopped, by full runs."""
    rates = {"learning_rate": jnp.array(rates)}
    h = len(rates["learning_rate"])
    found = train.successive_halving(run, rates, points, key=key, valid=points, eta=2)
    full = train.sweep(run, rates, points, key=key, valid=points)
    history = np.asarray(full.history["valid_loss"]).reshape(h, -1, run.epochs).mean(1)
    alive, epochs, last = np.arange(h), np.full(h, 1), 1
    for count, epoch in rounds[1:]:
        alive = np.sort(alive[np.argsort(history[alive, last - 1])[:count]])
        epochs[alive] = last = epoch
    np.testing.assert_array_equal(found.epochs, epochs)
    np.testing.assert_allclose(found.scores, history[np.arange(h), epochs - 1], rtol=1e-5)
    np.testing.assert_array_equal(found.survivors, alive)
    close(found.outcome, jax.tree.map(lambda a: np.asarray(a)[alive], full), rtol=2e-5, atol=1e-6)
    assert found.best == {"learning_rate": pytest.approx(float(rates["learning_rate"][alive[0]]))}


def test_survivors_of_halving_equal_their_full_runs(points):
    net, loss = models.softmax_regression(2), losses.softmax_cross_entropy
    run = train.make_run(net, loss, optim.momentum, epochs=2, batch_size=4)
    check_survivors(run, points, jax.random.split(KEY, 2), [1e-4, 0.1, 1e-3], [(3, 1), (1, 2)])


@pytest.mark.slow
def test_survivors_equal_their_full_runs_with_moments_schedule_statistics_and_dropout(points):
    rates = [1e-4, 0.1, 1e-3, 0.03, 1e-2]
    check_survivors(noisy_run(), points, KEY, rates, [(5, 1), (2, 2), (1, 4)])


def test_runs_that_diverge_are_dropped_first(line):
    run = train.make_run(
        models.linear_regression(), losses.squared_loss, optim.sgd, epochs=2, batch_size=1
    )
    rates = {"learning_rate": [1e20, 0.1, 1e20, 0.2]}
    found = train.successive_halving(run, rates, line, key=KEY, valid=line, eta=2)
    np.testing.assert_array_equal(np.isinf(found.scores), [True, False, True, False])
    assert found.epochs.tolist() == [1, 2, 1, 2]


def test_bayesian_search_is_deterministic_and_closes_in(line, regression):
    ranges = {"learning_rate": train.LogUniform(1e-4, 1e4)}

    def search(seed):
        return train.bayesian_search(
            regression, ranges, line, key=KEY, valid=line, rounds=6, batch=8, seed=seed
        )

    tried, again, other = search(0), search(0), search(1)
    np.testing.assert_array_equal(tried.hypers["learning_rate"], again.hypers["learning_rate"])
    assert (tried.hypers["learning_rate"] != other.hypers["learning_rate"]).any()
    exact = 1 / float((line[0] ** 2).mean())
    late = [t.hypers["learning_rate"][t.rounds >= 3] for t in (tried, other, search(2))]
    near = np.abs(np.log10(np.concatenate(late) / exact)) < 1
    assert near.mean() > 0.4  # two decades of eight: 0.25 by chance
    sweeps = [label for label in regression.programs if "sweep" in str(label)]
    assert len(sweeps) <= 3  # all rounds and seeds share one; others stem from other tests


def test_bayesian_search_names_its_extra(line, regression, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxd2l\[search\]'"):
        train.bayesian_search(
            regression, {"learning_rate": train.Uniform(0, 1)}, line, key=KEY, valid=line
        )


@pytest.fixture(scope="module")
def search(line):
    x, _ = line
    settings = {"learning_rate": [0.001, 0.3]}

    def tried(most_parameters=20, **options):
        def make(depth, width):
            net = models.mlp((width,) * depth, 1, "tanh")
            return train.make_run(net, losses.squared_loss, optim.sgd, epochs=2, batch_size=4)

        return train.search_architectures(
            make,
            {"depth": [1, 2], "width": [2, 8]},
            (x, x**3),
            key=KEY,
            valid=(x, x**3),
            hyper=settings,
            most_parameters=most_parameters,
            **options,
        )

    return tried


def test_architectures_by_cost_and_score(search):
    rows = search()
    assert {(r.choice["depth"], r.choice["width"]) for r in rows} == {(1, 2), (2, 2)}
    for row in rows:  # dense layers with biases, by hand
        d, w = row.choice["depth"], row.choice["width"]
        assert row.parameters == 2 * w + (d - 1) * (w * w + w) + w + 1
        assert row.macs == w + (d - 1) * w * w + w
        assert row.epochs == 2
        assert row.hyper["learning_rate"] in (pytest.approx(0.001), pytest.approx(0.3))
    scores = [row.score for row in rows]
    assert scores == sorted(scores)


def test_the_pareto_front_by_brute_force():
    random = np.random.RandomState(0)
    for _ in range(20):
        costs, scores = random.randint(1, 8, 12), random.randint(1, 8, 12)
        rows = [
            train.Architecture({"n": i}, int(c), 0, float(s), {}, 1)
            for i, (c, s) in enumerate(zip(costs, scores, strict=True))
        ]
        front = {(r.parameters, r.score) for r in train.pareto_front(rows)}
        best = {
            (c, s)
            for c, s in zip(costs, scores, strict=True)
            if not (((costs <= c) & (scores <= s)) & ((costs < c) | (scores < s))).any()
        }
        assert front == best


@pytest.mark.slow
def test_halving_of_architectures_equals_the_full_table_for_those_left(search):
    full = {tuple(r.choice.values()): r for r in search(30)}
    halved = search(30, eta=2)
    assert [row.epochs for row in halved] == [2, 1, 1]
    best = halved[0]
    assert best.score == pytest.approx(full[tuple(best.choice.values())].score, rel=1e-5)


def test_searches_say_what_is_wrong(line, regression, search):
    with pytest.raises(ValueError, match=r"no architecture has at most 3 parameters.*has 7"):
        search(most_parameters=3)
    with pytest.raises(ValueError, match="grid: give each hyper-parameter a list"):
        train.grid({"learning_rate": 0.1})
    with pytest.raises(ValueError, match="low must be below high"):
        train.Uniform(1.0, 0.0)
    with pytest.raises(ValueError, match="LogUniform: low must be above 0"):
        train.LogUniform(0.0, 1.0)
    with pytest.raises(TypeError, match="coarse_to_fine: ranges must be a dict"):
        train.coarse_to_fine(regression, {"a": [1, 2]}, line, key=KEY, valid=line)
    with pytest.raises(ValueError, match="successive_halving: no hyper-parameter is an array"):
        train.successive_halving(regression, {"learning_rate": 0.1}, line, key=KEY, valid=line)
    with pytest.raises(ValueError, match=r"score must give one number for each run"):
        train.successive_halving(
            regression,
            {"learning_rate": [0.1, 0.2]},
            line,
            key=KEY,
            valid=line,
            score=lambda history: history["valid_loss"].mean(),
        )
