"""What the notes claim about the start of training: equal weights, zero weights, their scale.

Facts that need no long training; the rest is in experiments/claims_initialisation.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import apply, init
from jaxd2l.layers import Activation, BatchNorm, Dense, Flatten, Serial
from jaxd2l.models import linear_regression, mlp, softmax_regression
from jaxd2l.ops import losses
from jaxd2l.ops.initializers import Constant, HeNormal, LecunNormal, Normal, XavierNormal

X = np.random.RandomState(0).randn(24, 6)
LABELS = np.random.RandomState(1).randint(0, 3, 24)


def start(net, value=None, seed=0, shape=(6,)):
    """Parameters in float64: every kernel equal to `value`, or as the layers draw them."""
    overrides = None if value is None else {"*/kernel": Constant(value)}
    return init(net, jax.random.key(seed), shape, dtype=jnp.float64, initializers=overrides)[0]


def mean_loss(net, params, x, labels):
    return losses.softmax_cross_entropy(apply(net, params, {}, x)[0], labels).mean()


def descend(net, params, steps, rate, loss=mean_loss, data=(X, LABELS)):
    """Gradient descent on all the examples; `rate` is a number, or one for each leaf."""
    data = tuple(map(jnp.asarray, data))
    rates = rate if isinstance(rate, dict) else jax.tree.map(lambda _: rate, params)

    @jax.jit
    def run(params):
        def step(_, params):
            grads = jax.grad(lambda p: loss(net, p, *data))(params)
            return jax.tree.map(lambda p, g, r: p - r * g, params, grads, rates)

        return jax.lax.fori_loop(0, steps, step, params)

    return run(params)


def logits(net, params, x=X):
    return np.asarray(apply(net, params, {}, jnp.asarray(x))[0])


# Equal weights without hidden layers


@pytest.mark.smoke
def test_c1_equal_weights_are_zero_weights_in_softmax_regression(x64):
    """Equal kernels give equal logits, which softmax does not see: the paths differ by c."""
    net = softmax_regression(3)
    zero, half = (descend(net, start(net, c), 60, 0.5) for c in (0.0, 0.5))
    np.testing.assert_allclose(half["output"]["kernel"], zero["output"]["kernel"] + 0.5, atol=1e-12)
    np.testing.assert_allclose(half["output"]["bias"], zero["output"]["bias"], atol=1e-12)
    kernel = np.asarray(zero["output"]["kernel"])
    assert np.abs(kernel[:, 0] - kernel[:, 1]).max() > 0.1  # the classes do not stay equal


def test_c1_the_first_gradient_from_equal_weights_differs_by_class(x64):
    """It is x^T (1/c - y) / n: the symmetry is broken by the labels."""
    net = softmax_regression(3)
    grads = jax.grad(lambda p: mean_loss(net, p, jnp.asarray(X), jnp.asarray(LABELS)))(
        start(net, 0.5)
    )
    wanted = X.T @ (1 / 3 - np.eye(3)[LABELS]) / 24
    np.testing.assert_allclose(grads["output"]["kernel"], wanted, atol=1e-14)


def test_c1_softmax_regression_from_any_start_ends_at_one_loss(x64):
    net = softmax_regression(3)
    ends = [descend(net, start(net, c, seed), 3000, 0.5) for c, seed in ((0, 0), (2, 0), (None, 3))]
    x, labels = jnp.asarray(X), jnp.asarray(LABELS)
    found = [float(mean_loss(net, params, x, labels)) for params in ends]
    np.testing.assert_allclose(found, found[0], rtol=1e-6)
    assert found[0] < np.log(3) - 0.05


def test_c3_linear_regression_from_equal_weights_is_least_squares(x64):
    net, y = linear_regression(), X @ np.arange(1.0, 7)[:, None] + 0.1 * X[:, :1] ** 2

    def loss(net, params, x, y):
        return losses.squared_loss(apply(net, params, {}, x)[0], y).mean()

    wanted = np.linalg.lstsq(np.column_stack([X, np.ones(24)]), y, rcond=None)[0]
    for value, seed in ((0.0, 0), (3.0, 0), (None, 1)):
        params = descend(net, start(net, value, seed), 3000, 0.3, loss, (X, y))["linear"]
        np.testing.assert_allclose(params["kernel"], wanted[:6], atol=1e-8)
        np.testing.assert_allclose(params["bias"], wanted[6], atol=1e-8)


# Equal weights with hidden layers


@pytest.mark.parametrize("kind", ["relu", "sigmoid"])
def test_c2_equal_units_stay_equal_for_ever(x64, kind):
    net = mlp((5, 4), 3, kind)
    before = start(net, 0.3)
    after = descend(net, before, 50, 0.5)
    for name in ("dense1", "dense2"):
        kernel = np.asarray(after[name]["kernel"])
        assert np.abs(kernel - before[name]["kernel"]).max() > 1e-3  # something is learnt
        assert np.ptp(kernel, axis=1).max() < 1e-15  # the same by every unit
    assert np.ptp(np.asarray(after["output"]["kernel"]), axis=0).max() < 1e-15


def test_c2_a_layer_of_equal_units_is_one_unit(x64):
    """n equal units with the output weights w_i are one with the sum of them; its own rate is
    1/n of theirs, since each of them has 1/n of the gradient, and the output's n times theirs."""
    n, rate = 5, 0.2
    wide, narrow = mlp((n,), 3, "tanh"), mlp((1,), 3, "tanh")
    params = start(wide, 0.3)
    one = {
        "dense1": jax.tree.map(lambda a: a[..., :1], params["dense1"]),
        "output": {
            "kernel": params["output"]["kernel"].sum(0, keepdims=True),
            "bias": params["output"]["bias"],
        },
    }
    rates = {
        "dense1": {"kernel": rate / n, "bias": rate / n},
        "output": {"kernel": rate * n, "bias": rate},
    }
    found = logits(wide, descend(wide, params, 80, rate))
    np.testing.assert_allclose(logits(narrow, descend(narrow, one, 80, rates)), found, atol=1e-11)
    assert np.ptp(found, axis=0).min() > 0.05
    assert np.linalg.matrix_rank(found - found.mean(0), tol=1e-9) == 1  # along one direction only


def test_c2_from_random_weights_the_units_differ(x64):
    net = mlp((5,), 3, "relu")
    kernel = descend(net, start(net), 50, 0.5)["dense1"]["kernel"]
    assert np.ptp(np.asarray(kernel), axis=1).min() > 0.05


def permuted(params, order):
    """The hidden units in another order: the same function."""
    first, last = params["dense1"], params["output"]
    return {
        "dense1": {"kernel": first["kernel"][:, order], "bias": first["bias"][order]},
        "output": {"kernel": last["kernel"][order], "bias": last["bias"]},
    }


@pytest.mark.parametrize("kind", ["relu", "tanh"])
def test_c6_gradient_descent_commutes_with_permuting_units(x64, kind):
    """Why equal units stay equal: exchanging them changes neither the start nor, so, the end."""
    net, order = mlp((5,), 3, kind), np.array([3, 0, 4, 1, 2])
    params = start(net, seed=2)
    np.testing.assert_allclose(logits(net, permuted(params, order)), logits(net, params))
    wanted = permuted(descend(net, params, 20, 0.5), order)
    found = descend(net, permuted(params, order), 20, 0.5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, wanted)


# Zero weights


@pytest.mark.parametrize("kind", ["relu", "tanh"])
def test_c4_with_zero_weights_no_weight_ever_learns(x64, kind):
    """Only the last bias does: it ends at the frequencies of the classes."""
    net = mlp((5, 4), 3, kind)
    params = descend(net, start(net, 0.0), 3000, 0.5)
    for name in ("dense1", "dense2", "output"):
        assert not np.asarray(params[name]["kernel"]).any()
    found = jax.nn.softmax(params["output"]["bias"])
    np.testing.assert_allclose(found, np.bincount(LABELS) / 24, atol=1e-9)


def test_c4_zero_biases_do_no_harm_and_linear_models_take_zero_weights(x64):
    x, labels = jnp.asarray(X), jnp.asarray(LABELS)
    net = mlp((16,), 3)
    params = start(net)
    assert not any(np.asarray(params[name]["bias"]).any() for name in params)
    after = descend(net, params, 300, 0.5)
    assert mean_loss(net, after, x, labels) < 0.25 * mean_loss(net, params, x, labels)
    assert all((np.asarray(after[name]["bias"]) != 0).any() for name in after)
    linear = softmax_regression(3)
    assert np.abs(descend(linear, start(linear, 0.0), 1, 0.5)["output"]["kernel"]).min() > 1e-4


def test_c4_a_sigmoid_of_zero_is_a_half_so_that_zero_weights_do_learn_but_all_alike(x64):
    net = mlp((5,), 3, "sigmoid")
    kernel = np.asarray(descend(net, start(net, 0.0), 200, 0.5)["dense1"]["kernel"])
    assert np.abs(kernel).max() > 1e-3
    assert np.ptp(kernel, axis=1).max() < 1e-15


# Scale


def test_e7_one_over_the_root_of_the_fan_in_and_not_of_the_units():
    """The notes' 1/16 is right for 256 inputs; a first layer of 784 takes 1/28."""
    for shape, wanted in (((784, 256), 1 / 28), ((256, 10), 1 / 16)):
        mean, deviation = LecunNormal().stretch(shape, None)
        assert (mean, deviation) == (0, pytest.approx(wanted))
    kernel = np.asarray(LecunNormal()(jax.random.key(0), (256, 10)))
    assert kernel.std() == pytest.approx(1 / 16, rel=0.05)


DEPTH, WIDTH = 12, 128


@functools.cache
def spread(kind):
    """(outputs, gradients): (3 seeds, 5 initialisers, DEPTH) mean squares through a stack."""
    act = jax.nn.relu if kind == "relu" else {"tanh": jnp.tanh, "identity": lambda x: x}[kind]
    inits = (XavierNormal(), HeNormal(), Normal(0.01), Normal(1.0), LecunNormal())

    def layer_by_layer(kernels, x, direction):
        def layer(x, arrays):
            kernel, probe = arrays
            y = act(x @ kernel + probe)
            return y, jnp.mean(y**2)

        def forward(x, probes):
            y, seen = jax.lax.scan(layer, x, (kernels, probes))
            return (y * direction).sum(), seen

        probes = jnp.zeros((DEPTH, *x.shape))
        grads, seen = jax.grad(forward, argnums=1, has_aux=True)(x, probes)
        return seen, jnp.mean(grads**2, axis=(1, 2))

    def one(key):
        x, direction = jax.random.normal(jax.random.fold_in(key, 1), (2, 64, WIDTH))
        fan, shape = (WIDTH, WIDTH), (DEPTH, WIDTH, WIDTH)
        kernels = jnp.stack([make(key, shape, jnp.float32, fan) for make in inits])
        return jax.lax.map(lambda k: layer_by_layer(k, x, direction), kernels)

    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    outputs, gradients = jax.jit(lambda keys: jax.lax.map(one, keys))(keys)
    return np.asarray(outputs), np.asarray(gradients)


@pytest.mark.parametrize(
    ("kind", "good", "slope"), [("identity", 0, 1.0), ("tanh", 0, 0.6), ("relu", 1, 1.0)]
)
def test_c7_xavier_keeps_the_variance_and_he_does_through_relu(kind, good, slope):
    """Over 12 layers; through tanh it falls slowly. 0.01 makes it vanish, 1 explode or saturate."""
    for values, way in zip(spread(kind), (1, -1), strict=True):
        log = np.log(values[..., ::way]).mean(0)  # (initialisers, layers as they are passed)
        growth = (log[:, -1] - log[:, 0]) / (DEPTH - 1)  # per layer
        assert np.log(slope) - 0.15 < growth[good] < 0.15
        assert growth[2] < np.log(0.02)  # N(0, 0.01): 128 * 0.0001 = 0.013 a layer, or half of it
    if kind != "tanh":
        assert growth[3] > np.log(50)  # N(0, 1): 128 a layer, or half of it


def test_c7_xavier_halves_the_variance_of_relu_layers():
    log = np.log(spread("relu")[0][:, 0]).mean(0)
    assert (log[-1] - log[0]) / (DEPTH - 1) == pytest.approx(np.log(0.5), abs=0.15)


def test_c7_weights_of_1_saturate_tanh():
    outputs, gradients = spread("tanh")
    assert outputs[:, 3].min() > 0.8
    assert (gradients[:, 3, 0] / gradients[:, 3, -1]).min() > 50  # and so do not bound the gradient


def test_c8_batch_norm_undoes_the_scale_of_weights_and_divides_their_gradient_by_it(x64):
    """The output is the same for a W as for W; the gradient by W is 1/a of it, the step in
    relation to W so 1/a^2: training does see the scale."""
    norm = [BatchNorm("bn", eps=1e-12), Activation("tanh")]
    net = Serial([Flatten(), Dense("dense1", 5), *norm, Dense("output", 3)])
    params, state = init(net, jax.random.key(0), (6,), dtype=jnp.float64)
    x, labels = jnp.asarray(X), jnp.asarray(LABELS)

    @jax.jit
    def both(scale):
        def loss(kernel):
            changed = {**params, "dense1": {**params["dense1"], "kernel": kernel}}
            outputs, _ = apply(net, changed, state, x, train=True)
            return losses.softmax_cross_entropy(outputs, labels).mean(), outputs

        return jax.grad(loss, has_aux=True)(scale * params["dense1"]["kernel"])

    grads, outputs = both(1.0)
    assert np.abs(grads).max() > 1e-3
    for scale in (0.1, 10.0):
        other, same = both(scale)
        np.testing.assert_allclose(same, outputs, atol=1e-8)
        np.testing.assert_allclose(scale * other, grads, atol=1e-8)
    # so it stands at right angles to W, whose scale the loss does not see
    kernel = np.asarray(params["dense1"]["kernel"])
    assert np.abs((kernel * grads).sum(0)).max() < 1e-8
