"""First-order methods against the book's formulas in NumPy float64 (F20, F31, F33-F38)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import optim

STEPS = 14
DRAW = np.random.RandomState(3)
FACTOR = DRAW.randn(7, 4)
CURVATURE, START = FACTOR.T @ FACTOR / 7, DRAW.randn(4)
NOISE = DRAW.randn(STEPS, 4)
RATES = 0.05 * (1 + np.cos(np.arange(STEPS)))


# The formulas of the notes and the book, as they stand: (gradient function, x) -> x after each step


def book_sgd(gradient, x):
    for t in range(STEPS):
        x = x - RATES[t] * gradient(t, x)
        yield x


def book_momentum(gradient, x, gamma=0.9):
    v = np.zeros(4)
    for t in range(STEPS):
        v = gamma * v + RATES[t] * gradient(t, x)
        x = x - v
        yield x


def book_nesterov(gradient, x, gamma=0.9):
    v = np.zeros(4)
    for t in range(STEPS):
        v = gamma * v + RATES[t] * gradient(t, x - gamma * v)
        x = x - v
        yield x - gamma * v  # the point where the next gradient is taken


def book_adagrad(gradient, x, eps=1e-6):
    s = np.zeros(4)
    for t in range(STEPS):
        g = gradient(t, x)
        s = s + g**2
        x = x - RATES[t] * g / np.sqrt(s + eps)
        yield x


def book_rmsprop(gradient, x, gamma=0.9, eps=1e-6):
    s = np.zeros(4)
    for t in range(STEPS):
        g = gradient(t, x)
        s = gamma * s + (1 - gamma) * g**2
        x = x - RATES[t] * g / np.sqrt(s + eps)
        yield x


def book_adadelta(gradient, x, rho=0.9, eps=1e-5):
    s, delta = np.zeros(4), np.zeros(4)
    for t in range(STEPS):
        g = gradient(t, x)
        s = rho * s + (1 - rho) * g**2
        step = np.sqrt((delta + eps) / (s + eps)) * g
        x = x - step
        delta = rho * delta + (1 - rho) * step**2
        yield x


def moments(g, m, v, t, b1=0.9, b2=0.999):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return m, v, m / (1 - b1 ** (t + 1)), v / (1 - b2 ** (t + 1))


def book_adam(gradient, x, eps=1e-6, decay=0.0):
    m, v = np.zeros(4), np.zeros(4)
    for t in range(STEPS):
        m, v, m_hat, v_hat = moments(gradient(t, x), m, v, t)
        x = (1 - RATES[t] * decay) * x - RATES[t] * m_hat / (np.sqrt(v_hat) + eps)
        yield x


def book_adamw(gradient, x):
    return book_adam(gradient, x, decay=0.01)


def book_radam(gradient, x, b2=0.999):
    m, v = np.zeros(4), np.zeros(4)
    limit = 2 / (1 - b2) - 1
    for t in range(STEPS):
        m, v, m_hat, v_hat = moments(gradient(t, x), m, v, t)
        n = t + 1
        rho = limit - 2 * n * b2**n / (1 - b2**n)
        if rho > 4:
            top = (rho - 4) * (rho - 2) * limit
            step = math.sqrt(top / ((limit - 4) * (limit - 2) * rho)) * m_hat / np.sqrt(v_hat)
        else:
            step = m_hat
        x = x - RATES[t] * step
        yield x


def book_lookahead(inner, gradient, x, k=5, alpha=0.5):
    """As published: two loops; the inner optimiser keeps its memory."""
    slow, offset = x, np.zeros(4)
    fast = inner(lambda t, at: gradient(t, at + offset), x)  # the inner method never jumps
    for t, at in enumerate(fast, 1):
        now = at + offset
        if t % k == 0:
            slow = slow + alpha * (now - slow)
            offset = slow - at
            now = slow
        yield now


def book_ranger(gradient, x):
    return book_lookahead(book_radam, gradient, x)


def book_sam(gradient, x, radius=0.05):
    for t in range(STEPS):
        g = gradient(t, x)
        x = x - RATES[t] * gradient(t, x + radius * g / np.linalg.norm(g))
        yield x


METHODS = {
    "sgd": (optim.sgd, book_sgd),
    "momentum": (optim.momentum, book_momentum),
    "nesterov": (optim.nesterov, book_nesterov),
    "adagrad": (optim.adagrad, book_adagrad),
    "rmsprop": (optim.rmsprop, book_rmsprop),
    "adadelta": (lambda _: optim.adadelta(), book_adadelta),
    "adam": (optim.adam, book_adam),
    "adamw": (lambda rate: optim.adamw(rate, where=lambda path: True), book_adamw),
    "radam": (lambda rate: optim.radam(rate, eps=0.0), book_radam),
    "lookahead": (
        lambda rate: optim.lookahead(optim.momentum(rate)),
        lambda gradient, x: book_lookahead(book_momentum, gradient, x),
    ),
    "ranger": (lambda rate: optim.ranger(rate, eps=0.0), book_ranger),
    "sam": (lambda rate: optim.sam(optim.sgd(rate)), book_sam),
}


def path(optimizer, dtype=jnp.float64):
    """(steps, 4): the parameters after every step on the noisy quadratic."""
    curvature = jnp.asarray(CURVATURE, dtype)
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, bump):
        x, state = carry

        def gradient(x):
            return jnp.matmul(curvature, x) + bump

        updates, state = optimizer.update(gradient(x), state, x, grad_fn=gradient)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    x = jnp.asarray(START, dtype)
    scan = jax.jit(lambda x, noise: jax.lax.scan(step, (x, optimizer.init(x)), noise)[1])
    return np.asarray(scan(x, jnp.asarray(NOISE, dtype)))


def expected(book):
    return np.stack(list(book(lambda t, x: CURVATURE @ x + NOISE[t], START)))


@pytest.mark.parametrize("name", METHODS)
def test_every_step_is_the_books_under_a_schedule(name, x64):
    method, book = METHODS[name]
    ours = path(method(lambda step: jnp.asarray(RATES)[step]))
    np.testing.assert_allclose(ours, expected(book), rtol=0, atol=1e-12)


# What Optax has the same, and what it has not


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optim.adagrad(0.1, 1e-7, initial=0.1), optax.adagrad(0.1)),
        (optim.rmsprop(0.1), optax.rmsprop(0.1, 0.9, 1e-6)),
        (optim.adadelta(), optax.adadelta(1.0, 0.9, 1e-5)),
        (optim.adam(0.1), optax.adam(0.1, eps=1e-6)),
    ],
    ids=["adagrad", "rmsprop", "adadelta", "adam"],
)
def test_with_one_set_of_constants_optax_takes_the_same_steps(ours, theirs, x64):
    np.testing.assert_allclose(path(ours), path(theirs), rtol=0, atol=1e-12)


@pytest.mark.smoke
def test_optaxs_adadelta_without_a_rate_ascends_and_ours_descends():
    g = jnp.array([2.0, -3.0])

    @jax.jit
    def first_updates(g):
        return [m.update(g, m.init(g), g)[0] for m in (optax.adadelta(), optim.adadelta())]

    theirs, ours = first_updates(g)
    assert (np.sign(theirs) == np.sign(g)).all()  # catalogue 4.5
    assert (np.sign(ours) == -np.sign(g)).all()


def test_lookahead_is_optaxs_on_pairs_of_parameters(x64):
    inner = optim.adam(0.1)
    theirs = optax.lookahead(inner, sync_period=5, slow_step_size=0.5)

    def step(carry, bump):
        params, state = carry
        updates, state = theirs.update(CURVATURE @ params.fast + bump, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params.fast

    params = optax.LookaheadParams.init_synced(jnp.asarray(START))
    scan = jax.jit(lambda noise: jax.lax.scan(step, (params, theirs.init(params)), noise)[1])
    ours = path(optim.lookahead(inner))
    np.testing.assert_allclose(ours, scan(jnp.asarray(NOISE)), rtol=0, atol=1e-12)


def test_sam_is_optaxs_opaque_one(x64):
    away = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    theirs = optax.contrib.sam(
        optax.sgd(0.1), away, sync_period=2, opaque_mode=True, reset_state=False
    )

    def gradient(x, _=0):
        return CURVATURE @ x

    @jax.jit
    def first_updates(x):
        return [
            m.update(gradient(x), m.init(x), x, grad_fn=gradient)[0]
            for m in (optim.sam(optim.sgd(0.1)), theirs)
        ]

    np.testing.assert_allclose(*first_updates(jnp.asarray(START)), rtol=1e-9)
