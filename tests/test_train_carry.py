"""Training over batches that continue each other: truncated back-propagation through time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import checkpoint, data, init, layers, models, train
from jaxd2l.data import text
from jaxd2l.ops import losses

TOKENS = np.random.RandomState(0).randint(0, 5, 200)
NET = models.gru_lm(5, 6)
ROWS, STEPS = 3, 4


def fit(folder=None, **changes):
    settings = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.5),
        "epochs": 2,
        "batch_size": ROWS,
        "carry": True,
        "folder": folder,
    }
    return train.fit(NET, text.adjacent(TOKENS, ROWS, STEPS), **settings | changes)


@pytest.fixture(scope="module")
def result():
    return fit()


@pytest.mark.smoke
def test_it_is_the_loop_written_by_hand(result):
    """Carry handed on without gradient, from zero in each epoch."""
    dataset = text.adjacent(TOKENS, ROWS, STEPS)
    first = train.start(NET, optax.sgd(0.5), jax.random.key(0), (STEPS,), {})
    params, history = first.params, []

    @jax.jit
    def step(params, carry, x, y):
        def loss(params):
            logits, after, _ = layers.extend(NET, params, {}, x, carry)
            return losses.softmax_cross_entropy(logits, y).mean(), after

        (value, after), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), after, value

    for _ in range(2):
        carry = {"gru1": {"hidden": jnp.zeros((ROWS, 6))}}
        values = []
        for at in range(0, len(dataset), ROWS):
            rows = slice(at, at + ROWS)
            params, carry, value = step(params, carry, dataset.inputs[rows], dataset.targets[rows])
            values.append(float(value))
        history.append(np.mean(values))
    np.testing.assert_allclose([r["train_loss"] for r in result.history], history, rtol=1e-5)
    for ours, by_hand in zip(jax.tree.leaves(result.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, by_hand, rtol=1e-4, atol=1e-6)


def test_the_pure_run_gives_the_same(result):
    dataset = text.adjacent(TOKENS, ROWS, STEPS)
    run = train.make_run(
        NET, losses.softmax_cross_entropy, optax.sgd, epochs=2, batch_size=ROWS, carry=True
    )
    _, history = jax.jit(run)(jax.random.key(0), dataset, {"learning_rate": 0.5})
    found = [r["train_loss"] for r in result.history]
    np.testing.assert_allclose(history["loss"], found, rtol=1e-5)


def test_the_carry_matters(result):
    anew = fit(carry=False)
    assert abs(anew.history[0]["train_loss"] - result.history[0]["train_loss"]) > 1e-4


def test_a_run_taken_up_in_the_middle_of_an_epoch_ends_in_the_same_bits(result, tmp_path):
    fit(tmp_path, save_every=5, keep_last=100)
    _, middle, *later = sorted(tmp_path.glob("step_*"))
    assert middle.name == "step_00000010.safetensors"  # an epoch has 16
    assert np.abs(checkpoint.load_flat(middle)["carry/gru1/hidden"]).max() > 0
    for file in later:
        file.unlink()
    again = fit(tmp_path, resume=True)
    for ours, other in zip(
        jax.tree.leaves(again.params), jax.tree.leaves(result.params), strict=True
    ):
        np.testing.assert_array_equal(ours, other)
    loaded = train.load(tmp_path)
    assert loaded.net == NET
    assert loaded.state == {}


def test_statistics_and_carry_are_kept_apart():
    net = layers.Serial(
        [layers.OneHot(5), layers.GRU("gru", 6), layers.BatchNorm("bn"), layers.Dense("output", 5)]
    )
    dataset = text.adjacent(TOKENS, ROWS, STEPS)
    found = train.fit(
        net,
        dataset,
        loss=losses.softmax_cross_entropy,
        optimizer=optax.sgd(0.1),
        epochs=1,
        batch_size=ROWS,
        carry=True,
    )
    assert set(found.state) == {"bn"}
    assert set(found.train_state.carry) == {"gru"}
    assert float(np.abs(found.state["bn"]["mean"]).max()) > 0


@pytest.mark.parametrize(
    ("net", "batch_size", "error", "told"),
    [
        (NET, 5, ValueError, "must divide the 48 examples"),
        (models.gpt(5, 8, 2, 1, 8), ROWS, ValueError, "needs length="),
        (models.textcnn(5, 5, 4), ROWS, ValueError, "no layer of the network has a carry"),
        (train.model_of(NET), ROWS, TypeError, "carry=True needs a network"),
    ],
)
def test_what_cannot_be_carried_is_refused(net, batch_size, error, told):
    with pytest.raises(error, match=told):
        train.fit(
            net,
            text.adjacent(TOKENS, ROWS, STEPS),
            loss=losses.softmax_cross_entropy,
            optimizer=optax.sgd(0.1),
            epochs=1,
            batch_size=batch_size,
            carry=True,
        )


def test_tokens_beyond_the_network_are_refused_before_training():
    dataset = data.Dataset(np.array([[0, 7]]), np.array([[1, 2]]))
    call = {"loss": losses.softmax_cross_entropy, "optimizer": optax.sgd(0.1)}
    with pytest.raises(ValueError, match=r"knows 5 tokens, too few for train: .*token 7 at index"):
        train.fit(NET, dataset, epochs=1, batch_size=1, **call)
    dataset = data.Dataset(np.array([[0, 4]]), np.array([[1, 9]]))
    with pytest.raises(ValueError, match="5 outputs, too few for train"):
        train.fit(NET, dataset, epochs=1, batch_size=1, **call)


def test_tokens_are_no_numbers():
    dataset = data.Dataset(np.array([[0, 7]]), np.array([1]))
    call = {"loss": losses.softmax_cross_entropy, "optimizer": optax.sgd(0.1)}
    with pytest.raises(TypeError, match="no Embedding or OneHot to read them"):
        train.fit(models.mlp((4,)), dataset, epochs=1, batch_size=1, **call)


def test_a_whole_sequence_at_once_and_in_detached_pieces_give_the_same_outputs():
    params, state = init(NET, jax.random.key(0), (STEPS,))
    x = jnp.asarray(TOKENS[:24].reshape(2, 12))
    whole, _ = layers.extend(NET, params, state, x, layers.initial_carry(NET, x))[:2]
    carry, pieces = layers.initial_carry(NET, x), []
    for at in range(0, 12, STEPS):
        carry = jax.lax.stop_gradient(carry)
        y, carry, _ = layers.extend(NET, params, state, x[:, at : at + STEPS], carry)
        pieces.append(y)
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), whole, rtol=1e-5, atol=1e-6)
