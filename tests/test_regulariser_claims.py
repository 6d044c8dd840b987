"""Claims of the notes on regularisers that are exact or follow from a few steps.

Numbers are those of the catalogue: C37, C39, C40, C47, C71, C73, C86.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import optim
from jaxd2l.ops import losses
from jaxd2l.ops.dropout import dropout, dropout_mask
from jaxd2l.ops.noise import gaussian_noise

N, D = 12, 4
X = np.random.RandomState(0).normal(size=(N, D))
Y = X @ np.asarray([1.0, -2.0, 0.0, 0.5]) + 0.3 * np.random.RandomState(1).normal(size=N)


def normal(seed, *shape):
    return np.random.RandomState(seed).normal(size=shape)


def descend(optimizer, gradient, w, number):
    """w after `number` steps, as one program."""

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(gradient(w), state, w)
        return (w + updates, state), None

    return jax.jit(lambda w: jax.lax.scan(step, (w, optimizer.init(w)), length=number)[0][0])(w)


EVERY = {"where": lambda path: True}


def ridge(penalty):
    return np.linalg.solve(X.T @ X + penalty, X.T @ Y)


# --- C37 ------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_ridge_is_the_posterior_mode_of_a_gaussian_prior(x64):
    """lambda = s^2 / t^2 for noise of variance s^2 and a prior N(0, t^2) (F23)."""
    s2, t2 = 0.09, 0.5

    def minus_log_posterior(w):
        likelihood = losses.gaussian_negative_log_likelihood(jnp.asarray(X) @ w, jnp.asarray(Y), s2)
        prior = losses.gaussian_negative_log_likelihood(jnp.zeros(D), w, t2)
        return likelihood.sum() + prior.sum()

    slope = jax.jit(jax.grad(minus_log_posterior))
    found = ridge(s2 / t2 * np.eye(D))
    np.testing.assert_allclose(slope(found), 0, atol=1e-9)
    assert abs(slope(ridge(0))).max() > 0.1  # not that of least squares
    optimizer = optax.chain(optim.l2(s2 / t2, **EVERY), optim.sgd(0.03))
    w = descend(optimizer, lambda w: X.T @ (X @ w - Y), jnp.zeros(D), 500)
    np.testing.assert_allclose(w, found, atol=1e-9)


def test_the_lasso_is_the_posterior_mode_of_a_laplace_prior(x64):
    """lambda = s^2 / b for a prior of density exp(-|w| / b) / 2b, and the mode has exact zeros."""
    s2, b = 1.0, 0.35

    @jax.jit
    def minus_log_posterior(w):
        return jnp.sum((Y - X @ w) ** 2) / (2 * s2) + jnp.sum(jnp.abs(w)) / b

    optimizer = optax.chain(optim.sgd(0.03), optim.proximal_l1(s2 / b, 0.03, **EVERY))
    w = np.asarray(descend(optimizer, lambda w: X.T @ (X @ w - Y), jnp.ones(D), 1000))
    assert 1 <= (w == 0).sum() < D
    pull = X.T @ (Y - X @ w) / s2  # optimal: 1/b times the sign, or less than 1/b at a zero
    np.testing.assert_allclose(pull[w != 0], np.sign(w[w != 0]) / b, atol=1e-8)
    assert (abs(pull[w == 0]) < 1 / b).all()
    least = minus_log_posterior(w)
    for away in normal(2, 20, D):
        assert minus_log_posterior(w + 0.01 * away) > least


# --- C39 ------------------------------------------------------------------------------------------


def test_decay_shrinks_along_the_eigenvectors_of_the_hessian(x64):
    """By lambda / (lambda + alpha): directions of small curvature most."""
    basis = np.linalg.qr(normal(3, 3, 3))[0]
    curvature, alpha, best = np.asarray([0.1, 1.0, 4.0]), 0.5, np.asarray([1.0, 2.0, -1.0])
    hessian = basis @ np.diag(curvature) @ basis.T
    optimizer = optax.chain(optim.l2(alpha, **EVERY), optim.sgd(0.4))
    w = descend(optimizer, lambda w: hessian @ (w - best), jnp.zeros(3), 300)
    shrunk = (basis.T @ w) / (basis.T @ best)
    np.testing.assert_allclose(shrunk, curvature / (curvature + alpha), rtol=1e-9)


# --- C40 ------------------------------------------------------------------------------------------


def test_input_noise_is_ridge_for_a_linear_model():
    """E|y - (X + e) w|^2 = |y - X w|^2 + n s^2 |w|^2: exactly, over noise of that covariance."""
    scale = 0.4
    corners = np.concatenate([np.eye(D), -np.eye(D)]) * math.sqrt(D) * scale  # covariance s^2 I
    np.testing.assert_allclose(corners.T @ corners / len(corners), scale**2 * np.eye(D), atol=1e-15)

    def mean_loss(w):
        each = Y[:, None] - (X[:, None, :] + corners) @ w  # (n, 2d): every example, every noise
        return (each**2).mean(1).sum()

    for w in normal(4, 5, D):
        wanted = ((Y - X @ w) ** 2).sum() + N * scale**2 * (w @ w)
        np.testing.assert_allclose(mean_loss(w), wanted, rtol=1e-12)
    noisy = (X[:, None, :] + corners).reshape(-1, D)
    repeated = np.repeat(Y, len(corners))
    fitted = np.linalg.lstsq(noisy, repeated, rcond=None)[0]
    np.testing.assert_allclose(fitted, ridge(N * scale**2 * np.eye(D)), rtol=1e-10)

    # and with the library's Gaussian noise, within its error
    w = jnp.asarray([1.0, -1.0, 0.5, 2.0])
    x, y = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.jit(jax.vmap(lambda k: ((y - gaussian_noise(x, scale, k) @ w) ** 2).sum()))(keys)
    drawn = np.asarray(drawn, np.float64)
    wanted = float(((y - x @ w) ** 2).sum() + N * scale**2 * (w @ w))
    assert abs(drawn.mean() - wanted) < 3 * drawn.std() / 4000**0.5


# --- C47 ------------------------------------------------------------------------------------------


def test_raising_the_batch_is_lowering_the_rate_to_first_order(x64):
    """The gap between the two falls as the square of the rate, and the noise is the same; a rate
    too large for the curvature is saved by lowering it and not by a larger batch."""
    every, batches = 4, 8

    def end(rate, grow):
        # Both see the same eight batches; after four the rate is halved or the batch doubled.
        if grow:
            optimizer = optim.accumulate(optim.sgd(rate), optim.growing(every, 2))
        else:
            optimizer = optim.sgd(optim.step(rate, every, 0.5))
        w, state = jnp.zeros(D), optimizer.init(jnp.zeros(D))
        for i in range(batches):
            rows = np.arange(3 * i, 3 * i + 3) % N
            x, y = jnp.asarray(X[rows]), jnp.asarray(Y[rows])
            updates, state = optimizer.update(x.T @ (x @ w - y) / 3, state, w)
            w = w + updates
        return w

    ends = jax.jit(lambda rate: (end(rate, True), end(rate, False)))
    gaps = []
    for rate in (0.02, 0.01, 0.005):
        grown, lowered = ends(rate)
        gaps.append(float(jnp.linalg.norm(grown - lowered)))
        assert gaps[-1] < 4 * rate * float(jnp.linalg.norm(lowered))
    for large, small in itertools.pairwise(gaps):
        assert 3.5 < large / small < 4.5

    # what pure noise in the gradients does to the parameters: the same, not only its variance
    noise = jnp.asarray(normal(5, batches, D))

    def moved(optimizer):
        def step(state, g):
            updates, state = optimizer.update(g, state, g)
            return state, updates

        return jax.lax.scan(step, optimizer.init(noise[0]), noise)[1].sum(0)

    grown = moved(optim.accumulate(optim.sgd(0.1), optim.growing(every, 2)))
    np.testing.assert_allclose(grown, moved(optim.sgd(optim.step(0.1, every, 0.5))), atol=1e-15)

    # on w^2 / 2 with rate 2.5 > 2: lowered it is below 2 and converges
    slope = {
        grow: descend(optimizer, lambda w: w, jnp.ones(()), 40)
        for grow, optimizer in (
            (True, optim.accumulate(optim.sgd(2.5), optim.growing(4, 2, most=8))),
            (False, optim.sgd(optim.step(2.5, 4, 0.5))),
        )
    }
    assert abs(slope[False]) < 1e-3
    assert abs(slope[True]) > 10


# --- C71 ------------------------------------------------------------------------------------------


def test_a_rate_of_one_half_gives_the_most_even_choice_of_masks_not_the_most_masks():
    """n units have 2^n masks for every rate in (0, 1); their entropy n H(p) is largest at 1/2."""
    n, rates = 4, np.asarray([0.1, 0.3, 0.5, 0.7, 0.9])
    kept = np.asarray(list(itertools.product([0, 1], repeat=n))).sum(1)
    entropy = []
    for p in rates:
        chance = (1 - p) ** kept * p ** (n - kept)
        assert (chance > 0).sum() == 2**n
        entropy.append(-(chance * np.log(chance)).sum())
        np.testing.assert_allclose(
            entropy[-1], n * -(p * np.log(p) + (1 - p) * np.log(1 - p)), rtol=1e-12
        )
    assert np.argmax(entropy) == 2
    np.testing.assert_allclose(entropy[2], n * math.log(2), rtol=1e-12)
    for rate in (0.2, 0.5):
        masks = np.asarray(dropout_mask(jax.random.key(0), rate, (8000, n)))
        assert len(np.unique(masks, axis=0)) == 2**n


# --- C73 ------------------------------------------------------------------------------------------


def every_mask(n):
    return np.asarray(list(itertools.product([False, True], repeat=n)))


def test_dropout_on_the_inputs_of_a_linear_model_is_ridge():
    """F21: the mean over all masks, each with its probability, to rounding."""
    rate = 0.3
    masks = every_mask(D)
    chance = (1 - rate) ** masks.sum(1) * rate ** (D - masks.sum(1))
    squares = (X**2).sum(0)
    penalty = rate / (1 - rate) * np.diag(squares)
    for w in normal(4, 5, D):
        each = Y[:, None] - (X[:, None, :] * masks / (1 - rate)) @ w
        wanted = ((Y - X @ w) ** 2).sum() + w @ penalty @ w
        np.testing.assert_allclose((each**2 @ chance).sum(), wanted, rtol=1e-12)
    # its minimiser: least squares over every mask of every example, with these weights
    rows = (X[:, None, :] * masks / (1 - rate)).reshape(-1, D)
    weight = np.tile(np.sqrt(chance), N)
    answers = np.repeat(Y, len(masks)) * weight
    fitted = np.linalg.lstsq(rows * weight[:, None], answers, rcond=None)[0]
    np.testing.assert_allclose(fitted, ridge(penalty), rtol=1e-10)

    w = jnp.asarray([1.0, -1.0, 0.5, 2.0])
    x, y = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.jit(jax.vmap(lambda k: ((y - dropout(x, rate, k) @ w) ** 2).sum()))(keys)
    drawn = np.asarray(drawn, np.float64)
    wanted = float(((y - x @ w) ** 2).sum() + w @ penalty @ w)
    assert abs(drawn.mean() - wanted) < 3 * drawn.std() / 4000**0.5


def test_one_pass_without_dropout_is_the_vote_of_all_masks():
    """As bagging: exactly the mean for a linear model, and the normalised geometric mean of the
    probabilities for a softmax of one layer; not with a hidden layer of ReLUs."""
    masks = every_mask(D)  # rate 1/2: all alike
    x, w = normal(6, D), normal(7, D, 3)
    logits = (masks * x * 2) @ w
    np.testing.assert_allclose(logits.mean(0), x @ w, rtol=1e-12)
    log_p = np.asarray(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))
    vote = np.exp(log_p.mean(0)) / np.exp(log_p.mean(0)).sum()
    one = np.asarray(jax.nn.softmax(jnp.asarray(x @ w, jnp.float32)))
    np.testing.assert_allclose(vote, one, rtol=1e-5)
    assert np.maximum(logits, 0).mean(0).sum() > 1.1 * np.maximum(x @ w, 0).sum()


# --- C86 ------------------------------------------------------------------------------------------


def test_weight_decay_multiplies_by_one_minus_rate_times_strength(x64):
    """For SGD; above 1 the sign flips, above 2 the weights grow. Adam with an L2 penalty does not
    multiply: its first step has the size of the rate for every weight."""
    w, zero = jnp.asarray([1.0, -2.0, 3.0]), jnp.zeros(3)

    def after(rate, strength, optimizer=optim.sgd):
        chain = optax.chain(optim.l2(strength, **EVERY), optimizer(rate))
        return w + chain.update(zero, chain.init(w), w)[0]

    for rate, strength in ((0.1, 0.5), (0.5, 1.0), (0.5, 3.0), (1.0, 2.5)):
        np.testing.assert_allclose(after(rate, strength), (1 - rate * strength) * w, rtol=1e-12)
    assert (jnp.sign(after(0.5, 3.0)) == -jnp.sign(w)).all()
    assert (abs(after(1.0, 2.5)) > abs(w)).all()
    g = jnp.asarray([0.3, 0.1, -0.2])
    chain = optax.chain(optim.l2(0.5, **EVERY), optim.sgd(0.1))
    stepped = w + chain.update(g, chain.init(w), w)[0]
    np.testing.assert_allclose(stepped, (1 - 0.1 * 0.5) * w - 0.1 * g, rtol=1e-12)
    np.testing.assert_allclose(after(0.1, 0.5, optim.adam), w - 0.1 * jnp.sign(w), rtol=1e-4)
