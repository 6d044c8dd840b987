"""Argument checks: what they take, and the words with which they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import checks

HALF = jnp.zeros(2, jnp.bfloat16)


def test_rank():
    checks.check_rank(np.zeros((2, 3)), 2, "f: x", "(n, c)")
    checks.check_rank(jnp.zeros((2, 3, 4)), (2, 3), "f: x", "(n, c) or (n, t, c)")
    checks.check_rank(3.0, 0, "f: x", "()")
    with pytest.raises(ValueError, match=r"f: x must have shape \(n, c\), got \(2,\)$"):
        checks.check_rank(jnp.zeros(2), 2, "f: x", "(n, c)")
    with pytest.raises(ValueError, match=r"must have shape \(n, c\) or \(n, t, c\), got \(\)$"):
        checks.check_rank(3.0, (2, 3), "f: x", "(n, c) or (n, t, c)")


def test_same_shape_never_broadcasts():
    checks.check_same_shape(jnp.zeros((2, 3)), np.zeros((2, 3)), "f: a and b")
    for a, b in [((4, 1), (4,)), ((1,), ()), ((2, 3), (3, 2)), ((0,), (1,))]:
        with pytest.raises(ValueError, match=r"f: a and b must have the same shape, got \("):
            checks.check_same_shape(jnp.zeros(a), jnp.zeros(b), "f: a and b")


@pytest.mark.parametrize("x", [jnp.zeros(2), HALF, np.zeros(2), 1.0])
def test_floating_takes_floats(x):
    checks.check_floating(x, "f: x")
    with pytest.raises(TypeError, match=r"f: x must be integers, got .*; convert it with \.astype"):
        checks.check_integer(x, "f: x")


@pytest.mark.parametrize("x", [jnp.zeros(2, int), np.zeros(2, np.uint8), 1])
def test_integer_takes_integers(x):
    checks.check_integer(x, "f: x")
    with pytest.raises(TypeError, match=r"f: x must be floating point, got .*; convert it with"):
        checks.check_floating(x, "f: x")


@pytest.mark.parametrize("x", [jnp.zeros(2, bool), jnp.zeros(2, complex), True])
def test_bool_and_complex_are_neither(x):
    with pytest.raises(TypeError, match="must be floating point, got"):
        checks.check_floating(x, "f: x")
    with pytest.raises(TypeError, match="must be integers, got"):
        checks.check_integer(x, "f: x")


def test_checks_work_on_tracers_and_say_their_shapes():
    @jax.jit
    def f(x):
        checks.check_floating(x, "f: x")
        checks.check_rank(x, 2, "f: x", "(n, c)")
        return x

    assert f(jnp.zeros((2, 2))).shape == (2, 2)
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        f(jnp.zeros(3))


def test_the_assertion_of_a_predicted_shape_fires_and_is_free_under_jit():
    y = jnp.zeros((2, 4, 5, 3))
    checks.assert_spatial_shape(y, (4, 5), "conv")
    with pytest.raises(AssertionError, match=r"conv: geometry predicts the spatial sizes \(4, 4\)"):
        checks.assert_spatial_shape(y, (4, 4), "conv")
    with pytest.raises(AssertionError, match="conv"):
        checks.assert_spatial_shape(y, (4,), "conv")

    def f(y):
        checks.assert_spatial_shape(y, (4, 5), "conv")
        return y

    assert jax.make_jaxpr(f)(y).eqns == []
    with pytest.raises(AssertionError):
        jax.jit(f)(jnp.zeros((2, 4, 4, 3)))
