"""train.find_rate: the rates tried, the rule, and that what it suggests trains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import data, models, train
from jaxd2l.ops import losses

LINEAR = models.linear_regression()


@pytest.fixture(scope="module")
def digits():
    return data.load_digits(8)


def quadratic(curvatures):
    """Linear regression through the origin of the features, of Hessian diag(curvatures)."""
    scales = np.sqrt(np.asarray(curvatures, np.float32))
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
    x = signs * scales
    return x, x @ (np.array([[3.0], [-2.0]], np.float32) / scales[:, None])


def smoothed(values):
    total, out = 0.0, []
    for i, value in enumerate(np.asarray(values, np.float64), 1):
        total = 0.8 * total + 0.2 * (value if np.isfinite(value) else np.inf)
        out.append(total / (1 - 0.8**i))
    return np.array(out)


@pytest.mark.smoke
def test_rates_losses_and_rule_equal_a_plain_loop():
    x, y = quadratic([1.0, 4.0])
    found = train.find_rate(
        LINEAR, losses.squared_loss, optax.sgd, jax.random.key(0), (x, y), batch_size=4, steps=40
    )
    rates = 1e-6 * (10 / 1e-6) ** (np.arange(40) / 39)
    np.testing.assert_allclose(found.rates, rates, rtol=1e-4)
    first = train.start(LINEAR, optax.sgd(0.1), jax.random.key(0), (2,), {}).params["linear"]
    w, b, expected = np.float64(first["kernel"]), np.float64(first["bias"]), []
    for rate in rates:
        error = x @ w + b - y
        expected.append(np.mean(error**2) / 2)
        w, b = w - rate * x.T @ error / 4, b - rate * error.mean(0)
    stable = np.asarray(found.losses) < 1e6  # beyond it rounding grows too
    np.testing.assert_allclose(
        np.asarray(found.losses)[stable], np.array(expected)[stable], rtol=2e-3
    )
    np.testing.assert_allclose(found.smoothed, smoothed(found.losses), rtol=1e-4)
    assert found.suggestion == pytest.approx(rates[np.argmin(smoothed(expected))] / 10, rel=1e-4)


def test_on_a_quadratic_it_is_stable_and_follows_the_curvature():
    """The largest stable rate is 2 / lambda; the suggestion is below, by less than a factor 100."""

    def search(data, key):
        return train.find_rate(LINEAR, losses.squared_loss, optax.sgd, key, data, batch_size=4)

    curvatures = [1.0, 10.0, 100.0]
    x, y = (
        jnp.stack(part) for part in zip(*(quadratic([1.0, c]) for c in curvatures), strict=True)
    )
    found = jax.jit(jax.vmap(search, (0, None)))((x, y), jax.random.key(0)).suggestion
    for rate, largest in zip(np.asarray(found), curvatures, strict=True):
        assert 0.02 / largest < rate < 2 / largest


def test_batches_are_those_of_epochs():
    seen = []

    def loss(y, t):
        jax.debug.callback(lambda t: seen.append(np.asarray(t)), t, ordered=True)
        return losses.squared_loss(y, t)

    n = 10
    x, y = np.ones((n, 1), np.float32), np.arange(n, dtype=np.float32)[:, None]
    train.find_rate(LINEAR, loss, optax.sgd, jax.random.key(0), (x, y), batch_size=5, steps=4,
                    highest=1e-3)  # fmt: skip
    jax.effects_barrier()
    epochs = np.concatenate(seen[-4:]).reshape(2, n)  # four batches of 5 are two epochs of 10
    assert np.sort(epochs).tolist() == 2 * [list(range(n))]
    assert (epochs[0] != epochs[1]).any()


def test_a_search_that_never_diverges_and_one_that_does_at_once():
    x, y = quadratic([1.0, 1.0])
    common = (LINEAR, losses.squared_loss, optax.sgd, jax.random.key(0), (x, y))
    low = train.find_rate(*common, batch_size=4, highest=1e-2, steps=20)
    assert low.suggestion == pytest.approx(1e-3)
    wild = train.find_rate(*common, batch_size=4, lowest=1e3, highest=1e9, steps=20)
    assert not np.isfinite(wild.smoothed).all()
    assert wild.suggestion == pytest.approx(1e2)  # the first rate was too high already


def test_it_starts_from_given_parameters():
    x, y = quadratic([1.0, 1.0])
    best = {"linear": {"kernel": jnp.array([[3.0], [-2.0]]), "bias": jnp.zeros(1)}}, {}
    found = train.find_rate(LINEAR, losses.squared_loss, optax.sgd, jax.random.key(0), (x, y),
                            batch_size=4, steps=5, initial=best)  # fmt: skip
    assert np.asarray(found.losses) == pytest.approx(0.0)


def test_mistakes_are_refused():
    x, y = quadratic([1.0, 1.0])
    common = (LINEAR, losses.squared_loss, optax.sgd, jax.random.key(0))
    for bounds in ({"lowest": 0.0}, {"lowest": 1.0, "highest": 0.5}):
        with pytest.raises(ValueError, match="find_rate: lowest must be above 0 and below highest"):
            train.find_rate(*common, (x, y), batch_size=4, **bounds)
    with pytest.raises(ValueError, match="find_rate: steps"):
        train.find_rate(*common, (x, y), batch_size=4, steps=1)
    with pytest.raises(TypeError, match="find_rate: data"):
        train.find_rate(*common, x, batch_size=4)
    with pytest.raises(TypeError, match="find_rate: optimizer"):
        train.find_rate(*common[:2], lambda learning_rate: 3, common[3], (x, y), batch_size=4)


def accuracies(net, dataset, optimizer, seeds, epochs):
    """Training accuracy of the last epoch at the suggested rate, for each seed."""
    run = train.make_run(net, losses.softmax_cross_entropy, optimizer, epochs=epochs, batch_size=64)

    def one(key):
        found = train.find_rate(
            net, losses.softmax_cross_entropy, optimizer, key, dataset, batch_size=64
        )
        _, history = run(key, dataset, {"learning_rate": found.suggestion})
        return history["accuracy"][-1], found.suggestion

    keys = jax.random.split(jax.random.key(0), seeds)
    return jax.jit(lambda keys: jax.lax.map(one, keys))(keys)


def test_what_it_suggests_trains_a_perceptron(digits):
    found, rates = accuracies(models.mlp((32,)), digits, optax.adam, 2, 5)
    assert (found > 0.9).all(), rates


@pytest.mark.slow
def test_what_it_suggests_trains_perceptrons_and_lenet(digits):
    found, rates = accuracies(models.mlp((64,)), digits, optax.sgd, 3, 8)
    assert (found > 0.9).all(), rates
    found, rates = accuracies(models.lenet(), data.load_digits(), optax.adam, 2, 4)
    assert (found > 0.9).all(), rates
