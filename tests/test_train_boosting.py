"""Least-squares boosting and AdaBoost on small networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxd2l import layers, models, optim, train
from jaxd2l.ops import losses
from jaxd2l.train.selection.boosting import vote_of, weighted_rows

KEY = jax.random.key(0)
ROUNDS, N = 8, 40


def member(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


@pytest.fixture(scope="module")
def curve():
    x = jnp.linspace(-1.0, 1.0, N).reshape(N, 1)
    return x, jnp.sin(4 * x)


@pytest.fixture(scope="module")
def regression(curve):
    net = models.mlp((2,), 1, "tanh")
    run = train.make_run(net, losses.squared_loss, optim.adam, epochs=3, batch_size=20)
    boost = jax.jit(
        lambda shrinkage: train.least_squares_boosting(
            run, KEY, curve, ROUNDS, {"learning_rate": 0.05}, shrinkage=shrinkage
        )
    )
    return run, boost


@pytest.fixture(scope="module")
def clouds():
    random = np.random.RandomState(0)
    x = random.randn(N, 2).astype(np.float32)
    return jnp.asarray(x), (np.linalg.norm(x, axis=1) > 1).astype(np.int32)


@pytest.fixture(scope="module")
def adaboost():
    """Members of two hidden units, for 2 or more classes, each compiled once."""
    made = {}

    def boost(x, y, classes, key=KEY):
        net = models.mlp((2,), classes, "tanh")
        run = train.make_run(net, losses.softmax_cross_entropy, optim.adam, epochs=8, batch_size=20)
        rate = {"learning_rate": 0.1}
        if classes not in made:
            made[classes] = jax.jit(lambda x, y, k: train.adaboost(run, k, (x, y), ROUNDS, rate))
        return net, made[classes](jnp.asarray(x), jnp.asarray(y), key)

    return boost


@pytest.mark.smoke
@pytest.mark.parametrize("shrinkage", [0.3, 1.0])
def test_least_squares_boosting_by_its_formulas(curve, regression, shrinkage):
    """Each round in float64 from the members: rho, and the fall of the squared error it gives."""
    x, y = curve
    run, boost = regression
    boosted = boost(shrinkage)
    outputs = train.predict_members(run.model, boosted.params, boosted.state, x)
    target = np.asarray(y, np.float64)
    total = np.full_like(target, target.mean())
    before = (target**2).mean() - target.mean() ** 2
    for m in range(ROUNDS):
        f, r = np.asarray(outputs[m], np.float64), target - total
        rho = (r * f).sum() / (f * f).sum()
        assert float(boosted.weights[m]) == pytest.approx(shrinkage * rho, rel=1e-3)
        total += shrinkage * rho * f
        loss = ((target - total) ** 2).mean()
        fall = shrinkage * (2 - shrinkage) * (r * f).sum() ** 2 / (f * f).sum() / N
        assert before - loss == pytest.approx(fall, rel=1e-6)
        assert float(boosted.history["loss"][m]) == pytest.approx(loss, rel=1e-3)
        before = loss
    values = train.boosted_values(run.model, boosted, x)
    np.testing.assert_allclose(values, total, atol=1e-4)
    assert (np.diff(boosted.history["loss"]) <= 1e-6).all()
    assert boosted.history["loss"][-1] < boosted.history["loss"][0]


def test_members_are_runs_on_the_residuals(curve, regression):
    x, y = curve
    run, boost = regression
    boosted = boost(1.0)
    total = jnp.broadcast_to(y.mean(0), y.shape)
    alone = jax.jit(run)
    for m in range(3):
        key = jax.random.fold_in(KEY, m)
        params, _ = alone(key, (x, y - total), {"learning_rate": 0.05})
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            member(boosted.params, m),
            params,
        )
        total = total + boosted.weights[m] * layers.apply(run.model, params, {}, x)[0]


def test_adaboost_by_its_formulas(clouds, adaboost):
    """Errors, votes, weights of the examples and the committee, in NumPy from the members."""
    x, y = clouds
    net, boosted = adaboost(x, y, 2)
    assert (boosted.weights > 0).sum() >= ROUNDS / 2
    logits = np.asarray(train.predict_members(net, boosted.params, boosted.state, x))
    w, votes, bound = np.full(N, 1 / N), np.zeros((N, 2)), 1.0
    for m in range(ROUNDS):
        said = logits[m].argmax(1)
        err = w[said != y].sum()
        assert float(boosted.history["member_error"][m]) == pytest.approx(err, abs=1e-5)
        alpha = max(0.0, np.log((1 - err) / err))
        assert float(boosted.weights[m]) == pytest.approx(alpha, abs=1e-4)
        # Freund and Schapire: half of alpha, with both signs, gives the same weights.
        w = w * np.exp(np.where(said == y, -alpha / 2, alpha / 2))
        w /= w.sum()
        votes[np.arange(N), said] += alpha
        if alpha:
            bound *= 2 * np.sqrt(err * (1 - err))
        assert float(boosted.history["error"][m]) == pytest.approx((votes.argmax(1) != y).mean())
        assert float(boosted.history["bound"][m]) == pytest.approx(bound, rel=1e-4)
    np.testing.assert_allclose(train.boosted_votes(net, boosted, x), votes, atol=1e-3)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 0.5))
def test_the_exponential_bound_holds_for_any_labels(clouds, adaboost, seed, share):
    """Labels of the clouds, a share of them replaced by noise; after every round."""
    random = np.random.RandomState(seed)
    x, y = clouds
    y = np.where(random.rand(N) < share, random.randint(0, 2, N), y).astype(np.int32)
    _, boosted = adaboost(x, y, 2, jax.random.key(seed))
    error, bound = (np.asarray(boosted.history[name]) for name in ("error", "bound"))
    assert (error <= bound + 1e-5).all()
    assert (np.diff(bound) <= 1e-6).all()


def test_adaboost_lowers_the_training_error_of_weak_members(clouds, adaboost):
    """A circle, for which two hidden units are too few; the mean over 8 keys."""
    found = [adaboost(*clouds, 2, jax.random.key(s))[1].history["error"] for s in range(8)]
    first, last = np.asarray(found)[:, 0], np.asarray(found)[:, -1]
    assert last.mean() < 0.6 * first.mean()


@pytest.mark.slow
def test_three_classes_and_scikit_learn_formula(adaboost):
    """SAMME as in sklearn.ensemble.AdaBoostClassifier: alpha and the weights after a round."""
    random = np.random.RandomState(1)
    y = random.randint(0, 3, N).astype(np.int32)
    x = (np.eye(3)[y][:, :2] + 0.4 * random.randn(N, 2)).astype(np.float32)
    net, boosted = adaboost(x, y, 3)
    logits = np.asarray(train.predict_members(net, boosted.params, boosted.state, x))
    weights = np.full(N, 1 / N)
    for m in range(ROUNDS):
        incorrect = logits[m].argmax(1) != y
        error = np.average(incorrect, weights=weights)
        alpha = np.log((1.0 - error) / error) + np.log(3 - 1.0)
        assert float(boosted.weights[m]) == pytest.approx(max(alpha, 0), abs=1e-3)
        if alpha > 0:
            weights = np.exp(np.log(weights) + alpha * incorrect)
            weights /= weights.sum()
    assert float(boosted.history["error"][-1]) <= float(boosted.history["error"][0])


def test_a_member_at_chance_or_always_right():
    assert float(vote_of(jnp.array(0.5), 2)[0]) == 0
    assert float(vote_of(jnp.array(0.5), 3)[0]) == pytest.approx(np.log(2))
    assert float(vote_of(jnp.array(0.7), 3)[0]) == 0
    assert float(vote_of(jnp.array(0.0), 2)[0]) == pytest.approx(np.log(1e6), rel=1e-4)


def test_rows_occur_as_often_as_the_weights_say():
    """Within 1 of n w in every draw, and n w on average."""
    weights = jnp.asarray(np.random.RandomState(0).dirichlet(np.full(10, 0.5)), jnp.float32)
    keys = jax.random.split(KEY, 2000)
    rows = np.asarray(jax.jit(jax.vmap(weighted_rows, (0, None)))(keys, weights))
    counts = np.stack([np.bincount(r, minlength=10) for r in rows])
    wanted = 10 * np.asarray(weights)
    assert (np.abs(counts - wanted) < 1 + 1e-4).all()
    np.testing.assert_allclose(counts.mean(0), wanted, atol=5 * 0.5 / np.sqrt(2000))
    equal = weighted_rows(KEY, jnp.full(10, 0.1))
    assert np.bincount(equal, minlength=10).tolist() == [1] * 10


def test_boosting_says_what_is_wrong(curve, regression, clouds):
    run, _ = regression
    x, y = clouds
    rate = {"learning_rate": 0.1}
    with pytest.raises(TypeError, match="least_squares_boosting: targets must be floating point"):
        train.least_squares_boosting(run, KEY, (x, y), 2, rate)
    loose = train.make_run(
        run.model, lambda f, y: (f - y) ** 2, optim.adam, epochs=1, batch_size=40
    )
    flat = (curve[0], curve[1][:, 0])
    with pytest.raises(ValueError, match="outputs and targets must have the same shape"):
        train.least_squares_boosting(loose, KEY, flat, 2, rate)
    with pytest.raises(TypeError, match="adaboost: targets must be integers"):
        train.adaboost(run, KEY, curve, 2, rate)
    with pytest.raises(ValueError, match=r"adaboost: targets must be labels \(n,\)"):
        train.adaboost(run, KEY, (x, y[:, None]), 2, rate)
    with pytest.raises(ValueError, match="rounds"):
        train.least_squares_boosting(run, KEY, curve, 0, rate)
