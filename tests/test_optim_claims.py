"""What the notes claim of optimisers: C43, C46, C49-C57, rates of F39; the list: docs/claims.md."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import optim

pytestmark = pytest.mark.usefixtures("x64")
BOUND = 0.1 / math.sqrt(0.001 * (1 - 0.9**2 / 0.999))  # F31: 7.27 rates


def updates_of(optimizer, grads):
    """(steps, ...): the updates for a sequence of gradients."""

    def step(state, g):
        update, state = optimizer.update(g, state)
        return state, update

    return jax.lax.scan(step, optimizer.init(grads[0]), grads)[1]


def descent(optimizer, curvatures, start, steps, noise=None):
    """(steps, ...): the points on the quadratic sum(curvatures x^2) / 2; noise is added to g."""

    def step(carry, bump):
        x, state = carry
        update, state = optimizer.update(curvatures * x + bump, state, x)
        return (x + update, state), x + update

    bumps = jnp.zeros(steps) if noise is None else noise
    return jax.lax.scan(step, (start, optimizer.init(start)), bumps)[1]


def last_above(errors, level):
    """The steps after which the error stays below the level, along the first axis."""
    return errors.shape[0] + 1 - np.argmax(np.asarray(errors)[::-1] >= level, axis=0)


def interval(values):
    """The ends of the 95 % interval of the mean."""
    values = np.asarray(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(values.size)
    return values.mean() - half, values.mean() + half


# Adam


def test_adams_steps_do_not_depend_on_the_scale_of_the_gradients():
    """C51, first half: exactly so without eps; the book's 1e-6 is felt by gradients of 1e-3."""
    grads = jnp.asarray(np.random.RandomState(0).randn(50, 4))
    scales = jnp.array([1e-3, 1.0, 1e3])

    @jax.jit
    def both(scales):
        def scaled(eps):
            return jax.vmap(lambda c: updates_of(optim.adam(0.01, eps=eps), c * grads))(scales)

        return scaled(0.0), scaled(1e-6)

    exact, book = both(scales)
    np.testing.assert_allclose(exact[0], exact[1], rtol=1e-10)
    np.testing.assert_allclose(exact[2], exact[1], rtol=1e-10)
    np.testing.assert_allclose(np.abs(exact[:, 0]), 0.01, rtol=1e-10)  # the first step: one rate
    difference = np.abs(book[0] / book[1] - 1).max()
    assert 1e-3 < difference < 0.1


def test_adams_longest_step_is_7_27_rates_reached_by_growing_gradients():
    """C51, second half: not one rate, and not the 3.16 of one gradient after nothing but zeros."""
    assert pytest.approx(7.2699, abs=1e-3) == BOUND
    quiet = jnp.zeros(12_000)
    growing = (0.999 / 0.9) ** jnp.arange(200.0)
    draw = np.random.RandomState(0)
    wild = jnp.asarray(draw.standard_cauchy((400, 500)))  # any sequence must obey the bound
    even = jnp.asarray(draw.randn(400, 500))

    @jax.jit
    def longest():
        adam = optim.adam(1.0, eps=1e-30)
        burst = jnp.concatenate([quiet, growing])
        single = jnp.concatenate([quiet, jnp.ones(1)])
        pairs = jnp.zeros((len(burst), 2)).at[:, 0].set(burst).at[: len(single), 1].set(single)
        both = jnp.abs(updates_of(adam, pairs)).max(0)
        return both, jnp.abs(updates_of(adam, wild)).max(), jnp.abs(updates_of(adam, even)).max()

    (burst, single), cauchy, normal = longest()
    assert 0.999 * BOUND < burst <= BOUND
    assert single == pytest.approx(0.1 / math.sqrt(0.001), rel=1e-3)  # 3.16
    assert 1 < cauchy <= BOUND
    assert normal < 1.2  # gradients that come from one distribution: about one rate


def test_without_bias_correction_the_first_steps_are_too_long():
    """C52: RMSProp's first step is rate / sqrt(1 - decay) long; Adam's are one rate all along."""

    @jax.jit
    def lengths():
        ones = jnp.ones(100)
        rules = [optim.rmsprop(1.0, decay, 0.0) for decay in (0.9, 0.999)]
        return [-updates_of(rule, ones) for rule in [*rules, optim.adam(1.0, eps=0.0)]]

    short, long, adam = lengths()
    assert short[0] == pytest.approx(3.162, abs=1e-3)
    assert long[0] == pytest.approx(31.62, abs=1e-2)
    assert short[-1] < 1.0001  # forgotten after some 1 / (1 - decay) steps
    assert long[-1] > 3.2
    np.testing.assert_allclose(adam, 1, rtol=1e-10)


# Momentum and Nesterov


def test_gradient_descent_contracts_as_kappa_says_and_momentum_as_its_root():
    """C53 and F39: steps until every error is below 1e-6, at the best constants of each."""

    @jax.jit
    def errors(kappa):
        root = jnp.sqrt(kappa)
        keep = ((root - 1) / (root + 1)) ** 2
        plain = optim.sgd(2 / (kappa + 1))
        heavy = optim.momentum(4 / (root + 1) ** 2, keep)
        curvatures = jnp.stack([jnp.ones(()), kappa])
        return [
            jnp.abs(descent(method, curvatures, jnp.ones(2), 3000)).max(-1)
            for method in (plain, heavy)
        ]

    steps = {}
    for kappa in (25.0, 100.0, 400.0):
        plain, heavy = errors(kappa)
        steps[kappa] = [int(last_above(e, 1e-6)) for e in (plain, heavy)]
        assert plain[9] / plain[8] == pytest.approx((kappa - 1) / (kappa + 1), rel=1e-9)  # F39
    assert steps[100.0] == [691, 95]
    for few, many in ((25.0, 100.0), (100.0, 400.0)):
        growth = np.array(steps[many]) / steps[few]
        np.testing.assert_allclose(growth, [4, 2], rtol=0.1)  # kappa, and its root


def test_momentum_steadies_the_direction_and_not_the_parameters():
    """C54: a step is far less noisy than one of SGD of the same pace, parameters end as noisy."""
    rate, keep, chains = 0.01, 0.9, 300
    noise = jnp.asarray(np.random.RandomState(0).randn(2000, chains))

    @jax.jit
    def squares(noise):
        methods = [optim.momentum(rate, keep), optim.sgd(rate / (1 - keep)), optim.sgd(rate)]
        paths = [descent(m, 1.0, jnp.zeros(chains), len(noise), noise) for m in methods]
        at = [jnp.square(path[400:]).mean(0) for path in paths]
        steps = [jnp.square(jnp.diff(path, axis=0)[400:]).mean(0) for path in paths]
        return at, steps

    (heavy, same_pace, same_rate), (heavy_step, pace_step, _) = squares(noise)
    exact = rate * (1 + keep) / ((1 - keep) * (2 * (1 + keep) - rate))
    low, high = interval(heavy)
    assert low < exact < high
    low, high = interval(heavy / np.mean(same_pace))  # the same to first order in the rate
    assert 0.9 < low < high < 1.0
    assert interval(heavy / np.mean(same_rate))[0] > 9  # the price of the pace
    ratio = interval(heavy_step / np.mean(pace_step))
    assert ratio[1] < 0.06  # (1 - 0.9) / (1 + 0.9), to first order
    assert ratio[0] > 0.04


def test_nesterov_is_faster_at_the_same_constants_and_slower_at_the_best_of_each():
    """C55: quadratics of ten dimensions, momentum 0.9 and rate 1 / the largest curvature."""
    draw = np.random.RandomState(0)
    start = jnp.asarray(draw.randn(10, 40))

    def spectrum(kappa):
        free = np.exp(draw.uniform(-np.log(kappa), 0, (8, 40)))
        return np.concatenate([np.ones((1, 40)), np.full((1, 40), 1 / kappa), free])

    def loss(optimizer, curvatures, steps):
        path = descent(optimizer, curvatures, start, steps)
        return (curvatures * path**2).sum(1) / (curvatures * start**2).sum(0)

    @jax.jit
    def same(curvatures):
        return [loss(m(1.0, 0.9), curvatures, 500) for m in (optim.momentum, optim.nesterov)]

    gains = {}
    for kappa in (10, 100, 1000):
        heavy, ahead = [last_above(e, 1e-6) for e in same(jnp.asarray(spectrum(kappa)))]
        gains[kappa] = interval(np.log(heavy / ahead))
    assert gains[10][0] > math.log(2.5)  # 2.8 times as fast
    assert gains[100][0] > math.log(1.5)  # 1.7 times
    assert abs(gains[1000][0]) < 0.1  # no longer: both wait for the flattest direction

    @jax.jit
    def best(curvatures, kappa=100.0):
        root, wide = math.sqrt(kappa), math.sqrt(3 * kappa + 1)
        heavy = optim.momentum(4 / (1 + 1 / root) ** 2, ((root - 1) / (root + 1)) ** 2)
        ahead = optim.nesterov(4 / (3 + 1 / kappa), (wide - 2) / (wide + 2))
        return [loss(m, curvatures, 500) for m in (heavy, ahead)]

    heavy, ahead = [last_above(e, 1e-12) for e in best(jnp.asarray(spectrum(100)))]
    assert interval(np.log(ahead / heavy))[0] > 0.1

    noise = jnp.asarray(draw.randn(2000, 300))

    @jax.jit
    def wandering(noise):
        methods = [optim.momentum(0.1), optim.nesterov(0.1)]
        return [(descent(m, 1.0, jnp.zeros(300), 2000, noise)[400:] ** 2).mean(0) for m in methods]

    heavy, ahead = wandering(noise)
    assert interval(np.log(np.asarray(heavy) / ahead))[0] > math.log(1.4)  # noise: 1.6 times less


# AdaGrad, RMSProp, AdaDelta


def test_adagrads_rate_falls_as_one_over_the_root_of_t_and_rmsprops_stays():
    """C56: under gradients of one size; and after large ones AdaGrad stays slow."""
    ones, drop = jnp.ones(400), jnp.concatenate([jnp.full(100, 10.0), jnp.ones(300)])

    @jax.jit
    def lengths():
        pairs = jnp.stack([ones, drop], axis=1)
        return [-updates_of(m, pairs) for m in (optim.adagrad(1.0, 0.0), optim.rmsprop(1.0))]

    adagrad, rmsprop = lengths()
    np.testing.assert_allclose(adagrad[:, 0], 1 / np.sqrt(1 + np.arange(400)), rtol=1e-12)
    assert rmsprop[-1, 0] == pytest.approx(1, abs=1e-5)
    assert adagrad[-1, 1] < 0.01  # 1 / sqrt(100 * 10^2 + 300)
    assert rmsprop[-1, 1] == pytest.approx(1, abs=1e-5)


def test_adadelta_has_no_rate_but_its_eps_is_a_length():
    """C57: the scale of the loss does not matter; the unit of the parameters does."""

    def way(unit, eps, factor=1.0, steps=100):
        """How far is left of the way from `unit` to 0, as a share of it."""
        x = jnp.asarray(unit, float)
        return descent(optim.adadelta(eps=eps), factor / unit**2, x, steps) / unit

    @jax.jit
    def ways():
        losses = [way(1.0, 1e-5, 1e3), way(1.0, 1e-5, 1e6)]
        units = [way(1.0, 1e-5, 1e3), way(1e3, 1e-5, 1e3), way(1e-3, 1e-5, 1e3)]
        both = [way(1.0, 1e-5, 1e6), way(1e3, 1e-5 * 1e6, 1e12)]
        return losses, units, both

    losses, (one, thousand, thousandth), both = ways()
    np.testing.assert_allclose(*losses, atol=2e-3)
    assert one[-1] < 0.25  # most of the way in 100 steps
    assert thousand[-1] > 0.998  # nearly none of it
    assert abs(thousandth[0]) > 5  # far beyond with the first step, of 0.01
    np.testing.assert_allclose(*both, atol=1e-3)  # eps in the square of the unit mends it


# Batches and rates


def test_the_variance_of_a_gradient_falls_as_one_over_the_batch_size():
    """C43 and C46: batches of a regression, drawn with replacement; rates by the two rules."""
    draw = np.random.RandomState(0)
    x, y, w = draw.randn(256, 5), draw.randn(256), draw.randn(5)
    each = (x @ w - y)[:, None] * x  # the gradients of the examples, (n, 5)
    inputs, targets = jnp.asarray(x), jnp.asarray(y)
    total = each.var(0).sum()  # sigma^2
    trials, sizes = 4000, (1, 4, 16, 64)

    @jax.jit
    def batch_gradients(rows):
        def one(rows):
            return jax.grad(lambda w: jnp.mean((inputs[rows] @ w - targets[rows]) ** 2) / 2)(
                jnp.asarray(w)
            )

        return jax.vmap(one)(rows)

    steps = {"constant": [], "linear": [], "root": []}
    for size in sizes:
        gradients = np.asarray(batch_gradients(draw.randint(0, 256, (trials, size))))
        np.testing.assert_allclose(gradients.mean(0), each.mean(0), atol=0.5)
        spread = ((gradients - each.mean(0)) ** 2).sum(1)
        low, high = interval(size * spread)
        assert low * 0.98 < total < high * 1.02
        rates = {
            "constant": 0.1,
            "linear": optim.linear_scaling(0.1, 1, size),
            "root": optim.sqrt_scaling(0.1, 1, size),
        }
        for rule, rate in rates.items():
            steps[rule].append(rate**2 * spread.mean() / (0.01 * total))
    np.testing.assert_allclose(steps["constant"], [1, 1 / 4, 1 / 16, 1 / 64], rtol=0.1)
    np.testing.assert_allclose(steps["root"], [1, 1, 1, 1], rtol=0.1)  # C46
    np.testing.assert_allclose(steps["linear"], [1, 4, 16, 64], rtol=0.1)


@pytest.mark.smoke
def test_gradient_descent_is_stable_below_two_over_the_largest_curvature_only():
    """C49, and C50: the loss is flat at far too small rates as well as at the border."""
    curvatures = jnp.asarray(np.random.RandomState(0).uniform(0.1, 5, (6, 20)))

    @jax.jit
    def losses(share):
        rate = share * 2 / curvatures.max(0)
        path = jax.vmap(
            lambda rate, curvature: descent(optim.sgd(rate), curvature, jnp.ones(6), 1000),
            in_axes=(0, 1),
            out_axes=1,
        )(rate, curvatures)
        return (curvatures.T * path**2).sum(-1) / curvatures.sum(0)

    assert (losses(0.99)[-1] < 1e-6).all()
    assert (losses(1.01)[-1] > 1e6).all()
    slow = losses(1e-6)
    assert (slow[-1] > 0.99).all()  # flat: a thousand steps change less than 1 %
    border = losses(1.0)
    assert (np.abs(border[-1] / border[-300] - 1) < 0.01).all()  # flat as well
    assert (border[-1] > 0.01).all()
