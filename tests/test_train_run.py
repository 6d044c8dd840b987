"""A whole run as a pure function: compiled, mapped, differentiated, and equal to a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import data, models, train
from jaxd2l.layers import BatchNorm, Dense, Dropout, Serial
from jaxd2l.ops import losses, metrics

N, EPOCHS, BATCH = 10, 3, 4


@pytest.fixture(scope="module")
def xy():
    random = np.random.RandomState(0)
    x = random.randn(N, 3).astype(np.float32)
    return jnp.asarray(x), jnp.asarray((x[:, 0] > 0).astype(np.int32))


def classifier(optimizer=optax.sgd, net=None, **changes):
    settings = {"epochs": EPOCHS, "batch_size": BATCH, **changes}
    net = models.softmax_regression(2) if net is None else net
    return train.make_run(net, losses.softmax_cross_entropy, optimizer, **settings)


def close(a, b, tolerance=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance), a, b)


@pytest.mark.smoke
def test_run_equals_an_explicit_loop(xy):
    """A short last batch is padded and masked; dropout and batch statistics come out the same."""
    x, y = xy
    net = Serial([Dense("a", 4), BatchNorm("bn"), Dropout("drop", 0.5), Dense("b", 2)])
    key, optimizer = jax.random.key(3), optax.adam(0.1)
    run = jax.jit(classifier(optax.adam, net))
    params, history = run(key, (x, y), {"learning_rate": 0.1})

    names = {"accuracy": metrics.correct}
    update = jax.jit(train.make_update(net, losses.softmax_cross_entropy, optimizer, names))
    state = train.start(net, optimizer, key, (3,), names)
    totals = []
    for epoch in range(EPOCHS):
        shuffle = jax.random.fold_in(jax.random.fold_in(key, 1), epoch)
        order = np.asarray(jax.random.permutation(shuffle, N))
        assert sorted(order) == list(range(N))
        before = state.totals
        for first in range(0, N, BATCH):
            place = np.arange(first, first + BATCH)
            index = order[place % N]
            state = update(state, data.Batch(x[index], y[index], jnp.asarray(place < N), index))
        totals.append(jax.tree.map(lambda a, b: a - b, state.totals, before))
    close(params, state.params)
    assert all(int(t["count"]) == N for t in totals)
    np.testing.assert_allclose(history["loss"], [t["loss"] / N for t in totals], rtol=1e-5)
    np.testing.assert_allclose(history["accuracy"], [t["accuracy"] / N for t in totals], rtol=1e-6)


def test_a_map_over_rates_equals_separate_runs(xy):
    run = classifier()
    key, rates = jax.random.key(0), jnp.array([0.01, 0.1, 1.0])
    sweep = jax.jit(jax.vmap(lambda rate: run(key, xy, {"learning_rate": rate})))
    alone = jax.jit(lambda rate: run(key, xy, {"learning_rate": rate}))
    params, history = sweep(rates)
    assert history["loss"].shape == (3, EPOCHS)
    for i, rate in enumerate(rates):
        one, figures = alone(rate)
        close(jax.tree.map(lambda a, i=i: a[i], (params, history)), (one, figures), 1e-5)
    assert alone._cache_size() == 1


def test_a_map_over_keys_equals_separate_runs(xy):
    """An ensemble: other parameters, other order of the data."""
    run = jax.jit(classifier())
    keys = jax.random.split(jax.random.key(5), 3)
    hyper = {"learning_rate": 0.1}
    params, _ = jax.jit(jax.vmap(run, in_axes=(0, None, None)))(keys, xy, hyper)
    for i, key in enumerate(keys):
        close(jax.tree.map(lambda a, i=i: a[i], params), run(key, xy, hyper)[0], 1e-5)
    kernel = params["output"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])


def test_a_map_over_data_sets(xy):
    """One program trains on several folds at once."""
    x, y = xy
    run = classifier()
    folds = jnp.stack([jnp.arange(8), jnp.arange(2, 10)])
    hyper = {"learning_rate": 0.1}
    train_on = jax.jit(lambda rows: run(jax.random.key(0), (x[rows], y[rows]), hyper)[0])
    together = jax.jit(jax.vmap(lambda r: run(jax.random.key(0), (x[r], y[r]), hyper)[0]))(folds)
    for i, rows in enumerate(folds):
        close(jax.tree.map(lambda a, i=i: a[i], together), train_on(rows), 1e-5)


@pytest.mark.parametrize("optimizer", [optax.sgd, optax.adam])
def test_gradient_of_a_run_with_respect_to_its_learning_rate(x64, xy, optimizer):
    """Training is differentiated, and central differences agree."""
    x, y = xy[0].astype(jnp.float64), xy[1]
    run = classifier(optimizer)
    key = jax.random.key(0)

    def last_loss(rate):
        params, _ = run(key, (x, y), {"learning_rate": rate})
        logits = x @ params["output"]["kernel"] + params["output"]["bias"]
        return losses.softmax_cross_entropy(logits, y).mean()

    # Parameters are drawn in float32; the run must still be differentiable in double precision.
    rate, h = jnp.float64(0.1), 1e-4
    value = jax.jit(last_loss)
    gradient = float(jax.jit(jax.grad(last_loss))(rate))
    forward = float(jax.jit(jax.jacfwd(last_loss))(rate))
    difference = float(value(rate + h) - value(rate - h)) / (2 * h)
    assert np.isfinite(gradient)
    assert gradient == pytest.approx(forward, rel=1e-5)
    assert gradient == pytest.approx(difference, rel=2e-2)
    assert gradient < 0  # a little faster would have been better


def test_linear_regression_learns_inside_one_program():
    dataset = data.synthetic_linear(0)
    run = train.make_run(
        models.linear_regression(), losses.squared_loss, optax.sgd, epochs=3, batch_size=10
    )
    params, history = jax.jit(run)(jax.random.key(0), dataset, {"learning_rate": 0.03})
    np.testing.assert_allclose(params["linear"]["kernel"][:, 0], [2, -3.4], atol=1e-2)
    np.testing.assert_allclose(params["linear"]["bias"], [4.2], atol=1e-2)
    assert list(history) == ["loss"]
    assert history["loss"][-1] < 1e-4


def test_chosen_metrics_and_several_hyper_parameters(xy):
    run = classifier(
        lambda learning_rate, decay: optax.chain(
            optax.add_decayed_weights(decay), optax.sgd(learning_rate)
        ),
        metrics={"top": lambda outputs, targets: outputs.max(axis=-1)},
    )
    mapped = jax.vmap(lambda d: run(jax.random.key(0), xy, {"learning_rate": 0.1, "decay": d}))
    params, history = jax.jit(mapped)(jnp.array([0.0, 5.0]))
    assert set(history) == {"loss", "top"}
    norms = np.linalg.norm(params["output"]["kernel"], axis=(1, 2))
    assert norms[1] < norms[0]


def test_lengths_that_differ_are_refused(xy):
    with pytest.raises(ValueError, match="inputs and targets must have the same length"):
        classifier()(jax.random.key(0), (xy[0], xy[1][:-1]), {"learning_rate": 0.1})


def test_no_examples_are_refused(xy):
    x, y = xy
    with pytest.raises(ValueError, match="run: there are no examples"):
        classifier()(jax.random.key(0), (x[:0], y[:0]), {"learning_rate": 0.1})


def test_a_batch_above_the_number_of_examples_is_all_of_them(xy):
    x, y = xy
    rate = {"learning_rate": 0.1}
    close(
        classifier(batch_size=len(x))(jax.random.key(0), (x, y), rate)[0],
        classifier(batch_size=10**6)(jax.random.key(0), (x, y), rate)[0],
    )


def test_a_batch_size_of_zero_is_refused(xy):
    with pytest.raises(ValueError, match="0"):
        classifier(batch_size=0)(jax.random.key(0), *xy, {"learning_rate": 0.1})
