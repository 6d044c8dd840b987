"""train.diagnose: what a diagnosis is, what it measures, and what it refuses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import apply, data, init, layers, models, train
from jaxd2l.layers import Activation, Dense, Flatten, Function, Repeat, Serial, Tied
from jaxd2l.ops import losses
from jaxd2l.ops.initializers import Constant
from jaxd2l.train.diagnosis.evidence import gather
from jaxd2l.train.diagnosis.expected import about_loss

CE = losses.softmax_cross_entropy
NET = models.mlp((16,))


@pytest.fixture(scope="module")
def digits():
    return data.load_digits(8)


@pytest.fixture(scope="module")
def fresh():
    return init(NET, jax.random.key(0), (8, 8, 1))


def first(dataset, n=64):
    return dataset.inputs[:n], dataset.targets[:n]


@pytest.mark.smoke
def test_a_healthy_network_has_nothing(digits, fresh):
    found = train.diagnose(NET, *fresh, digits, CE, optimizer=optax.adam(1e-3))
    assert found.causes == ()
    assert str(found) == "nothing found"


def test_a_finding_says_what_where_and_what_to_do(digits, fresh):
    x, t = first(digits)
    found = train.diagnose(NET, *fresh, (255 * x, t), CE, optimizer=optax.adam(1e-3))
    (finding,) = found.findings
    assert (finding.cause, finding.where, finding.limit) == ("inputs_not_normalised", "inputs", 10)
    size = np.abs(255 * x).reshape(64, -1).mean(0).max()
    assert finding.value == pytest.approx(size, rel=1e-5)
    text = str(found)
    assert text.startswith("inputs_not_normalised at inputs: a feature that dense1 reads has")
    assert "standardise" in text
    assert "not judged, as inputs_not_normalised would explain it: dead_units" in text
    assert found.unjudged["learning_rate"] == "inputs_not_normalised would explain it"


def test_two_faults_that_do_not_explain_each_other_are_both_found(digits, fresh):
    x, t = first(digits)
    params = {**fresh[0], "dense1": jax.tree.map(jnp.zeros_like, fresh[0]["dense1"])}
    found = train.diagnose(NET, params, fresh[1], (x, t + 1), CE)
    assert found.causes == ("labels_out_of_range", "symmetric_initialisation")


def test_batches_pairs_and_data_sets_are_read_alike(digits, fresh):
    x, t = first(digits, 40)
    bad = np.where(np.arange(40) < 30, t, 99).astype(np.int32)
    batch = data.Batch(x, bad, np.arange(40) < 30, np.arange(40))
    assert train.diagnose(NET, *fresh, batch, CE).causes == ()  # the bad ones are padding
    assert train.diagnose(NET, *fresh, (x, bad), CE).causes == ("labels_out_of_range",)
    late = data.Dataset(digits.inputs, np.where(np.arange(len(digits)) == 1796, 99, digits.targets))
    assert train.diagnose(NET, *fresh, late, CE).causes == ("labels_out_of_range",)


def test_small_batches_are_not_judged_where_they_say_little(digits, fresh):
    found = train.diagnose(NET, *fresh, first(digits, 4), CE)
    assert found.causes == ()
    assert set(found.unjudged) == {"classes_imbalanced", "dead_units", "outputs_biased"}
    assert "fewer than 16 examples: dead_units, outputs_biased" in str(found)


def test_gradients_are_those_of_the_mean_loss(digits, fresh):
    x, t = first(digits)
    seen = gather(NET, *fresh, (x, t), CE, jax.random.key(0))
    slopes = jax.grad(lambda p: CE(apply(NET, p, fresh[1], x)[0], t).mean())(fresh[0])
    assert [k.path for k in seen.kernels] == ["dense1/kernel", "output/kernel"]
    for kernel in seen.kernels:
        name = kernel.path.split("/")[0]
        np.testing.assert_allclose(kernel.gradient, slopes[name]["kernel"], rtol=1e-4, atol=1e-7)
        w = np.asarray(fresh[0][name]["kernel"], np.float64)
        assert kernel.gain == pytest.approx(np.sqrt((w**2).mean() * w.shape[0]))
        size = max(np.linalg.norm(w), np.sqrt(w.shape[1]))
        expected = np.linalg.norm(slopes[name]["kernel"]) / size
        assert kernel.relative_gradient == pytest.approx(expected, rel=1e-4)


def test_units_are_counted_by_layer(digits, fresh):
    x, t = first(digits)
    bias = np.where(np.arange(16) < 11, -9.0, 0.0).astype(np.float32)
    params = {**fresh[0], "dense1": {**fresh[0]["dense1"], "bias": jnp.asarray(bias)}}
    hidden = np.asarray(
        layers.outputs_at(NET, params, fresh[1], jnp.asarray(x), ["dense1"])["dense1"]
    )
    dead = (hidden <= 0).all(0)
    seen = gather(NET, params, fresh[1], (x, t), CE, jax.random.key(0))
    ((where, figures),) = seen.activations
    assert where == "relu after dense1"
    assert figures["dead"].tolist() == dead.tolist()
    assert dead[:11].all()


def test_repetitions_are_told_apart(digits):
    block = Serial([Dense("d", 16), Activation("relu")])
    net = Serial([Flatten(), Dense("in", 16), Repeat(block, 3, name="blocks"), Dense("output", 10)])
    params, state = init(net, jax.random.key(0), (8, 8, 1))
    params["blocks"]["d"]["kernel"] = params["blocks"]["d"]["kernel"].at[1].multiply(30.0)
    params["blocks"]["d"]["bias"] = params["blocks"]["d"]["bias"].at[2].add(-1e4)
    found = train.diagnose(net, params, state, first(digits), CE)
    assert [(f.cause, f.where) for f in found.findings] == [
        ("weights_too_large", "blocks[1]/d/kernel"),
        ("dead_units", "relu after blocks/d[2]"),
    ]


@pytest.mark.slow
def test_tied_layers_functions_and_flax_modules_are_let_through(digits):
    class Module(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(10)(nn.relu(nn.Dense(16)(x.reshape(x.shape[0], -1))))

    hidden = Dense("hidden", 64)
    tied = Serial([Flatten(), hidden, Tied("again", hidden, to="hidden"), Dense("output", 10)])
    flax_net = layers.FlaxModule("flax", Module())
    x, t = first(digits)
    for net in (tied, flax_net):
        params, state = init(net, jax.random.key(0), (8, 8, 1))
        found = [train.diagnose(net, params, state, (c * x, t), CE).causes for c in (1, 255)]
        assert found == [(), ("inputs_not_normalised",)]


def test_what_the_first_kernel_reads_counts(digits):
    scaled = data.Dataset(255 * digits.inputs, digits.targets)
    for start in (Function(lambda x: x / 255), layers.BatchNorm("bn")):
        net = Serial([start, *NET.layers])
        params, state = init(net, jax.random.key(0), (8, 8, 1))
        assert train.diagnose(net, params, state, scaled, CE).causes == ()


def test_kernels_that_may_start_from_zero_are_healthy(digits):
    zero = Serial([Flatten(), Dense("h", 16), Activation("relu"),
                   Dense("output", 10, kernel_init=Constant(0.0))])  # fmt: skip
    params, state = init(zero, jax.random.key(0), (8, 8, 1))
    assert train.diagnose(zero, params, state, digits, CE).causes == ()


def test_a_flat_loss_at_the_optimum_is_no_fault():
    x = np.random.RandomState(0).randn(64, 2).astype(np.float32)
    net = models.linear_regression()
    best = {"linear": {"kernel": jnp.array([[2.0], [-3.0]]), "bias": jnp.zeros(1)}}
    y = x @ np.array([[2.0], [-3.0]], np.float32)
    slow = optax.sgd(1e-6)
    for noise in (0.0, 0.1):
        t = y + noise * np.random.RandomState(1).randn(64, 1).astype(np.float32)
        found = train.diagnose(net, best, {}, (x, t), losses.squared_loss, optimizer=slow)
        assert found.causes == ()


def test_a_batch_norm_of_one_example(digits):
    net = Serial([Flatten(), Dense("h", 8), layers.BatchNorm("bn"), Dense("output", 10)])
    params, state = init(net, jax.random.key(0), (8, 8, 1))
    (finding,) = train.diagnose(net, params, state, first(digits, 1), CE).findings
    assert (finding.cause, finding.where) == ("batch_of_one", "bn")


def test_a_loss_that_breaks_is_traced_to_a_layer(digits, fresh):
    net = Serial([Flatten(), Dense("dense1", 16), Function(lambda x: jnp.log(x - 1e3)),
                  Dense("output", 10)])  # fmt: skip
    (finding,) = train.diagnose(net, *fresh, first(digits), CE).findings
    assert (finding.cause, finding.where) == ("loss_not_finite", "output")


def test_what_a_loss_takes_is_found_by_calling_it():
    y, t = np.zeros((6, 3), np.float32), np.arange(6) % 3
    hot = np.eye(3, dtype=np.float32)[t]
    kinds = [
        (losses.softmax_cross_entropy, y, t, "logits", np.log(3)),
        (lambda y, t: 2 * losses.softmax_cross_entropy(y, t), y, t, "logits", 2 * np.log(3)),
        (losses.softmax_cross_entropy_with_probabilities, y, hot, "logits", np.log(3)),
        (losses.sigmoid_cross_entropy, y, hot, "binary logits", np.log(2)),
        (losses.cross_entropy, y, t, "probabilities", np.log(3)),
        (losses.squared_loss, y, hot, None, hot.var(0).mean() / 2),
        (lambda y, t: y[:, 0] - t, y, t, None, np.inf),
    ]
    for loss, outputs, targets, kind, baseline in kinds:
        found, cost = about_loss(loss, outputs, targets)
        assert found == kind
        assert cost == pytest.approx(baseline, rel=1e-5)


def test_mistakes_are_refused(digits, fresh):
    x, t = first(digits)
    with pytest.raises(TypeError, match="expected a network"):
        train.diagnose(apply, *fresh, (x, t), CE)
    with pytest.raises(TypeError, match=r"batch must be \(inputs, targets\)"):
        train.diagnose(NET, *fresh, x, CE)
    with pytest.raises(ValueError, match="same length"):
        train.diagnose(NET, *fresh, (x, t[:5]), CE)
    with pytest.raises(TypeError, match="Optax"):
        train.diagnose(NET, *fresh, (x, t), CE, optimizer=optax.sgd)
    with pytest.raises(ValueError, match="one value per example"):
        train.diagnose(NET, *fresh, (x, t), lambda y, t: CE(y, t).mean())
