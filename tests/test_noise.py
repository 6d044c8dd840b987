"""Noise on inputs, hidden units and weights: its law, and whose it is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import jaxd2l
from jaxd2l import layers, models, records, train
from jaxd2l.ops import losses, noise

KEY = jax.random.key(0)
draw = jax.jit(noise.gaussian_noise)
relative = jax.jit(noise.multiplicative_noise)


@pytest.mark.smoke
def test_noise_is_normal_with_the_scale_asked_for():
    x = jnp.full((200, 50), 3.0)
    added = np.asarray(draw(x, 0.5, KEY) - x).ravel() / 0.5
    assert stats.kstest(added, "norm").pvalue > 0.01
    scaled = np.asarray(relative(x, 0.5, KEY))
    np.testing.assert_allclose(scaled, 3 * (1 + 0.5 * added.reshape(200, 50)), atol=1e-5)
    rows = np.corrcoef(added.reshape(200, 50))
    assert abs(rows[~np.eye(200, dtype=bool)]).mean() < 0.15  # 1/sqrt(50) * sqrt(2/pi) = 0.11


def test_gaussian_dropout_has_the_mean_and_variance_of_dropout():
    """RE7: scale sqrt(p / (1 - p)) for rate p."""
    rate = 0.2
    x = jnp.full((200, 50), 2.0)
    y = np.asarray(relative(x, (rate / (1 - rate)) ** 0.5, KEY), np.float64)
    np.testing.assert_allclose(y.mean(), 2.0, atol=0.03)
    np.testing.assert_allclose(y.var(), 4 * rate / (1 - rate), rtol=0.05)


def test_the_noise_of_an_example_is_its_own():
    """Not of the batch, the position or the device it is in."""
    x = jnp.zeros((8, 5))
    whole = draw(x, 1.0, KEY)
    order = jnp.asarray([6, 1, 3])
    got = draw(x[:3], 1.0, KEY, examples=order)
    np.testing.assert_allclose(got, whole[order], rtol=1e-6)
    assert len({row.tobytes() for row in np.asarray(whole)}) == 8

    def local(x):
        examples = jax.lax.axis_index("data") * 2 + jnp.arange(2)
        return noise.gaussian_noise(x, 1.0, KEY, examples=examples)

    parts = jax.pmap(local, "data")(x.reshape(4, 2, 5))
    np.testing.assert_allclose(parts.reshape(8, 5), whole, rtol=1e-6)  # the same random bits


def test_dtypes_gradients_and_refusals(strict_promotion):
    x = jnp.ones((2, 3), jnp.bfloat16)
    for f in (noise.gaussian_noise, noise.multiplicative_noise):
        y, slope = jax.value_and_grad(lambda s, f=f: f(x, s, KEY).sum())(jnp.bfloat16(0.5))
        assert y.dtype == slope.dtype == jnp.bfloat16
        assert np.isfinite(float(slope))
    name = "multiplicative_noise"
    with pytest.raises(ValueError, match=f"{name}: scale must be at least 0, got -1"):
        noise.multiplicative_noise(x, -1, KEY)
    with pytest.raises(TypeError, match=f"{name}: x must be floating point"):
        noise.multiplicative_noise(jnp.ones((2, 3), int), 0.5, KEY)
    with pytest.raises(ValueError, match="leading batch axis"):
        noise.gaussian_noise(jnp.ones(()), 0.5, KEY)


# --- the layer ------------------------------------------------------------------------------------


def test_the_layer_is_noise_in_training_only_with_its_own_key():
    net = layers.Serial([layers.GaussianNoise("input", 0.5), layers.GaussianNoise("hidden", 0.5)])
    x = jnp.zeros((4, 6))
    same, _ = jaxd2l.apply(net, {}, {}, x)
    np.testing.assert_array_equal(same, x)
    both, _ = jaxd2l.apply(net, {}, {}, x, key=KEY, train=True)
    parts = [
        noise.gaussian_noise(x, 0.5, layers.fold_path(KEY, (name,))) for name in ("input", "hidden")
    ]
    np.testing.assert_allclose(both, parts[0] + parts[1], rtol=1e-6)
    assert records.load(records.dump(net)) == net
    off = layers.GaussianNoise("off", 0)
    np.testing.assert_array_equal(jaxd2l.apply(off, {}, {}, x, train=True)[0], x)  # needs no key
    table = jaxd2l.summarize(layers.Serial([net, layers.Conv("conv", 2, (3,))]), (6, 2))
    assert table.parameters == 14
    with pytest.raises(ValueError, match="pass key="):
        jaxd2l.apply(net, {}, {}, x, train=True)
    with pytest.raises(ValueError, match=r"GaussianNoise 'a': scale .* must be >= 0, got -1"):
        layers.GaussianNoise("a", -1)
    with pytest.raises(TypeError, match="multiplicative must be True or False"):
        layers.GaussianNoise("a", 1, "yes")


# --- weights --------------------------------------------------------------------------------------


def test_weights_are_disturbed_in_training_only():
    net = layers.Serial([layers.Dense("a", 50), layers.Dense("b", 1)])
    noisy = train.with_weight_noise(net, 0.5)
    params, state = noisy.init(KEY, (40,))
    plain, _ = jaxd2l.init(net, KEY, (40,))
    np.testing.assert_array_equal(params["a"]["kernel"], plain["a"]["kernel"])
    x = jnp.eye(40)

    @jax.jit
    def hidden(key):
        seen = train.with_weight_noise(net.layers[0], 0.5)
        return seen.apply({"a": params["a"]}, {}, x, key=key, train=True)[0]

    # each row of the identity shows a row of the kernel; the bias stays
    e = np.asarray(hidden(KEY) - params["a"]["bias"] - params["a"]["kernel"]) / 0.5
    assert stats.kstest(e.ravel(), "norm").pvalue > 0.01
    assert (np.asarray(hidden(jax.random.key(1))) != np.asarray(hidden(KEY))).all()
    tested, _ = noisy.apply(params, state, x, key=KEY, train=False)
    np.testing.assert_array_equal(tested, jaxd2l.apply(net, params, state, x)[0])
    with pytest.raises(ValueError, match="weights are random in training"):
        noisy.apply(params, state, x, train=True)
    with pytest.raises(ValueError, match="scale must be at least 0, got -1"):
        train.with_weight_noise(net, -1)


def test_the_mean_loss_grows_by_half_the_trace_of_the_hessian():
    """For a linear model exactly: scale^2 / 2 sum_i |x_i|^2 / n, whatever the weights."""
    random = np.random.RandomState(0)
    x, y = (jnp.asarray(random.normal(size=s), jnp.float32) for s in ((20, 3), (20, 1)))
    noisy = train.with_weight_noise(models.linear_regression(), 0.3)
    params = {"linear": {"kernel": jnp.ones((3, 1)), "bias": jnp.zeros(1)}}

    @jax.jit
    def loss(keys):
        return jax.vmap(
            lambda k: losses.squared_loss(noisy.apply(params, {}, x, key=k, train=True)[0], y)
        )(keys).mean(axis=(1, 2))

    drawn = np.asarray(loss(jax.random.split(KEY, 4000)), np.float64)
    clean = float(losses.squared_loss(x @ params["linear"]["kernel"], y).mean())
    wanted = clean + 0.3**2 / 2 * float((x**2).sum()) / 20
    assert abs(drawn.mean() - wanted) < 3 * drawn.std() / 4000**0.5


@pytest.mark.slow
def test_a_run_learns_through_weight_noise():
    random = np.random.RandomState(0)
    x = random.normal(size=(32, 2)).astype(np.float32)
    y = (x @ [[1.0], [-2.0]]).astype(np.float32)
    noisy = train.with_weight_noise(models.linear_regression(), 0.1)
    run = train.make_run(noisy, losses.squared_loss, optax.sgd, epochs=20, batch_size=8)
    params, _ = jax.jit(lambda key: run(key, (x, y), {"learning_rate": 0.2}))(KEY)
    np.testing.assert_allclose(params["linear"]["kernel"].ravel(), [1.0, -2.0], atol=0.15)
