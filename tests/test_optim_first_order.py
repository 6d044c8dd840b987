"""First-order methods against the book's formulas in NumPy float64 (F20, F31, F33-F38)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import models, optim, train
from jaxd2l.ops import losses
from jaxd2l.optim.adam import _length
from jaxd2l.optim.rule import blend, correction

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


# Precision


@pytest.mark.smoke
def test_corrections_are_exact_in_float32():
    times = np.array([1, 2, 5, 20, 400, 600, 100_000])

    @jax.jit
    def all_forms(count):
        naive = 1 - jnp.float32(0.999) ** count  # what Optax divides by
        return correction(0.999, count, jnp.float32), _length(0.999, count, jnp.float32), naive

    ours, length, naive = all_forms(jnp.asarray(times))
    wanted = -np.expm1(times * math.log(0.999))
    np.testing.assert_allclose(ours, wanted, rtol=5e-7)
    np.testing.assert_allclose(length, 1999 - 2 * times * 0.999**times / wanted, rtol=1e-6)
    assert np.abs(naive / wanted - 1).max() > 1e-5


def test_averages_are_exact_in_float32():
    squares = np.random.RandomState(0).randn(3000) ** 2

    def averages(form, dtype):
        def step(old, new):
            return (form(old, new),) * 2

        return jax.lax.scan(step, jnp.zeros((), dtype), jnp.asarray(squares, dtype))[1]

    with jax.enable_x64(True):
        wanted = np.asarray(averages(lambda old, new: 0.999 * old + 0.001 * new, jnp.float64))
    ours = averages(lambda old, new: blend(0.999, old, new), jnp.float32)
    plain = averages(lambda old, new: 0.999 * old + 0.001 * new, jnp.float32)
    assert np.abs(ours / wanted - 1).max() < 3e-6
    assert np.abs(plain / wanted - 1).max() > 1e-5


def test_adams_first_steps_are_one_rate_in_float32_where_optaxs_are_off_by_1e_5():
    @jax.jit
    def errors(g):
        methods = [optim.adam(1.0, eps=0.0), optax.adam(1.0, eps=0.0)]
        return [abs(m.update(g, m.init(g))[0] + 1) for m in methods]

    ours, theirs = errors(jnp.ones(()))
    assert ours < 2e-7
    assert 4e-6 < theirs < 1e-5


def test_averages_of_bfloat16_gradients_forget():
    params = jnp.zeros(2, jnp.bfloat16)
    optimizer = optim.adam(0.1)
    state = optimizer.init(params)
    assert all(m.dtype == jnp.float32 for m in jax.tree.leaves(state.memory))
    stuck = jnp.bfloat16(0.999) * jnp.bfloat16(1.0)  # what would become of a remembered 1
    assert stuck == 1
    old = jnp.float32(1.0)
    assert blend(0.999, old, jnp.float32(0.0)) == np.float32(0.999)
    assert blend(0, jnp.float32(1e8), jnp.float32(1.0)) == 1  # the new value, and nothing else


def test_gradients_flow_through_an_adam_step_with_eps_in_the_root():
    def after(rate, inside):
        optimizer = optim.adam(rate, eps_in_root=inside)
        g = jnp.array([1.0, 0.0])
        return optimizer.update(rate * g, optimizer.init(g))[0].sum()

    both = jax.jit(lambda r: [jax.grad(after)(r, inside) for inside in (True, False)])
    inside, outside = both(0.1)
    assert np.isfinite(inside)
    assert np.isnan(outside)  # the derivative of the root of 0


# The three batch forms, Nesterov's points, slow weights, the worst point nearby


def test_the_three_batch_forms_are_one_step_with_other_batches():
    draw = np.random.RandomState(0)
    x, y = draw.randn(12, 3).astype(np.float32), draw.randn(12).astype(np.float32)
    start = draw.randn(3).astype(np.float32)
    forms = (np.arange(12), np.array([4]), np.arange(4))  # full batch, one example, mini-batch
    optimizer = optim.sgd(0.3)

    @jax.jit
    def steps(w):
        def moved(rows):
            gradient = jax.grad(lambda w: jnp.mean((x[rows] @ w - y[rows]) ** 2) / 2)(w)
            return w + optimizer.update(gradient, optimizer.init(w))[0]

        return [moved(rows) for rows in forms]

    for rows, after in zip(forms, steps(start), strict=True):
        total = sum((x[i] @ start - y[i]) * x[i] for i in rows)
        np.testing.assert_allclose(after, start - 0.3 / len(rows) * total, rtol=1e-5)  # F20


def test_lookahead_meets_its_slow_weights_exactly():
    optimizer, x = optim.lookahead(optim.sgd(0.3), period=3, fraction=0.3), jnp.array([1.1, -0.7])
    state = optimizer.init(x)
    for step in range(1, 7):
        updates, state = optimizer.update(x, state, x)
        x = optax.apply_updates(x, updates)
        assert bool((state.slow == x).all()) == (step % 3 == 0)


def test_sam_of_radius_0_and_of_no_gradient_is_the_inner_optimiser():
    def gradient(w):
        return jax.tree.map(lambda a: 2 * a, w)

    @jax.jit
    def both(w, radius):
        sharp, plain = optim.sam(optim.sgd(0.1), radius), optim.sgd(0.1)
        ours, _ = sharp.update(gradient(w), sharp.init(w), w, grad_fn=gradient)
        return ours, plain.update(gradient(w), plain.init(w))[0]

    x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
    for w, radius in ((x, 0.0), (jax.tree.map(jnp.zeros_like, x), 0.5)):
        ours, plain = both(w, radius)
        jax.tree.map(np.testing.assert_array_equal, ours, plain)


def test_the_norm_of_sam_is_over_all_parameters():
    x = {"a": jnp.array([3.0]), "b": jnp.array([4.0], jnp.bfloat16)}
    seen = []

    def gradient(w):
        seen.append(w)
        return w

    sharp = optim.sam(optim.sgd(0.1), radius=1.0)
    sharp.update(x, sharp.init(x), x, grad_fn=gradient)
    np.testing.assert_allclose(seen[0]["a"], [3.6], rtol=1e-6)
    np.testing.assert_allclose(seen[0]["b"].astype(jnp.float32), [4.8], rtol=1e-2)


def test_a_training_run_gives_sam_the_gradient_at_the_worst_point():
    draw = np.random.RandomState(0)
    x, y = draw.randn(16, 1).astype(np.float32), draw.randn(16, 1).astype(np.float32)
    run = train.make_run(
        models.linear_regression(),
        losses.squared_loss,
        lambda rate: optim.lookahead(optim.sam(optim.sgd(rate), 0.5), period=4),
        epochs=6,
        batch_size=16,
    )
    start = {"linear": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}}
    last, _ = jax.jit(run)(jax.random.key(0), (x, y), {"rate": 0.2}, initial=(start, {}))

    def gradient(w):  # of sum((x w + b - y)^2) / 2 / n
        error = x[:, 0] * w[0] + w[1] - y[:, 0]
        return np.array([np.mean(error * x[:, 0]), np.mean(error)])

    slow = now = np.array([1.0, 0.0])
    for step in range(1, 7):
        g = gradient(now)
        now = now - 0.2 * gradient(now + 0.5 * g / np.linalg.norm(g))
        if step == 4:
            slow = now = slow + 0.5 * (now - slow)
    ours = [last["linear"]["kernel"].item(), last["linear"]["bias"].item()]
    np.testing.assert_allclose(ours, now, rtol=1e-5)


# Errors


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: optim.sgd(-0.1), "sgd: learning_rate must be finite and at least 0, got -0.1"),
        (lambda: optim.sgd(float("nan")), "sgd: learning_rate must be finite"),
        (lambda: optim.sgd("0.1"), r"must be a number, a \(\) array or a schedule"),
        (lambda: optim.adam(jnp.ones(2)), r"for many rates map over runs \(jax.vmap\)"),
        (lambda: optim.momentum(0.1, 1.0), r"momentum: momentum must be in \[0, 1\), got 1.0"),
        (lambda: optim.rmsprop(0.1, 1.5), r"rmsprop: decay must be in \[0, 1\)"),
        (lambda: optim.adagrad(0.1, -1e-8), "adagrad: eps must be at least 0"),
        (lambda: optim.adam(0.1, b2=1.0), "adam: b2 must be in"),
        (
            lambda: optim.adamw(0.1, weight_decay=-1.0),
            "decoupled_decay: strength must be at least 0",
        ),
        (lambda: optim.radam(0.1, b2=0.5), "radam: b2 must be above 0.6"),
        (lambda: optim.radam(0.1, threshold=3.0), "radam: threshold must be at least 4"),
        (lambda: optim.lookahead(optim.sgd(0.1), 0), "lookahead: period must be a whole number"),
        (lambda: optim.lookahead(optim.sgd(0.1), 5, 1.5), r"fraction must be in \(0, 1\], got 1.5"),
        (lambda: optim.lookahead(optim.sgd), "lookahead: inner must be an optimiser"),
        (lambda: optim.sam(optim.sgd(0.1), -1.0), "sam: radius must be at least 0"),
        (lambda: optim.sgd(0.1).init({"a": {"n": jnp.arange(3)}}), "sgd: parameter 'a/n' must be"),
    ],
)
def test_what_is_refused_is_refused_with_a_reason(make, told):
    with pytest.raises((ValueError, TypeError), match=told):
        make()


def test_what_update_needs_is_asked_for():
    x = jnp.ones(2)
    for optimizer in (optim.adamw(0.1), optim.lookahead(optim.sgd(0.1)), optim.sam(optim.sgd(0.1))):
        with pytest.raises(ValueError, match="update needs the parameters"):
            optimizer.update(x, optimizer.init(x))
    sharp = optim.sam(optim.sgd(0.1))
    with pytest.raises(ValueError, match="pass grad_fn="):
        sharp.update(x, sharp.init(x), x)
