"""First-order methods against PyTorch's, step by step (tests/golden/make_optimizers.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import optim

GOLDEN = Path(__file__).parent / "golden" / "optimizers.npz"
STEPS = 15

# PyTorch's constants, and where it puts epsilon and the rate.
METHODS = {
    "sgd": optim.sgd,
    "momentum": lambda rate: optim.momentum(rate, 0.9, rate_in_velocity=False),
    "nesterov": lambda rate: optim.nesterov(rate, 0.9, rate_in_velocity=False),
    "adagrad": lambda rate: optim.adagrad(rate, 1e-10, eps_in_root=False),
    "rmsprop": lambda rate: optim.rmsprop(rate, 0.99, 1e-8, eps_in_root=False),
    "adadelta": lambda rate: optim.adadelta(rate, 0.9, 1e-6),
    "adam": lambda rate: optim.adam(rate, eps=1e-8),
    "adamw": lambda rate: optim.adamw(rate, eps=1e-8, where=lambda path: True),
    "radam": lambda rate: optim.radam(rate, threshold=5.0),
}


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


def both_paths(method, dtype):
    """(2, steps, 4): the parameters after every step, at the constant and the changing rate."""
    draw = np.random.RandomState(0)
    factor, start = draw.randn(6, 4), draw.randn(4)
    noise = jnp.asarray(draw.randn(STEPS, 4), dtype)
    curvature = jnp.asarray(factor.T @ factor / 6, dtype)
    changing = 0.05 * (1 + np.cos(np.arange(STEPS)))
    rates = jnp.asarray(np.stack([np.full(STEPS, 0.1), changing]), dtype)

    def path(rates):
        optimizer = method(lambda step: rates[step])

        def step(carry, bump):
            x, state = carry
            updates, state = optimizer.update(curvature @ x + bump, state, x)
            x = optax.apply_updates(x, updates)
            return (x, state), x

        x = jnp.asarray(start, dtype)
        return jax.lax.scan(step, (x, optimizer.init(x)), noise)[1]

    return jax.jit(jax.vmap(path))(rates)


@pytest.mark.parametrize("name", METHODS)
def test_every_step_is_pytorchs(name, golden, x64):
    constant, changing = both_paths(METHODS[name], jnp.float64)
    np.testing.assert_allclose(constant, golden[f"{name}_constant"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(changing, golden[f"{name}_changing"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["nesterov", "adadelta", "adamw", "radam"])
def test_every_step_is_pytorchs_in_float32_too(name, golden):
    constant, changing = both_paths(METHODS[name], jnp.float32)
    np.testing.assert_allclose(constant, golden[f"{name}_constant"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(changing, golden[f"{name}_changing"], rtol=0, atol=1e-6)


@pytest.mark.smoke
def test_the_books_momentum_is_pytorchs_at_a_constant_rate_only(golden, x64):
    constant, changing = both_paths(optim.momentum, jnp.float64)
    np.testing.assert_allclose(constant, golden["momentum_constant"], rtol=0, atol=1e-12)
    assert np.abs(changing - golden["momentum_changing"]).max() > 0.05
