"""Schedules against the book's classes and Optax; scaling of the rate with the batch size."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import optim

STEPS = np.arange(0, 45)


def values(schedule):
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.asarray(STEPS)), np.float64)


class BookFactor:
    """D2L 12.11.3.1, as printed; a call gives the rate after the next decay."""

    def __init__(self, factor, stop_factor_lr, base_lr):
        self.factor, self.stop_factor_lr, self.base_lr = factor, stop_factor_lr, base_lr

    def __call__(self, num_update):
        self.base_lr = max(self.stop_factor_lr, self.base_lr * self.factor)
        return self.base_lr


class BookCosine:
    """D2L 12.11.3.3, as printed."""

    def __init__(self, max_update, base_lr, final_lr=0.0, warmup_steps=0, warmup_begin_lr=0.0):
        self.base_lr_orig = self.base_lr = base_lr
        self.max_update, self.final_lr = max_update, final_lr
        self.warmup_steps, self.warmup_begin_lr = warmup_steps, warmup_begin_lr
        self.max_steps = max_update - warmup_steps

    def __call__(self, epoch):
        if epoch < self.warmup_steps:
            increase = (self.base_lr_orig - self.warmup_begin_lr) * epoch / self.warmup_steps
            return self.warmup_begin_lr + increase
        if epoch <= self.max_update:
            turn = math.pi * (epoch - self.warmup_steps) / self.max_steps
            span = self.base_lr_orig - self.final_lr
            self.base_lr = self.final_lr + span * (1 + math.cos(turn)) / 2
        return self.base_lr


@pytest.mark.smoke
def test_they_are_the_books():
    book = BookFactor(0.9, 1e-2, 2.0)
    wanted = [2.0, *(book(t) for t in STEPS[:-1])]  # its code is one decay ahead of its formula
    np.testing.assert_allclose(values(optim.factor(2.0, 0.9, floor=1e-2)), wanted, rtol=2e-6)
    np.testing.assert_allclose(
        values(optim.cosine(0.3, 20, final=0.01)),
        [BookCosine(20, 0.3, 0.01)(min(t, 20)) for t in STEPS],
        rtol=2e-6,
    )
    book = BookCosine(20, 0.3, 0.01, warmup_steps=5, warmup_begin_lr=0.02)
    warm = optim.warm_up(optim.cosine(0.3, 15, final=0.01), 5, begin=0.02)
    np.testing.assert_allclose(values(warm), [book(t) for t in STEPS], rtol=2e-6)
    root = [0.1 * (t + 1.0) ** -0.5 for t in STEPS]  # SquareRootScheduler
    np.testing.assert_allclose(values(optim.polynomial(0.1)), root, rtol=2e-6)
    curve = [0.1 * (0.3 * t + 1) ** -2 for t in STEPS]  # 12.4.3
    np.testing.assert_allclose(values(optim.polynomial(0.1, power=2, speed=0.3)), curve, rtol=5e-6)
    several = [0.5 * 0.5 ** (int(t >= 15) + int(t >= 30)) for t in STEPS]
    np.testing.assert_array_equal(values(optim.piecewise(0.5, [15, 30], 0.5)), several)


def test_where_they_equal_optax():
    pairs = [
        (optim.constant(0.1), optax.constant_schedule(0.1)),
        (optim.factor(2.0, 0.9, floor=0.3), optax.exponential_decay(2.0, 1, 0.9, end_value=0.3)),
        (optim.step(2.0, 7, 0.5), optax.exponential_decay(2.0, 7, 0.5, staircase=True)),
        (
            optim.piecewise(2.0, [3, 20], 0.1),
            optax.piecewise_constant_schedule(2.0, {3: 0.1, 20: 0.1}),
        ),
        (optim.cosine(0.3, 20, final=0.03), optax.cosine_decay_schedule(0.3, 20, alpha=0.1)),
        (
            optim.polynomial_to(0.3, 20, final=0.1, power=2),
            optax.polynomial_schedule(0.3, 0.1, 2, 20),
        ),
        (
            optim.warm_up(optim.cosine(0.3, 15, final=0.1), 5, begin=0.05),
            optax.warmup_cosine_decay_schedule(0.05, 0.3, 5, 20, 0.1),
        ),
        (optim.warm_up(0.3, 5), optax.warmup_constant_schedule(0.0, 0.3, 5)),
    ]

    @jax.jit
    def both(t):
        return jax.vmap(lambda t: tuple((a(t), b(t)) for a, b in pairs))(t)

    for ours, theirs in both(jnp.asarray(STEPS)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)


ALL = [
    optim.constant,
    lambda rate: optim.factor(rate, 0.5, floor=0.01),
    lambda rate: optim.step(rate, 3, 0.5),
    lambda rate: optim.piecewise(rate, [], 0.5),
    lambda rate: optim.piecewise(rate, [2, 4], 0.5),
    lambda rate: optim.cosine(rate, 10),
    optim.polynomial,
    lambda rate: optim.polynomial_to(rate, 10, power=3),
    lambda rate: optim.warm_up(optim.step(rate, 3, 0.5), 4),
]


def test_base_rates_and_counts_may_be_traced_and_nothing_is_promoted(strict_promotion):
    rates = jnp.asarray([0.5, 2.0])

    @jax.jit
    def both():
        return [
            (jax.vmap(lambda rate, make=make: make(rate)(jnp.int32(5)))(rates), make(2.0)(5))
            for make in ALL
        ]

    for swept, alone in both():
        assert swept.dtype == alone.dtype == jnp.float32
        assert alone.shape == ()
        np.testing.assert_allclose(swept[1], alone, rtol=1e-6)
    shapes = [jax.eval_shape(make(jnp.bfloat16(0.5)), jnp.int32(3)) for make in ALL]
    assert {(s.shape, s.dtype) for s in shapes} == {((), jnp.dtype(jnp.bfloat16))}


def test_in_double_precision_rates_are_exact(x64, strict_promotion):
    assert optim.factor(0.1, 0.9)(jnp.int32(7)) == 0.1 * np.power(0.9, 7.0)
    assert optim.step(0.1, 2, 0.5)(jnp.int32(7)) == 0.1 * 0.125


def test_an_optimiser_follows_its_schedule():
    for optimizer in (optim.sgd(optim.step(1.0, 2, 0.5)), optax.sgd(optim.step(1.0, 2, 0.5))):
        w, state, seen = jnp.zeros(()), optimizer.init(jnp.zeros(())), []
        for _ in range(5):
            updates, state = optimizer.update(jnp.ones(()), state, w)
            seen.append(-float(updates))
        assert seen == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_scaling_rules_keep_what_they_say():
    """F32: the linear rule keeps the displacement per example, the other the variance of a step."""
    assert optim.linear_scaling(0.05, 16, 256) == pytest.approx(0.8)
    assert optim.sqrt_scaling(0.05, 16, 256) == pytest.approx(0.2)
    rates = jax.vmap(lambda size: optim.sqrt_scaling(0.1, 4, size))(jnp.asarray([4.0, 16.0]))
    np.testing.assert_allclose(rates, [0.1, 0.2], rtol=1e-6)

    random = np.random.RandomState(0)
    noise = random.normal(size=(4000, 64))  # gradients of examples: mean 0.3
    steps = {
        size: (0.3 + noise.reshape(-1, size).mean(1)) for size in (1, 16)
    }  # mini-batch gradients
    per_example = [optim.linear_scaling(0.1, 1, n) * steps[n].mean() / n for n in (1, 16)]
    np.testing.assert_allclose(per_example[0], per_example[1], rtol=1e-12)
    variance = [(optim.sqrt_scaling(0.1, 1, n) * steps[n]).var() for n in (1, 16)]
    np.testing.assert_allclose(variance[0], variance[1], rtol=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optim.step(0.1, 0, 0.5), "step: every"),
        (lambda: optim.step(0.1, 2, -0.5), "step: factor must be positive, got -0.5"),
        (lambda: optim.factor(0.1, 0.0), "factor: factor must be positive"),
        (lambda: optim.piecewise(0.1, [3, 3], 0.5), r"at must increase, got \[3, 3\]"),
        (lambda: optim.cosine(0.1, 0), "cosine: steps"),
        (lambda: optim.polynomial_to(0.1, 0), "polynomial_to: steps"),
        (lambda: optim.warm_up(0.1, 0), "warm_up: steps"),
        (lambda: optim.linear_scaling(0.1, 0, 4), "batch_size must be positive, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
