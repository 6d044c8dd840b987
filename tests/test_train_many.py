"""Ensembles, sweeps and cross-validation: one mapped program equals separate runs, each way."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import data, models, train
from jaxd2l.layers import BatchNorm, Conv, Dense, Dropout, Flatten, Serial
from jaxd2l.ops import losses
from jaxd2l.train import mapping
from jaxd2l.train.run import part_of, shuffled

N = 11


@pytest.fixture(scope="module")
def points():
    random = np.random.RandomState(0)
    x = random.randn(N, 4).astype(np.float32)
    return data.Dataset(x, (x[:, 0] > 0).astype(np.int32))


NET = Serial([Dense("a", 3), BatchNorm("bn"), Dropout("drop", 0.5), Dense("output", 2)])


def make(net=None, **changes):
    """A run of softmax regression, or of a network with statistics and random masks."""
    settings = {"epochs": 2, "batch_size": 3, **changes}
    net = models.softmax_regression(2) if net is None else net
    return train.make_run(net, losses.softmax_cross_entropy, optax.sgd, **settings)


def close(a, b, tolerance=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance), a, b)


def member(tree, *index):
    return jax.tree.map(lambda a: a[index], tree)


KEYS = jax.random.split(jax.random.key(3), 2)
RATES = {"learning_rate": np.array([0.01, 0.1, 0.5])}


@pytest.mark.smoke
def test_an_ensemble_is_its_separate_runs_however_it_is_mapped(points):
    run, hyper = make(NET), {"learning_rate": 0.1}
    train_one = jax.jit(run.train)
    alone = [train_one(key, points, hyper) for key in KEYS]
    for how in mapping.WAYS:
        together = train.ensemble(run, KEYS, points, hyper, how=how)
        for i, one in enumerate(alone):
            close(member(together, i), one)
    assert not np.allclose(*together.params["a"]["kernel"])


def test_a_sweep_with_several_keys_has_the_axes_of_both(points):
    run = make(epochs=1)
    ways = [
        train.sweep(run, RATES, points, key=KEYS, valid=points, how=how) for how in mapping.WAYS
    ]
    assert ways[0].history["valid_loss"].shape == (3, 2, 1)  # rates, keys, epochs
    one = jax.jit(run.train)(KEYS[1], points, {"learning_rate": 0.5}, valid=points)
    for outcome in ways:
        close(member(outcome, 2, 1), one)
    close(train.ensemble(run, KEYS, points, RATES, valid=points), ways[0])


def test_history_of_validation_is_the_evaluation_after_each_epoch(points):
    run = make(NET)
    outcome = jax.jit(run.train)(KEYS[0], points, {"learning_rate": 0.1}, valid=points)
    found = run.evaluate(outcome.params, outcome.state, points)
    wanted = train.evaluate(
        run.model, outcome.params, outcome.state, points, loss=run.loss, batch_size=4
    )
    for name, value in wanted.items():
        assert outcome.history[f"valid_{name}"][-1] == pytest.approx(value, rel=1e-5)
        assert found[name] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("how", mapping.WAYS)
def test_each_fold_is_the_run_on_its_examples_alone(points, how):
    """N = 11 in 4 folds: parts of 3, 3, 3 and 2, so training parts are padded."""
    run, hyper, key = make(NET if how == "vmap" else None), {"learning_rate": 0.1}, KEYS[0]
    folds = train.cross_validate(run, points, 4, hyper, key=key, shuffle=5, how=how)
    train_one, evaluate = jax.jit(run.train), jax.jit(run.evaluate)
    sums = 0.0
    for i, fold in enumerate(data.k_folds(N, 4, 5)):
        seen, unseen = points.take(fold.train), points.take(fold.valid)
        one = train_one(key, seen, hyper, valid=unseen)
        close(member(folds.outcome, i), one)
        valid = evaluate(one.params, one.state, unseen)
        assert folds.valid["loss"][i] == pytest.approx(float(valid["loss"]), rel=1e-4)
        sums += float(valid["loss"]) * len(unseen)
    assert folds.mean["loss"] == pytest.approx(sums / N, rel=1e-4)


def test_a_fold_with_fewer_steps_takes_no_step_on_padding_alone(points):
    """10 examples in 4 folds train on 7, 7, 8 and 8: with batches of 7 that is 1 or 2 steps."""
    few, key = points.take(np.arange(10)), KEYS[0]
    net = models.softmax_regression(2)
    settings = {"epochs": 3, "batch_size": 7}
    run = train.make_run(net, losses.softmax_cross_entropy, optax.adam, **settings)
    hyper = {"learning_rate": 0.1}
    folds = train.cross_validate(run, few, 4, hyper, key=key)
    train_one = jax.jit(run.train)
    for i, fold in enumerate(data.k_folds(10, 4)):
        one = train_one(key, few.take(fold.train), hyper)
        close(member(folds.outcome.params, i), one.params)
        close(member(folds.outcome.opt_state, i), one.opt_state)  # Adam counts its steps


def test_every_example_is_validated_exactly_once(points):
    for k in (3, N):
        run = make(epochs=1)
        parts = train.cross_validate(run, points, k, RATES, key=KEYS[0], shuffle=1, how="map").parts
        rows = [r[:c] for r, c in zip(parts.rows.tolist(), parts.count.tolist(), strict=True)]
        assert sorted(itertools.chain(*rows)) == list(range(N))
        assert max(parts.count) - min(parts.count) <= 1


def test_folds_rates_and_keys_at_once(points):
    run = make()
    folds = train.cross_validate(run, points, 2, RATES, key=KEYS)
    close(folds, train.cross_validate(run, points, 2, RATES, key=KEYS, how="vmap"))
    assert folds.valid["accuracy"].shape == (2, 3, 2)
    assert folds.mean["accuracy"].shape == (3, 2)
    assert folds.outcome.history["valid_accuracy"].shape == (2, 3, 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convolutions", "sequences"])
def test_convolutions_and_sequences_are_mapped_too(kind):
    if kind == "convolutions":
        net = Serial([Conv("conv", 2, 3), Flatten(), Dense("output", 3)])
        images = np.random.RandomState(1).rand(6, 5, 5, 1).astype(np.float32)
        dataset = data.Dataset(images, np.arange(6) % 3)
    else:
        net = models.rnn_lm(5, 4)
        text = np.arange(31) % 5
        dataset = data.Dataset(text[:30].reshape(6, 5), text[1:].reshape(6, 5))
    run = make(net, batch_size=4)
    swept = train.sweep(run, RATES, dataset, key=KEYS[0], how="vmap")
    close(swept, train.sweep(run, RATES, dataset, key=KEYS[0]))
    close(member(swept, 1), jax.jit(run.train)(KEYS[0], dataset, {"learning_rate": 0.1}))


def test_what_does_not_fit_goes_in_chunks(points):
    run = make(models.mlp((2000,), 2), epochs=1, batch_size=N)
    rates = {"learning_rate": np.linspace(0.1, 0.5, 5)}
    whole = train.sweep(run, rates, points, key=KEYS[0], how="vmap")
    needed = mapping.memory_of(run.programs[next(iter(run.programs))])
    before = set(run.programs)
    chunked = train.sweep(run, rates, points, key=KEYS[0], how="vmap", memory=needed // 2)
    close(chunked, whole)
    (added,) = set(run.programs) - before
    assert added[0] == ("sweep", "map", 2)  # two runs at once
    assert mapping.memory_of(run.programs[added]) < 0.8 * needed


def test_a_second_sweep_compiles_nothing(points):
    run = make()
    train.sweep(run, RATES, points, key=KEYS[0])
    programs = list(run.programs.values())
    with jax.no_tracing(True):
        train.sweep(run, {"learning_rate": np.array([1.0, 0.2, 0.3])}, points, key=KEYS[1])
    assert list(run.programs.values()) == programs


def test_they_are_functions_that_other_programs_may_contain(points):
    run = make()

    @jax.jit
    def best(key, rates):
        outcome = train.sweep(run, {"learning_rate": rates}, points, key=key)
        return outcome.history["loss"][:, -1].min()

    swept = train.sweep(run, RATES, points, key=KEYS[0])
    found = best(KEYS[0], jnp.asarray(RATES["learning_rate"], jnp.float32))
    assert found == pytest.approx(float(swept.history["loss"][:, -1].min()), rel=1e-5)


def test_the_order_of_a_padded_part_is_that_of_the_part_alone():
    key = jax.random.key(7)
    np.testing.assert_array_equal(shuffled(key, 9, 6, 6)[:6], shuffled(key, 6, 6, 6))
    np.testing.assert_array_equal(shuffled(key, 9, 6, 6)[6:], [6, 7, 8])
    counts = np.zeros((5, 5))
    for order in jax.vmap(lambda k: shuffled(k, 5, 5, 5))(jax.random.split(key, 4000)):
        counts[np.arange(5), order] += 1
    assert np.abs(counts / 4000 - 0.2).max() < 0.03  # four standard deviations


def test_a_part_with_a_row_twice_counts_it_twice(points):
    run, key = make(models.softmax_regression(2), batch_size=100), KEYS[0]
    whole = part_of(points, "test")
    twice = train.Part(whole.inputs, whole.targets, jnp.array([0, 0, 4]), jnp.array(3), 3)
    copied = points.take([0, 0, 4])
    close(
        run.train(key, twice, {"learning_rate": 0.1}),
        run.train(key, copied, {"learning_rate": 0.1}),
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda r, d: train.sweep(r, {"learning_rate": 0.1}, d, key=KEYS[0]),
            ValueError,
            "is an array",
        ),
        (
            lambda r, d: train.sweep(r, {"learning_rate": [0.1], "b": [1, 2]}, d, key=KEYS[0]),
            ValueError,
            "of one length h above 0",
        ),
        (lambda r, d: train.sweep(r, [0.1], d, key=KEYS[0]), TypeError, "must be a dict"),
        (lambda r, d: train.ensemble(r, 7, d, {"learning_rate": 1.0}), ValueError, "PRNG key"),
        (lambda r, d: train.ensemble(r, KEYS, d, RATES, how="pmap"), ValueError, "how must be"),
        (lambda r, d: train.ensemble(r.train, KEYS, d, RATES), TypeError, "make_run"),
        (lambda r, d: train.ensemble(r, KEYS, "digits", RATES), TypeError, "Dataset or the pair"),
        (lambda r, d: train.cross_validate(r, d, 1, RATES, key=KEYS), ValueError, "k_folds: k"),
        (
            lambda r, d: train.cross_validate(r, d, 12, RATES, key=KEYS),
            ValueError,
            "12 folds of 11",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(points, call, error, message):
    with pytest.raises(error, match=message):
        call(make(), points)


def test_the_rule_looks_at_kind_and_size():
    assert mapping.choose(models.mlp((64,)), (64,), 32, "cpu") == "vmap"
    assert mapping.choose(models.mlp((256,)), (784,), 64, "cpu") == "map"
    assert mapping.choose(models.lenet(), (28, 28, 1), 64, "cpu") == "vmap"
    assert mapping.choose(models.d2l.alexnet(), (224, 224, 1), 1, "cpu") == "map"
    assert mapping.choose(models.rnn_lm(5, 4), (5,), 2, "cpu") == "map"
    assert mapping.choose(train.model_of(models.mlp()), (784,), 1, "cpu") == "map"
    assert mapping.choose(models.lenet(), (28, 28, 1), 64, "gpu") == "vmap"


def test_free_memory_is_that_of_the_machine():
    free = mapping.free_memory(jax.devices()[0])
    assert free is None or free > 2**20


def test_old_style_keys_are_keys(points):
    run = train.make_run(
        models.softmax_regression(2),
        losses.softmax_cross_entropy,
        optax.sgd,
        epochs=1,
        batch_size=4,
    )
    keys = jax.random.split(jax.random.PRNGKey(0), 2)
    outcome = train.ensemble(run, keys, points, {"learning_rate": 0.1})
    assert outcome.params["output"]["kernel"].shape == (2, 4, 2)
    one = train.ensemble(run, keys[1], points, {"learning_rate": 0.1})
    close(member(outcome, 1), one)
