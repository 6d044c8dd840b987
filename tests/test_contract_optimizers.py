"""What every optimiser must do, and every part around one: one table, one set of promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import checkpoint, optim
from jaxd2l.ops import losses

# name: (rate -> optimiser, two rates). Each must get along with both rates on all three problems.
TABLE = {
    "sgd": (optim.sgd, (0.1, 0.05)),
    "momentum": (lambda rate: optim.momentum(rate, 0.8), (0.03, 0.01)),
    "nesterov": (lambda rate: optim.nesterov(rate, 0.8), (0.03, 0.01)),
    "adagrad": (optim.adagrad, (0.3, 0.2)),
    "rmsprop": (optim.rmsprop, (0.03, 0.02)),
    "adadelta": (lambda rate: optim.adadelta(rate, eps=1e-3), (1.0, 0.5)),
    "adam": (optim.adam, (0.05, 0.02)),
    "adamw": (optim.adamw, (0.05, 0.02)),
    "radam": (optim.radam, (0.2, 0.1)),
    "lookahead": (lambda rate: optim.lookahead(optim.sgd(rate)), (0.2, 0.15)),
    "ranger": (optim.ranger, (0.3, 0.2)),
    "sam": (lambda rate: optim.sam(optim.momentum(rate)), (0.02, 0.01)),
    "average": (lambda rate: optim.average(optim.adam(rate), decay=0.9), (0.05, 0.02)),
    "swa": (lambda rate: optim.swa(optim.sgd(rate), start=2), (0.1, 0.05)),
    "accumulate": (lambda rate: optim.accumulate(optim.adam(rate), 2), (0.1, 0.05)),
    "skip_non_finite": (lambda rate: optim.skip_non_finite(optim.ranger(rate)), (0.3, 0.2)),
    "clip_by_norm": (
        lambda rate: optax.chain(optim.clip_by_norm(1.0), optim.sgd(rate)),
        (0.1, 0.05),
    ),
    "clip_by_value": (
        lambda rate: optax.chain(optim.clip_by_value(1.0), optim.sgd(rate)),
        (0.1, 0.05),
    ),
    "l2": (lambda rate: optax.chain(optim.l2(1e-3), optim.sgd(rate)), (0.1, 0.05)),
    "proximal_l1": (
        lambda rate: optax.chain(optim.sgd(rate), optim.proximal_l1(1e-3, rate)),
        (0.1, 0.05),
    ),
    "max_norm": (lambda rate: optax.chain(optim.sgd(rate), optim.max_norm(3.0)), (0.1, 0.05)),
    "schedule": (lambda rate: optim.adam(optim.warm_up(optim.constant(rate), 5)), (0.05, 0.02)),
}
STEPS = 250

DRAW = np.random.RandomState(0)
POINTS = DRAW.randn(32, 2).astype(np.float32)
LABELS = (np.abs(POINTS.sum(1)) < 1).astype(np.int32)  # a band: no line separates it
PARAMS = {
    "points": jnp.array([[-5.0, -2.0], [-1.2, 1.0]]),  # of the quadratic and of Rosenbrock's valley
    "kernel": jnp.array([[1.0, 0.5, 0.1, -0.1], [0.5, 1.0, -0.2, 0.2], [0.5, -0.5, 0.0, 0.0]]),
}


def problems(params):
    """(3,): the book's tilted quadratic, Rosenbrock's valley over 200, a classifier's loss."""
    (a, b), (x, y) = params["points"]
    weights, last = params["kernel"][:, :2], params["kernel"][:, 2:]  # of two dense layers
    hidden = jnp.tanh(POINTS @ weights[:2] + weights[2])
    each = losses.softmax_cross_entropy(hidden @ last[:2] + last[2], LABELS)
    valley = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    return jnp.stack([0.1 * a**2 + 2 * b**2, valley / 200, each.mean()])


def gradient(params):
    return jax.grad(lambda params: problems(params).sum())(params)


one_gradient, gradients = jax.jit(gradient), jax.jit(jax.vmap(gradient))
measure = jax.jit(jax.vmap(problems))


def optimizer_of(name, rate):
    return optax.with_extra_args_support(TABLE[name][0](rate))


def one_step(optimizer, params, state, grads, grad_fn):
    updates, state = optimizer.update(grads, state, params, grad_fn=grad_fn)
    return optax.apply_updates(params, updates), state


class Program:
    """One step of an optimiser at several rates at once, compiled."""

    def __init__(self, name):
        self.traces = 0

        def step(rate, params, state, grads):
            self.traces += 1
            return one_step(optimizer_of(name, rate), params, state, grads, gradient)

        def first(rate):
            return PARAMS, optimizer_of(name, rate).init(PARAMS)

        self.rates = jnp.array(TABLE[name][1])
        self.start = jax.vmap(first)(self.rates)
        quickly = {"xla_backend_optimization_level": 0}  # compiled: the time of this file
        self.step = jax.jit(jax.vmap(step), compiler_options=quickly)

    def run(self, rates, params, state, count):
        for _ in range(count):
            params, state = self.step(rates, params, state, gradients(params))
        return params, state


@functools.cache
def program_of(name):
    return Program(name)


def assert_close(a, b, rtol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)


every = pytest.mark.parametrize("name", TABLE)
PARTS = list(TABLE)[list(TABLE).index("average") :]  # around and beside the methods


@every
def test_it_reduces_a_quadratic_rosenbrock_and_a_classifiers_loss(name):
    program = program_of(name)
    before = measure(program.start[0])
    after = measure(program.run(program.rates, *program.start, STEPS)[0])
    assert np.asarray(after < before * np.array([0.05, 0.25, 0.7])).all()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in PARTS else ()) for n in TABLE]
)
def test_jit_and_vmap_over_rates_are_eager_steps_at_one_rate(name):
    program = program_of(name)
    mapped = program.run(program.rates, *program.start, 2)[0]
    for index, rate in enumerate(TABLE[name][1]):
        optimizer, params = optimizer_of(name, rate), PARAMS
        state = optimizer.init(params)
        for _ in range(2):
            params, state = one_step(optimizer, params, state, one_gradient(params), one_gradient)
        assert_close(jax.tree.map(lambda a, i=index: a[i], mapped), params, 1e-5)


@every
def test_a_saved_state_goes_on_as_if_nothing_had_been(name, tmp_path):
    program = program_of(name)
    whole = program.run(program.rates, *program.start, 7)
    half = program.run(program.rates, *program.start, 4)
    checkpoint.save(tmp_path / "a.safetensors", half)
    restored, _ = checkpoint.load(tmp_path / "a.safetensors", program.start)
    assert jax.tree.structure(restored) == jax.tree.structure(half)
    assert_close(program.run(program.rates, *restored, 3), whole, 0)
    program.run(program.rates / 2, *restored, 1)
    assert program.traces == 1  # other rates, states and counts of steps: no second trace


@every
def test_dtypes_stay_under_strict_promotion(name, x64, strict_promotion):
    def layer(dtype):
        return {"kernel": jnp.ones((2, 2), dtype), "bias": jnp.ones(2, dtype)}

    params = {str(dtype): layer(dtype) for dtype in ("bfloat16", "float32", "float64")}

    def updates(rate):
        optimizer = optimizer_of(name, rate)
        state = optimizer.init(params)
        return params, state, *optimizer.update(params, state, params, grad_fn=lambda p: p)

    before, state, update, after = jax.eval_shape(updates, jnp.float32(0.1))
    assert update == before
    assert after == state
