"""Bagging, what members say together, and the bias and variance of learners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import layers, models, optim, train
from jaxd2l.ops import losses

N, B = 12, 5


@pytest.fixture(scope="module")
def points():
    random = np.random.RandomState(0)
    x = random.randn(N, 3).astype(np.float32)
    return jnp.asarray(x), jnp.asarray((x[:, 0] + 0.3 * random.randn(N) > 0).astype(np.int32))


@pytest.fixture(scope="module")
def classifier():
    net = models.softmax_regression(2)
    return train.make_run(net, losses.softmax_cross_entropy, optim.sgd, epochs=2, batch_size=5)


@pytest.fixture(scope="module")
def bag(classifier, points):
    keys = jax.random.split(jax.random.key(0), B)
    return train.bagging(classifier, keys, points, {"learning_rate": 0.5})


@pytest.mark.smoke
def test_members_are_runs_on_their_bootstrap_samples(classifier, points, bag):
    x, y = points
    keys = jax.random.split(jax.random.key(0), B)
    run = jax.jit(classifier)
    for i, key in enumerate(keys):
        rows = train.bootstrap_rows(key, N)
        np.testing.assert_array_equal(bag.rows[i], rows)
        params, history = run(key, (x[rows], y[rows]), {"learning_rate": 0.5})
        member = jax.tree.map(lambda a, i=i: a[i], (bag.outcome.params, bag.outcome.history))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            member,
            (params, history),
        )


def test_the_error_out_of_bag_by_brute_force(points, bag):
    """Every example is predicted by the members that did not see it, and by no other."""
    x, y = (np.asarray(a, np.float64) for a in points)
    kernel, bias = (np.asarray(bag.outcome.params["output"][k]) for k in ("kernel", "bias"))
    wrong, loss, counted = 0, 0.0, 0
    for i in range(N):
        probabilities = []
        for m in range(B):
            if i not in np.asarray(bag.rows[m]).tolist():
                e = np.exp(x[i] @ kernel[m] + bias[m])
                probabilities.append(e / e.sum())
        assert int(bag.out[:, i].sum()) == len(probabilities)
        if not probabilities:
            assert np.isnan(bag.outputs[i]).all()
            continue
        mean = np.mean(probabilities, axis=0)
        np.testing.assert_allclose(np.exp(bag.outputs[i]), mean, rtol=1e-5)
        counted += 1
        wrong += mean.argmax() != y[i]
        loss -= np.log(mean[int(y[i])])
    assert bag.covered == pytest.approx(counted / N)
    assert bag.error["accuracy"] == pytest.approx(1 - wrong / counted)
    assert bag.error["loss"] == pytest.approx(loss / counted, rel=1e-5)


def test_settings_have_a_bag_each_of_the_same_samples(classifier, points, bag):
    keys = jax.random.split(jax.random.key(0), B)
    both = train.bagging(classifier, keys, points, {"learning_rate": [0.5, 5.0]})
    np.testing.assert_array_equal(both.rows, bag.rows)
    assert both.outcome.history["loss"].shape == (2, B, 2)
    np.testing.assert_allclose(both.outputs[0], bag.outputs, rtol=1e-4)
    np.testing.assert_allclose(both.error["loss"][0], bag.error["loss"], rtol=1e-4)


def test_the_share_left_out_is_as_expected():
    """(1 - 1/n)^n of the rows are out of a bag: 1/e for many; within 5 standard errors."""
    n, members = 20, 1000
    keys = jax.random.split(jax.random.key(1), members)
    rows = jax.jit(jax.vmap(lambda key: train.bootstrap_rows(key, n)))(keys)
    counts = np.stack([np.bincount(r, minlength=n) for r in np.asarray(rows)])
    share = (counts == 0).mean(axis=1)
    expected = (1 - 1 / n) ** n
    assert abs(share.mean() - expected) < 5 * share.std() / np.sqrt(members)
    assert counts.sum() == n * members


def test_averages_by_weights_per_example():
    random = np.random.RandomState(0)
    logits, weights = random.randn(4, 3, 5), random.randint(0, 3, (4, 3))
    weights[:, 1] = 0
    e = np.exp(logits)
    p = e / e.sum(-1, keepdims=True)
    given = jnp.asarray(logits, jnp.float32)
    average = jax.jit(lambda *a: (train.average_probabilities(*a), train.average_values(*a)))
    logarithms, values = average(given, weights)
    out = np.exp(logarithms)
    for i in (0, 2):
        w = weights[:, i, None] / weights[:, i].sum()
        np.testing.assert_allclose(out[i], (w * p[:, i]).sum(0), rtol=1e-5)
        np.testing.assert_allclose(values[i], (w * logits[:, i]).sum(0), rtol=1e-4, atol=1e-6)
    assert np.isnan(out[1]).all()
    assert np.isnan(values[1]).all()
    plain = average(given)[0]
    np.testing.assert_allclose(np.exp(plain), p.mean(0), rtol=1e-5)


def test_the_mean_of_probabilities_has_no_larger_cross_entropy():
    """Jensen: -log mean p <= mean -log p, for any members."""
    logits = jax.random.normal(jax.random.key(0), (6, 50, 4)) * 3
    labels = jax.random.randint(jax.random.key(1), (50,), 0, 4)

    @jax.jit
    def both(logits):
        alone = jax.vmap(lambda m: losses.softmax_cross_entropy(m, labels))(logits).mean(0)
        joint = losses.softmax_cross_entropy(train.average_probabilities(logits), labels)
        return joint, alone

    joint, alone = both(logits)
    assert bool((joint <= alone + 1e-5).all())


def test_members_predict_as_each_would_alone():
    net = models.mlp((4,), 3)
    keys = jax.random.split(jax.random.key(0), 3)
    params, state = jax.jit(jax.vmap(lambda key: layers.init(net, key, (5,))))(keys)
    x = np.random.RandomState(0).randn(1030, 5).astype(np.float32)  # more than at once
    apply = jax.jit(lambda params: layers.apply(net, params, {}, x)[0])
    alone = [apply(jax.tree.map(lambda a, i=i: np.asarray(a)[i], params)) for i in range(3)]
    for how in ("vmap", "map"):
        outputs = train.predict_members(net, params, state, x, how=how)
        np.testing.assert_allclose(outputs, alone, rtol=1e-4, atol=1e-5)


def test_bagging_says_what_is_wrong(classifier, points):
    with pytest.raises(ValueError, match="bagging: give one key for each member"):
        train.bagging(classifier, jax.random.key(0), points)
    part = train.Part(*points, jnp.arange(N), jnp.array(N - 1), N - 1)
    with pytest.raises(ValueError, match="bagging: data must be a whole data set"):
        train.bagging(classifier, jax.random.split(jax.random.key(0), 2), part)
    with pytest.raises(ValueError, match=r"average_values: weights must be \(s,\) or \(s, n\)"):
        train.average_values(jnp.zeros((4, 3)), jnp.ones(3))
    with pytest.raises(ValueError, match="one leading axis"):
        train.predict_members(models.mlp(), {"a": jnp.zeros(2), "b": jnp.zeros(3)}, {}, points[0])


# --- bias and variance -------------------------------------------------------------------------

POINTS, NOISE = np.linspace(-1.0, 1.0, 9), 0.25


def truth(x):
    return np.sin(2 * x)


def polynomial(degree):
    """Least squares on noisy targets at fixed points: a linear map of the targets."""
    basis = np.vander(POINTS, degree + 1)
    return basis @ np.linalg.pinv(basis)  # hat matrix


def fit_polynomial(degree):
    hat = jnp.asarray(polynomial(degree), jnp.float32)
    clean = jnp.asarray(truth(POINTS), jnp.float32)

    def predict(key):
        noise = jax.random.normal(key, clean.shape) * NOISE**0.5
        return jnp.dot(hat, clean + noise, precision="highest")

    return predict


@pytest.mark.parametrize("degree", [0, 3, 8])
def test_bias_and_variance_of_polynomials_in_closed_form(degree):
    """bias = |(H - I) t|^2 / n, variance = noise tr(H H^T) / n = noise (d + 1) / n."""
    sets, n = 4000, len(POINTS)
    keys = jax.random.split(jax.random.key(degree), sets)
    clean = jnp.asarray(truth(POINTS), jnp.float32)
    found = train.bias_variance(fit_polynomial(degree), keys, clean, noise=NOISE)
    hat = polynomial(degree)
    bias = (((hat - np.eye(n)) @ truth(POINTS)) ** 2).mean()
    variance = NOISE * (degree + 1) / n
    # The variance of an estimated variance of a normal is 2 v^2 / (sets - 1): 5 standard errors.
    assert float(found.variance) == pytest.approx(variance, abs=5 * variance * (2 / sets) ** 0.5)
    assert float(found.bias) == pytest.approx(
        bias, abs=5 * (variance * (4 * bias + 1) / sets) ** 0.5
    )
    parts = found.bias + found.variance + found.noise
    assert float(found.error) == pytest.approx(float(parts), rel=1e-5)


def test_the_decomposition_by_brute_force_and_its_lack_of_bias():
    random = np.random.RandomState(0)
    outputs, target = random.randn(3, 4, 2), random.randn(4, 2)
    found = train.decompose(
        jnp.asarray(outputs, jnp.float32), jnp.asarray(target, jnp.float32), 0.5
    )
    variance = outputs.var(axis=0, ddof=1).mean()
    assert float(found.variance) == pytest.approx(variance, rel=1e-5)
    error = ((outputs - target) ** 2).mean() + 0.5
    assert float(found.error) == pytest.approx(error, rel=1e-5)
    assert float(found.bias) == pytest.approx(error - 0.5 - variance, rel=1e-4)
    # Learners that are right on average have bias 0, however few of them are seen.
    pairs = random.randn(5000, 2, 1).astype(np.float32)
    biases = jax.vmap(lambda o: train.decompose(o, jnp.zeros(1)).bias)(jnp.asarray(pairs))
    assert abs(float(biases.mean())) < 5 * float(biases.std()) / 5000**0.5


def test_bias_and_variance_say_what_is_wrong():
    with pytest.raises(ValueError, match="bias_variance: give one key for each training set"):
        train.bias_variance(lambda key: jnp.zeros(1), jax.random.key(0), jnp.zeros(1))
    with pytest.raises(ValueError, match="s > 1 training sets"):
        train.decompose(jnp.zeros((1, 3)), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"outputs\[0\] and truth must have the same shape"):
        train.decompose(jnp.zeros((2, 3)), jnp.zeros((3, 1)))


# --- claim C88 ---------------------------------------------------------------------------------

GROUPS, SETS, INPUTS = 8, 16, np.linspace(-1.0, 1.0, 21, dtype=np.float32)[:, None]


def sample(key):
    """20 noisy points of a sine, another set for each key."""
    where, what = jax.random.split(key)
    x = jax.random.uniform(where, (20, 1), minval=-1.0, maxval=1.0)
    return x, jnp.sin(4 * x) + 0.3 * jax.random.normal(what, x.shape)


def parts_of(learner):
    """Bias and variance from each of 8 groups of 16 training sets, all in one program."""
    keys = jax.random.split(jax.random.key(0), (GROUPS, SETS))
    clean = jnp.sin(4 * INPUTS)
    parts = jax.jit(jax.vmap(lambda k: train.bias_variance(learner, k, clean, noise=0.09)))(keys)
    return jax.tree.map(np.asarray, parts)


def low_end(differences):
    """Of Student's 95 % interval of the mean, t_7 = 2.365."""
    return differences.mean() - 2.365 * differences.std(ddof=1) / np.sqrt(GROUPS)


def network(width, epochs):
    net = models.mlp((width,), 1, "tanh")
    return train.make_run(net, losses.squared_loss, optim.adam, epochs=epochs, batch_size=20)


def single(run):
    def learner(key):
        data, start = jax.random.split(key)
        params, _ = run(start, sample(data), {"learning_rate": 0.1})
        return layers.apply(run.model, params, {}, INPUTS)[0]

    return learner


@pytest.mark.slow
def test_bagging_cuts_the_variance():
    """C88: 10 bootstrap members of a 16-unit network against one, paired by training sets."""
    run = network(16, 60)

    def bagged(key):
        data, start = jax.random.split(key)
        bag = train.bagging(run, jax.random.split(start, 10), sample(data), {"learning_rate": 0.1})
        members = train.predict_members(run.model, bag.outcome.params, bag.outcome.state, INPUTS)
        return train.average_values(members)

    one, many = parts_of(single(run)), parts_of(bagged)
    assert low_end(one.variance - many.variance) > 0
    assert many.variance.mean() < 0.75 * one.variance.mean()
    assert many.bias.mean() > 0.75 * one.bias.mean()  # it is not the bias that falls


@pytest.mark.slow
def test_boosting_cuts_the_bias():
    """C88: 20 rounds of least-squares boosting of a one-unit network against one of them."""
    run = network(1, 30)

    def boosted(key):
        data, start = jax.random.split(key)
        rate = {"learning_rate": 0.1}
        found = train.least_squares_boosting(run, start, sample(data), 20, rate, shrinkage=1.0)
        return train.boosted_values(run.model, found, INPUTS)

    one, many = parts_of(single(run)), parts_of(boosted)
    assert low_end(one.bias - many.bias) > 0
    assert many.bias.mean() < 0.9 * one.bias.mean()
