"""First-order methods: precision, batches, slow weights, the worst point nearby, errors."""

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
