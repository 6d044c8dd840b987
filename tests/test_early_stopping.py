"""train.EarlyStopping: when it ends a run, and what it keeps."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import data, models, train
from jaxd2l.ops import losses


def fed(stop, values, name="test_loss"):
    """What the callback says to each figure; the parameters are the figure itself."""
    said = []
    for epoch, value in enumerate(values, 1):
        tree = types.SimpleNamespace(params={"w": jnp.array(value)}, state={"m": jnp.array(epoch)})
        said.append(stop({"epoch": epoch, "step": epoch, name: value}, tree))
    return said


@pytest.mark.smoke
def test_it_ends_after_patience_epochs_without_improvement():
    stop = train.EarlyStopping(2)
    assert fed(stop, [3.0, 2.0, 2.5, 1.0, 1.0, 1.5]) == [False] * 5 + [True]
    assert (stop.best.epoch, stop.best.value) == (4, 1.0)
    assert float(stop.best.params["w"]) == 1.0
    assert int(stop.best.state["m"]) == 4


def test_small_changes_accuracies_and_nans():
    stop = train.EarlyStopping(2, minimum_change=0.1)
    assert fed(stop, [1.0, 0.95, 0.91]) == [False, False, True]
    assert stop.best.epoch == 1
    assert fed(train.EarlyStopping(2, minimum_change=0.1), [1.0, 0.95, 0.85]) == [False] * 3
    largest = train.EarlyStopping(1, "test_accuracy", largest=True)
    assert fed(largest, [0.5, 0.6, 0.6], "test_accuracy") == [False, False, True]
    assert largest.best.epoch == 2
    nans = train.EarlyStopping(2)
    assert fed(nans, [float("nan"), float("nan")]) == [False, True]
    assert nans.best is None


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="patience"):
        train.EarlyStopping(0)
    with pytest.raises(ValueError, match="minimum_change"):
        train.EarlyStopping(1, minimum_change=-0.1)
    with pytest.raises(ValueError, match=r"no 'test_loss' among .*need fit\(\.\.\., test="):
        train.EarlyStopping(1)({"epoch": 1, "train_loss": 0.5}, None)
    stop = train.EarlyStopping(1)
    fed(stop, [1.0])
    with pytest.raises(ValueError, match="epoch 1 after epoch 1; use a new instance"):
        fed(stop, [1.0])


@pytest.fixture(scope="module")
def noisy():
    """A line in 20 dimensions, seen through noise by 24 examples: easily overfitted."""
    rng = np.random.RandomState(0)
    x = rng.randn(124, 20).astype(np.float32)
    y = x[:, :1] + rng.randn(124, 1).astype(np.float32)
    return data.Parts(data.Dataset(x[:24], y[:24]), data.Dataset(x[24:], y[24:]))


def quick(parts, stop, epochs=200, **options):
    return train.fit(
        models.linear_regression(),
        parts.train,
        test=parts.test,
        loss=losses.squared_loss,
        optimizer=optax.sgd(0.1),
        epochs=epochs,
        batch_size=24,
        callbacks=[stop],
        **options,
    )


def test_fit_stops_and_the_best_parameters_are_a_copy(noisy):
    stop = train.EarlyStopping(patience=3)
    result = quick(noisy, stop)
    figures = [record["test_loss"] for record in result.history]
    assert result.interrupted
    assert stop.best.epoch == int(np.argmin(figures)) + 1 == len(figures) - 3
    kept = train.evaluate(
        models.linear_regression(),
        stop.best.params,
        stop.best.state,
        noisy.test,
        loss=losses.squared_loss,
    )
    assert kept["loss"] == pytest.approx(min(figures), rel=1e-6)  # donated memory was not kept
    whole = quick(noisy, lambda record, state: False)
    assert whole.history[-1]["test_loss"] > 1.05 * min(figures)  # it was worth it (C87)


def test_a_resumed_run_goes_on_counting_with_the_same_instance(noisy, tmp_path):
    whole = train.EarlyStopping(patience=3)
    quick(noisy, whole)
    stop = train.EarlyStopping(patience=3)
    quick(noisy, stop, epochs=4, folder=tmp_path)
    result = quick(noisy, stop, folder=tmp_path, resume=True)
    assert stop.best.epoch == whole.best.epoch == len(result.history) - 3
    for a, b in zip(*(jax.tree.leaves(s.best.params) for s in (stop, whole)), strict=True):
        assert (a == b).all()
