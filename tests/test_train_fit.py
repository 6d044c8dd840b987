"""The training loop: it learns what it should, repeats itself, and stops when told to."""

import itertools
import json
import math
import statistics
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import apply, checkpoint, data, init, models, recipes, train
from jaxd2l.layers import Activation, Dense, Flatten, Function, Repeat, Serial
from jaxd2l.ops import losses, metrics

CE = losses.softmax_cross_entropy


@pytest.fixture(scope="module")
def digits():
    """The digits as they are, 8x8."""
    return data.train_test_split(data.load_digits(8), 360)


@pytest.fixture(scope="module")
def few():
    random = np.random.RandomState(0)
    x = random.randn(22, 4).astype(np.float32)
    return data.Dataset(x, (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0))


def quick(few, **changes):
    settings = {"loss": CE, "optimizer": optax.adam(0.05), "epochs": 2, "batch_size": 8}
    net = changes.pop("model", models.softmax_regression(3))
    return train.fit(net, few, **{**settings, **changes})


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.smoke
def test_linear_regression_recovers_the_true_weights():
    """D2L 3.5: three epochs of SGD find w = (2, -3.4), b = 4.2, and least squares agrees."""
    dataset = data.synthetic_linear(0)
    result = train.fit(
        models.linear_regression(),
        dataset,
        loss=losses.squared_loss,
        optimizer=optax.sgd(0.03),
        epochs=3,
        batch_size=10,
    )
    w, b = result.params["linear"]["kernel"], result.params["linear"]["bias"]
    np.testing.assert_allclose(w[:, 0], [2, -3.4], atol=1e-2)
    np.testing.assert_allclose(b, [4.2], atol=1e-2)
    x = np.column_stack([dataset.inputs, np.ones(len(dataset))]).astype(np.float64)
    closed, *_ = np.linalg.lstsq(x, dataset.targets.astype(np.float64), rcond=None)
    np.testing.assert_allclose(np.vstack([w, b[None]]), closed, atol=2e-3)
    assert result.history[-1]["train_loss"] < 1e-4  # noise 0.01: 0.5e-4


def test_polynomial_regression_finds_the_polynomial():
    parts = recipes.load_data("polynomial")
    result = train.fit(
        models.polynomial_regression(3),
        parts.train,
        test=parts.test,
        loss=losses.squared_loss,
        optimizer=optax.sgd(0.01, momentum=0.9),
        epochs=100,
        batch_size=10,
    )
    found = [*result.params["linear"]["bias"], *result.params["linear"]["kernel"][:, 0]]
    np.testing.assert_allclose(found, [5, 1.2, -3.4, 5.6], atol=0.1)
    x = parts.train.inputs[:, 0].astype(np.float64)
    features = np.column_stack([np.ones_like(x), x, x**2 / 2, x**3 / 6])
    closed, *_ = np.linalg.lstsq(features, parts.train.targets[:, 0], rcond=None)
    np.testing.assert_allclose(found, closed, atol=0.05)
    assert result.history[-1]["test_loss"] < 0.01  # noise 0.1: 0.005


@pytest.mark.parametrize(
    ("name", "options", "epochs", "wanted"),
    [("softmax_regression", {}, 10, 0.9), ("mlp", {"hidden": (64,)}, 12, 0.95)],
)
def test_digits_are_learnt(digits, name, options, epochs, wanted):
    result = train.fit(
        models.build(name, **options),
        digits.train,
        test=digits.test,
        loss=CE,
        optimizer=optax.adam(5e-3),
        epochs=epochs,
        batch_size=64,
    )
    assert result.history[-1]["test_accuracy"] > wanted
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"] / 2


def test_logistic_regression_tells_odd_digits_from_even():
    parts = recipes.load_data("binary", size=(8, 8))
    result = train.fit(
        models.logistic_regression(),
        parts.train,
        test=parts.test,
        loss=losses.sigmoid_cross_entropy,
        metrics=recipes.metrics_of("binary", parts.train.targets),
        optimizer=optax.adam(0.01),
        epochs=10,
        batch_size=64,
    )
    assert result.history[-1]["test_accuracy"] > 0.8  # a linear boundary gives about 0.9


def test_history_and_callbacks(few):
    seen = []
    result = quick(few, test=few, epochs=3, callbacks=[lambda r, s: seen.append((r, int(s.step)))])
    assert [r["epoch"] for r in result.history] == [1, 2, 3]
    assert [r["step"] for r in result.history] == [3, 6, 9]
    assert [r for r, _ in seen] == list(result.history)
    assert [step for _, step in seen] == [3, 6, 9]
    assert not result.interrupted
    assert set(result.history[0]) == {
        *("epoch", "step", "seconds"),
        *("train_loss", "train_accuracy", "test_loss", "test_accuracy"),
    }


def test_a_callback_ends_the_run(few, tmp_path):
    result = quick(few, epochs=5, folder=tmp_path, callbacks=[lambda r, s: r["epoch"] == 2])
    assert result.interrupted
    assert len(result.history) == 2
    assert checkpoint.steps(tmp_path) == [3, 6]
    last = quick(few, epochs=2, callbacks=[lambda r, s: True])
    assert [r["epoch"] for r in last.history] == [1]
    assert not quick(few, epochs=1, callbacks=[lambda r, s: True]).interrupted


def test_same_seed_same_bits_other_seed_other_bits(few):
    a, b, c = quick(few, seed=1), quick(few, seed=1), quick(few, seed=2)
    same_bits(a.params, b.params)
    figures = [[{k: v for k, v in r.items() if k != "seconds"} for r in x.history] for x in (a, b)]
    assert figures[0] == figures[1]
    assert not np.array_equal(a.params["output"]["kernel"], c.params["output"]["kernel"])


@pytest.mark.parametrize("batch_size", [1, 7, 8, 22, 100])
def test_evaluate_is_exact_whatever_the_batch(few, batch_size):
    net = models.softmax_regression(3)
    params, state = init(net, jax.random.key(0), (4,))
    found = train.evaluate(net, params, state, few, loss=CE, batch_size=batch_size)
    logits, _ = apply(net, params, state, jnp.asarray(few.inputs))
    labels = jnp.asarray(few.targets)
    assert found["loss"] == pytest.approx(float(CE(logits, labels).mean()), rel=1e-6)
    assert found["accuracy"] == float(metrics.correct(logits, labels).sum()) / 22


def test_train_figures_of_a_rate_of_zero_are_those_of_evaluate(few):
    """Totals over a padded last batch are exact."""
    result = quick(few, optimizer=optax.sgd(0.0), epochs=1, test=few)
    record = result.history[0]
    assert record["train_loss"] == pytest.approx(record["test_loss"], rel=1e-6)
    assert record["train_accuracy"] == record["test_accuracy"]


def test_a_model_may_be_any_pair_of_functions(few, tmp_path):
    def start(key, input_shape):
        return {"w": jnp.zeros((*input_shape, 3))}, {"calls": jnp.zeros(())}

    def run(params, state, inputs, *, key=None, train=False, mask=None):
        return inputs @ params["w"], {"calls": state["calls"] + 1} if train else state

    model = train.Model(start, run)
    settings = {"loss": CE, "optimizer": optax.adam(0.05), "epochs": 4, "batch_size": 8}
    result = train.fit(model, few, **settings, test=few, folder=tmp_path)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert float(result.state["calls"]) == 12
    tree, _ = checkpoint.load(checkpoint.latest(tmp_path), result.train_state)
    same_bits(tree.params, result.params)
    with pytest.raises(ValueError, match="holds no network; build it in code and pass it along"):
        train.load(tmp_path)


def double(x):
    return 2 * x


def test_a_network_with_a_function_is_trained_and_loaded(few, tmp_path):
    net = Serial([Function(double), Dense("output", 3)])
    settings = {"loss": CE, "optimizer": optax.adam(0.05), "epochs": 2, "batch_size": 8}
    result = train.fit(net, few, **settings, folder=tmp_path)
    with pytest.raises(ValueError, match="holds no network"):
        train.load(tmp_path)
    loaded = train.load(tmp_path, net=net)
    same_bits(loaded.params, result.params)
    resumed = train.fit(net, few, **{**settings, "epochs": 3}, folder=tmp_path, resume=True)
    assert len(resumed.history) == 3


def test_a_flax_module_is_trained_and_loaded(few, tmp_path):
    from flax import linen

    from jaxd2l.layers import FlaxModule

    net = Serial([FlaxModule("flax", linen.Dense(8)), Activation("relu"), Dense("output", 3)])
    result = train.fit(
        net,
        few,
        loss=CE,
        optimizer=optax.adam(0.05),
        epochs=4,
        batch_size=8,
        folder=tmp_path,
    )
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    same_bits(train.load(tmp_path, net=net).params, result.params)


def test_load_says_what_does_not_fit(few, tmp_path):
    quick(few, folder=tmp_path, epochs=1)
    with pytest.raises(
        ValueError, match=r"output/kernel: the network needs float32 \(4, 5\), the file"
    ):
        train.load(tmp_path, net=models.softmax_regression(5))
    with pytest.raises(ValueError, match="has no such array"):
        train.load(tmp_path, net=Flatten())
    with pytest.raises(FileNotFoundError, match=r"no checkpoint here: wanted a \.safetensors"):
        train.load(tmp_path / "nothing")


# Divergence


def test_load_refuses_what_no_run_wrote(tmp_path):
    net = models.softmax_regression(2)
    params, state = init(net, jax.random.key(0), (3,))
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    path = tmp_path / "a.safetensors"

    def stored(net, params, **meta):
        checkpoint.save(path, {"params": params, "state": state}, net=net, meta=meta)
        return path

    assert train.load(stored(net, params, input_shape=[3])).net == net
    with pytest.raises(ValueError, match=r"needs float32 \(2,\), the file has bfloat16 \(2,\)"):
        train.load(stored(net, half, input_shape=[3]))
    with pytest.raises(ValueError, match=r"a.safetensors: input_shape must be a tuple"):
        train.load(stored(net, params, input_shape=5))
    endless = Serial([net, Repeat(Dense("again", 2), 10**12)])
    with pytest.raises(ValueError, match="again/kernel: the network needs"):
        train.load(stored(endless, params, input_shape=[3]))


def test_divergence_keeps_the_last_good_checkpoint(few, tmp_path):
    """The rate explodes in the second epoch; the checkpoint of the first stays."""
    optimizer = optax.sgd(lambda count: jnp.where(count < 3, 0.1, jnp.inf))
    with pytest.raises(train.Diverged, match="training diverged: the loss or a parameter was") as e:
        quick(few, optimizer=optimizer, epochs=5, test=few, folder=tmp_path)
    assert e.value.checkpoint == checkpoint.step_path(tmp_path, 3)
    assert "step_00000003.safetensors" in str(e.value)
    assert checkpoint.steps(tmp_path) == [3]
    flat = checkpoint.load_flat(e.value.checkpoint)
    assert all(np.isfinite(a).all() for a in flat.values() if a.dtype.kind == "f")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1]
    assert train.load(tmp_path).params["output"]["kernel"].shape == (4, 3)


def test_divergence_at_once_writes_nothing(few, tmp_path):
    with pytest.raises(train.Diverged) as e:
        quick(few, optimizer=optax.sgd(math.inf), folder=tmp_path, save_every=1)
    assert e.value.checkpoint is None
    assert list(tmp_path.iterdir()) == []


def test_a_rate_that_is_too_large_without_a_folder():
    """Least squares with a rate of 10: the error grows by a factor in each step, to infinity."""
    with pytest.raises(train.Diverged, match=r"by step 100\. Try a smaller learning rate"):
        train.fit(
            models.linear_regression(),
            data.synthetic_linear(0),
            loss=losses.squared_loss,
            optimizer=optax.sgd(10.0),
            epochs=3,
            batch_size=10,
        )
    assert issubclass(train.Diverged, FloatingPointError)


def test_divergence_of_the_last_step_only(few, tmp_path):
    """The loss of every step was finite, but the last update was not."""
    optimizer = optax.sgd(lambda count: jnp.where(count < 2, 0.1, jnp.inf))
    with pytest.raises(train.Diverged):
        quick(few, optimizer=optimizer, epochs=1, folder=tmp_path)
    assert checkpoint.steps(tmp_path) == []


def test_an_infinite_loss_over_finite_parameters_is_divergence(few, tmp_path):
    with pytest.raises(train.Diverged):
        quick(few, loss=lambda o, t: CE(o, t) + jnp.inf, folder=tmp_path)
    assert checkpoint.steps(tmp_path) == []


def test_a_test_loss_that_overflows_is_written_as_null(few, tmp_path):
    """The run is sound; its metrics file stays JSON."""
    far = data.Dataset(np.full((2, 4), 3e38, np.float32), np.array([0, 1]))
    result = quick(few, test=far, folder=tmp_path, epochs=1)
    assert not math.isfinite(result.history[0]["test_loss"])
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["test_loss"] is None
    again = quick(few, test=far, folder=tmp_path, epochs=1, resume=True)
    assert math.isnan(again.history[0]["test_loss"])


# Arguments, threads


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "fit: epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"save_every": 0}, "fit: save_every must be at least 1, got 0"),
        ({"seed": -1}, "fit: seed must be at least 0, got -1"),
        ({"seed": 2**32}, r"fit: seed must be below 2\*\*32"),
        ({"resume": True}, "resume=True needs the folder of the run"),
    ],
)
def test_bad_arguments(few, changes, message):
    with pytest.raises(ValueError, match=message):
        quick(few, **changes)


def test_labels_beyond_the_outputs_are_refused(few):
    with pytest.raises(ValueError, match=r"network has 2 outputs, too few for train: .* is 2"):
        quick(few, model=models.softmax_regression(2))
    known = data.Dataset(few.inputs, np.minimum(few.targets, 1))
    with pytest.raises(ValueError, match=r"network has 2 outputs, too few for test: .* is 2"):
        quick(known, model=models.softmax_regression(2), test=few)


def test_arguments_of_another_kind_are_refused(few):
    with pytest.raises(TypeError, match=r"fit: train must be a data\.Dataset, got tuple"):
        quick((few.inputs, few.targets))
    with pytest.raises(TypeError, match=r"fit: test must be a data\.Dataset, got list"):
        quick(few, test=[1])
    with pytest.raises(TypeError, match=r"such as optax.sgd\(0.1\), got function"):
        quick(few, optimizer=optax.sgd)


def test_a_batch_above_the_number_of_examples_is_all_of_them(few):
    whole, above = (quick(few, batch_size=size) for size in (len(few), 10**9))
    same_bits(whole.params, above.params)


def test_epochs_must_be_an_integer(few):
    with pytest.raises(TypeError, match=r"fit: epochs must be an integer, got 2\.0"):
        quick(few, epochs=2.0)


def test_fit_in_a_thread(few):
    """Signals belong to the main thread; elsewhere fit does without."""
    results = []
    thread = threading.Thread(target=lambda: results.append(quick(few)))
    thread.start()
    thread.join()
    same_bits(results[0].params, quick(few).params)


def test_fit_puts_the_handler_of_ctrl_c_back(few):
    import signal

    before = signal.getsignal(signal.SIGINT)
    inside = []
    quick(few, callbacks=[lambda r, s: inside.append(signal.getsignal(signal.SIGINT))])
    assert signal.getsignal(signal.SIGINT) is before
    assert inside[0] is not before


def test_a_failing_callback_leaves_everything_in_place(few, tmp_path):
    def fail(record, state):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        quick(few, callbacks=[fail], folder=tmp_path)
    assert checkpoint.steps(tmp_path) == [3]
    assert len(quick(few, folder=tmp_path, resume=True).history) == 2


def test_ctrl_c_stops_between_steps(few, tmp_path):
    """The flag is read after the step; what is saved goes on to the same bits."""
    import signal

    calls = itertools.count()

    def loss(outputs, targets):
        return CE(outputs, targets)

    class Interrupting(data.Dataset):
        pass

    real = data.Batches.epoch

    def epoch(self, number, start=0):
        for batch in real(self, number, start):
            if self.shuffle and next(calls) == 4:
                signal.raise_signal(signal.SIGINT)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.Batches, "epoch", epoch)
        stopped = quick(few, loss=loss, epochs=4, folder=tmp_path)
    assert stopped.interrupted
    assert len(stopped.history) == 1
    assert int(stopped.train_state.step) == 5
    assert checkpoint.steps(tmp_path) == [3, 5]
    resumed = quick(few, epochs=4, folder=tmp_path, resume=True)
    whole = quick(few, epochs=4)
    same_bits(resumed.params, whole.params)
    for a, b in zip(resumed.history, whole.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_a_second_ctrl_c_interrupts_at_once(few):
    import signal

    def twice(record, state):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")

    with pytest.raises(KeyboardInterrupt):
        quick(few, callbacks=[twice])


def test_progress_lines(few, capsys):
    quick(few, test=few, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  train loss ")
    assert "test accuracy 0." in lines[1]


# Batch normalisation


@pytest.mark.slow
@pytest.mark.parametrize("form", ["sigmoid", "relu"])
def test_batch_normalised_lenet_passes_lenet_at_equal_epochs(form):
    """Same optimiser, rate, batches and epochs; median test accuracy of five seeds."""
    options = {"activation": "sigmoid", "pooling": "avg"} if form == "sigmoid" else {}
    parts = data.load()
    medians = {}
    for batch_norm in (False, True):
        found = []
        for seed in range(5):
            result = train.fit(
                models.lenet(batch_norm=batch_norm, **options),
                parts.train,
                test=parts.test,
                loss=CE,
                optimizer=optax.sgd(0.1),
                epochs=5,
                batch_size=64,
                seed=seed,
            )
            found.append(result.history[-1]["test_accuracy"])
        medians[batch_norm] = statistics.median(found)
    print(form, medians)
    assert medians[True] > medians[False]
    assert medians[True] > 0.9


# The recipes of the command line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "recipe", "wanted"),
    [
        ("lenet", "default", 0.97),
        ("lenet", "book", 0.97),
        ("mlp", "default", 0.96),
        ("mlp", "book", 0.95),
        ("softmax_regression", "default", 0.94),
    ],
)
def test_recipes_learn_the_digits(network, recipe, wanted):
    """Test accuracy, median of five seeds, of `jaxd2l train NETWORK --recipe RECIPE`."""
    chosen = recipes.recipe(network, recipe)
    parts = recipes.load_data(chosen.task)
    found = []
    for seed in range(5):
        result = train.fit(
            models.build(network, **chosen.options),
            parts.train,
            test=parts.test,
            loss=recipes.loss_of(chosen.task),
            optimizer=recipes.OPTIMIZERS[chosen.optimizer](chosen.learning_rate),
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            seed=seed,
        )
        found.append(result.history[-1]["test_accuracy"])
    print(network, recipe, found)
    assert statistics.median(found) >= wanted
