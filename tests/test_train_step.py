"""The pure step: masks, totals, donation, one compilation, no wait for the host."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import data, models, optim, train
from jaxd2l.layers import BatchNorm, Dense, Dropout, Serial
from jaxd2l.ops import losses, metrics
from jaxd2l.train.step import all_finite, means, per_example, zero_totals

NAMES = {"accuracy": metrics.correct}
SGD = optax.sgd(0.5)


def make_data(n, classes=3, features=4, seed=0):
    random = np.random.RandomState(seed)
    x = random.randn(n, features).astype(np.float32)
    return data.Dataset(x, random.randint(0, classes, n).astype(np.int32))


def updates(net, padded=True):
    """One compiled update, not donating."""
    update = train.make_update(net, losses.softmax_cross_entropy, SGD, NAMES, padded=padded)
    return jax.jit(update)


def begin(net, optimizer=SGD, names=NAMES, features=4):
    state = train.start(net, optimizer, jax.random.key(0), (features,), names)
    return jax.tree.map(lambda a: a.copy(), state)


def close(a, b):
    """Training states of equal values, rounding apart."""
    a, b = ((s.params, s.state, s.totals) for s in (a, b))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)


@pytest.fixture(scope="module")
def net():
    return models.softmax_regression(3)


@pytest.fixture(scope="module")
def update(net):
    return updates(net)


@pytest.mark.smoke
def test_step_matches_softmax_regression_by_hand(net):
    batch = next(data.Batches(make_data(6), 6).epoch(0))
    first = begin(net)
    w = np.asarray(first.params["output"]["kernel"], np.float64)
    b = np.asarray(first.params["output"]["bias"], np.float64)
    after = train.make_step(net, losses.softmax_cross_entropy, SGD, NAMES)(first, batch)
    logits = batch.inputs.astype(np.float64) @ w + b
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (p - np.eye(3)[batch.targets]) / 6
    np.testing.assert_allclose(
        after.params["output"]["kernel"], w - 0.5 * batch.inputs.T @ error, atol=1e-6
    )
    np.testing.assert_allclose(after.params["output"]["bias"], b - 0.5 * error.sum(0), atol=1e-6)
    np.testing.assert_allclose(
        after.totals["loss"], -np.log(p[np.arange(6), batch.targets]).sum(), rtol=1e-5
    )
    assert int(after.totals["accuracy"]) == (logits.argmax(1) == batch.targets).sum()
    assert int(after.totals["count"]) == 6
    assert int(after.step) == 1
    assert bool(after.finite)


def test_padding_changes_nothing(net, update):
    """The gradient of a padded batch is that of its real examples alone, whatever the padding."""
    whole = make_data(5)
    batches = data.Batches(whole, 8, shuffle=False)
    padded = next(batches.epoch(0))
    assert padded.mask.tolist() == [True] * 5 + [False] * 3
    alone = next(data.Batches(whole, 5, shuffle=False).epoch(0))
    a, b = update(begin(net), padded), update(begin(net), alone)
    close(a, b)
    assert int(a.totals["count"]) == int(b.totals["count"]) == 5
    poisoned = padded._replace(inputs=np.where(padded.mask[:, None], padded.inputs, 1e3))
    c = update(begin(net), poisoned)
    jax.tree.map(np.testing.assert_array_equal, a.params, c.params)
    jax.tree.map(np.testing.assert_array_equal, a.totals, c.totals)


def test_padding_stays_out_of_batch_statistics():
    from jaxd2l.layers import BatchNorm

    net = Serial([Dense("a", 3), BatchNorm("bn")])
    update, whole = updates(net), make_data(5)
    a = update(begin(net), next(data.Batches(whole, 8, shuffle=False).epoch(0)))
    b = update(begin(net), next(data.Batches(whole, 5, shuffle=False).epoch(0)))
    close(a, b)


def test_unpadded_form_equals_the_masked_form(net, update):
    batch = next(data.Batches(make_data(6), 3).epoch(0))
    close(update(begin(net), batch), updates(net, padded=False)(begin(net), batch))


def test_one_compilation_for_all_batches_of_a_run():
    """Two epochs with a short last batch trace the model once to train and once to evaluate."""
    traced = []
    inner = train.model_of(models.softmax_regression(3))

    def apply(*arguments, **call):
        traced.append(call.get("train"))
        return inner.apply(*arguments, **call)

    dataset = make_data(10)
    train.fit(
        train.Model(inner.init, apply),
        dataset,
        test=make_data(7),
        loss=losses.softmax_cross_entropy,
        optimizer=optax.adam(1e-2),
        epochs=2,
        batch_size=4,
    )
    assert traced == [True, False]


def test_step_compiles_once_across_epochs_and_after_loading(net, tmp_path):
    from jaxd2l import checkpoint

    step = train.make_step(net, losses.softmax_cross_entropy, optax.adam(1e-2), NAMES)
    state = begin(net, optax.adam(1e-2))
    batches = data.Batches(make_data(10), 4)
    for epoch in range(2):
        for batch in batches.epoch(epoch):
            state = step(state, batch)
    checkpoint.save(tmp_path / "a.safetensors", state)
    loaded, _ = checkpoint.load(tmp_path / "a.safetensors", begin(net, optax.adam(1e-2)))
    step(loaded, batch)
    assert step._cache_size() == 1


def test_the_old_state_is_donated(net):
    state = begin(net)
    step = train.make_step(net, losses.softmax_cross_entropy, SGD, NAMES)
    batch = next(data.Batches(make_data(4), 4).epoch(0))
    after = step(state, batch)
    assert state.params["output"]["kernel"].is_deleted()
    assert state.totals["loss"].is_deleted()
    assert not after.params["output"]["kernel"].is_deleted()
    with pytest.raises((ValueError, RuntimeError), match="deleted"):
        step(state, batch)


def test_no_step_waits_for_the_host(net, monkeypatch):
    """No figure is fetched inside an epoch: once after it, and after the evaluation."""
    fetched = []
    real = jax.device_get

    def counted(tree):
        fetched.append(tree)
        return real(tree)

    monkeypatch.setattr(jax, "device_get", counted)
    with jax.transfer_guard_device_to_host("disallow_explicit"):
        # On a CPU the guard has nothing to guard; on an accelerator a read in the loop fails.
        step = train.make_step(net, losses.softmax_cross_entropy, SGD, NAMES)
        state = begin(net)
        for batch in data.Batches(make_data(20), 4).epoch(0):
            state = step(state, batch)
    assert not fetched
    train.fit(
        net,
        make_data(20),
        test=make_data(8),
        loss=losses.softmax_cross_entropy,
        optimizer=SGD,
        epochs=3,
        batch_size=4,
    )
    assert len(fetched) == 2 * 3


def test_loss_with_more_axes_is_averaged_over_them():
    net = models.linear_regression(2)
    random = np.random.RandomState(0)
    whole = data.Dataset(random.randn(5, 4), random.randn(5, 2))
    batch = next(data.Batches(whole, 8, shuffle=False).epoch(0))
    update = jax.jit(train.make_update(net, losses.squared_loss, SGD, {}))
    first = begin(net, names={})
    w, b = (np.asarray(first.params["linear"][k]) for k in ("kernel", "bias"))
    after = update(first, batch)
    error = whole.inputs @ w + b - whole.targets  # (5, 2)
    np.testing.assert_allclose(after.totals["loss"], (error**2 / 2).mean(1).sum(), rtol=1e-5)
    np.testing.assert_allclose(
        after.params["linear"]["kernel"], w - 0.5 * whole.inputs.T @ error / 10, atol=1e-5
    )


def test_a_loss_that_is_not_finite_is_remembered(net):
    """Also where the parameters did not move, so that the next loss is finite again."""
    still = optax.set_to_zero()
    step = train.make_step(net, losses.softmax_cross_entropy, still, NAMES)
    batch = next(data.Batches(make_data(4), 4).epoch(0))
    state = step(begin(net, still), batch)
    assert bool(state.finite)
    bad = batch._replace(inputs=np.full_like(batch.inputs, np.inf))
    state = step(state, bad)
    assert not bool(state.finite)
    state = step(state, batch)
    assert not bool(state.finite)
    assert bool(all_finite(state.params))


def test_a_loss_that_is_not_finite_in_the_padding_does_not_count(net):
    step = train.make_step(net, losses.softmax_cross_entropy, SGD, NAMES)
    batch = next(data.Batches(make_data(3), 4).epoch(0))
    bad = batch._replace(targets=np.where(batch.mask, batch.targets, -1).astype(np.int32))
    state = step(begin(net), bad)
    assert bool(state.finite)
    assert bool(all_finite(state.params))
    assert np.isfinite(means(state.totals)["loss"])


@pytest.mark.parametrize("padded", [True, False])
def test_a_loss_that_is_a_mean_is_refused(net, padded):
    batch = next(data.Batches(make_data(4), 4).epoch(0))
    update = train.make_update(
        net, lambda o, t: losses.softmax_cross_entropy(o, t).mean(), SGD, NAMES, padded=padded
    )
    with pytest.raises(ValueError, match=r"the loss must give one value per example, .*got \(\)"):
        update(begin(net), batch)
    update = train.make_update(
        net, losses.softmax_cross_entropy, SGD, {"accuracy": metrics.accuracy}, padded=padded
    )
    with pytest.raises(ValueError, match=r"the metric 'accuracy' must give one value per example"):
        update(begin(net), batch)


def test_metrics_with_more_axes_and_booleans():
    values = jnp.array([[True, False], [True, True]])
    assert per_example(values, 2, "m").tolist() == [0.5, 1.0]


def test_each_step_has_its_own_key():
    net = Serial([Dropout("drop", 0.5), Dense("a", 3)])
    still = optax.sgd(0.0)
    update = jax.jit(train.make_update(net, losses.softmax_cross_entropy, still, NAMES))
    batch = next(data.Batches(make_data(4), 4).epoch(0))
    first = update(begin(net), batch)
    second = update(first, batch)
    one = float(first.totals["loss"])
    assert one != float(second.totals["loss"]) - one
    assert float(update(begin(net), batch).totals["loss"]) == one


def test_vmap_over_training_states(net, update):
    """An ensemble is one mapped step."""
    batch = next(data.Batches(make_data(4), 4).epoch(0))
    keys = jax.random.split(jax.random.key(1), 3)
    states = [train.start(net, SGD, k, (4,), NAMES) for k in keys]
    together = jax.tree.map(lambda *a: jnp.stack(a), *states)
    after = jax.jit(jax.vmap(update, in_axes=(0, None)))(together, batch)
    for i, state in enumerate(states):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-6),
            after.params,
            update(state, batch).params,
        )


def test_step_in_double_precision(x64, net):
    batch = next(data.Batches(make_data(4), 4).epoch(0))
    state = begin(net)
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), state.params)
    update = updates(net)
    batch = batch._replace(inputs=batch.inputs.astype(np.float64))
    after = update(train.TrainState(wide, *(getattr(state, n) for n in FIELDS[1:])), batch)
    assert after.params["output"]["kernel"].dtype == jnp.float64
    assert after.step.dtype == jnp.int32
    assert after.totals["loss"].dtype == jnp.float32


FIELDS = ("params", "state", "opt_state", "key", "step", "totals", "finite")


def test_means_of_nothing_and_order_of_names():
    assert means(zero_totals(NAMES)) == {"loss": 0.0, "accuracy": 0.0}
    totals = {"b": 1.0, "loss": 2.0, "a": 3.0, "count": jnp.int32(2)}
    assert list(means(totals)) == ["loss", "a", "b"]


def test_model_of_refuses_other_things():
    with pytest.raises(TypeError, match=r"expected a network or train.Model\(init, apply\), got 3"):
        train.model_of(3)


def test_default_metrics():
    assert list(train.default_metrics(np.zeros(2, np.int32))) == ["accuracy"]
    assert train.default_metrics(np.zeros(2, np.float32)) == {}


def test_a_skipped_step_leaves_no_trace():
    """A batch with an infinite input, in the middle: as if it had not been there."""
    net = Serial([Dense("a", 3), BatchNorm("bn"), Dense("output", 1)])
    optimizer = optim.skip_non_finite(optim.momentum(0.1))
    update = jax.jit(train.make_update(net, losses.squared_loss, optimizer, {}))
    random = np.random.RandomState(0)
    good = [random.randn(4, 2).astype(np.float32) for _ in range(2)]
    bad = np.full((4, 2), np.inf, np.float32)

    def after(batches):
        state = train.start(net, optimizer, jax.random.key(0), (2,), {})
        for x in batches:
            batch = data.Batch(x, good[0][:, :1], np.ones(4, bool), np.arange(4))
            state = update(state, batch)
        return state

    with_it, without = after([good[0], bad, good[1]]), after(good)
    for part in ("params", "state", "totals", "finite"):
        for a, b in zip(
            jax.tree.leaves(getattr(with_it, part)),
            jax.tree.leaves(getattr(without, part)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
    assert bool(with_it.finite)
    assert int(with_it.step) == 3
    assert int(with_it.opt_state.total) == 1
