"""Sinusoidal and rotary positions: their formulas, and that shifts are what matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxd2l.ops.positions import rotary, sinusoidal_positions

turn = jax.jit(rotary, static_argnames="base")


def by_hand(length, features):
    table = np.empty((length, features))
    for p in range(length):
        for j in range(features // 2):
            table[p, 2 * j] = np.sin(p / 10000 ** (2 * j / features))
            table[p, 2 * j + 1] = np.cos(p / 10000 ** (2 * j / features))
    return table


def rotated(x, positions, base=10000.0):
    """(n, t, heads, e) and (n, t), as multiplications of complex numbers."""
    half = x.shape[-1] // 2
    numbers = x[..., :half] + 1j * x[..., half:]
    angles = positions[..., None] / base ** (np.arange(half) / half)
    numbers = numbers * np.exp(1j * angles)[:, :, None]
    return np.concatenate([numbers.real, numbers.imag], axis=-1)


def draws(seed, *shapes):
    draw = np.random.RandomState(seed)
    return [draw.randn(*shape) for shape in shapes]


# Sinusoidal


@pytest.mark.smoke
@pytest.mark.parametrize(("length", "features"), [(60, 32), (1, 2), (0, 4)])
def test_sinusoidal_is_the_formula_of_the_book(length, features):
    table = sinusoidal_positions(length, features)
    assert table.shape == (length, features)
    assert table.dtype == jnp.float32
    np.testing.assert_allclose(table, by_hand(length, features), atol=1e-7)


def test_sinusoidal_is_exact_far_away_and_in_any_dtype(x64):
    far = 40_000
    want = np.sin(far / 10000 ** (2 * np.arange(4) / 8))
    np.testing.assert_allclose(sinusoidal_positions(far + 1, 8)[far, ::2], want, atol=1e-7)
    for dtype, tol in ((jnp.float64, 1e-15), (jnp.bfloat16, 4e-3)):
        table = sinusoidal_positions(9, 6, dtype)
        assert table.dtype == dtype
        np.testing.assert_allclose(np.float64(table), by_hand(9, 6), atol=tol)


def test_a_shift_is_a_fixed_rotation_of_each_pair():
    table, shift = np.float64(sinusoidal_positions(50, 8)), 7
    for j in range(4):
        angle = shift / 10000 ** (2 * j / 8)
        c, s = np.cos(angle), np.sin(angle)
        matrix = np.array([[c, s], [-s, c]])  # of (sin, cos), the same for every position
        pair = table[:, 2 * j : 2 * j + 2]
        np.testing.assert_allclose(pair[shift:], pair[:-shift] @ matrix.T, atol=3e-7)
    gram = table @ table.T  # so products depend on the difference only
    for offset in (0, 1, 13):
        assert np.ptp(np.diagonal(gram, offset)) < 2e-6
    np.testing.assert_allclose(np.diagonal(gram), 4, rtol=1e-6)


# Rotary


@pytest.mark.smoke
def test_rotary_multiplies_complex_numbers(strict_promotion):
    (x,) = draws(0, (2, 5, 3, 6))
    positions = np.array([[0, 1, 2, 3, 4], [7, 3, 3, 100, 0]])
    y = turn(jnp.asarray(x, jnp.float32), jnp.asarray(positions))
    np.testing.assert_allclose(y, rotated(x, positions), atol=2e-5)
    other = turn(jnp.asarray(x, jnp.float32), jnp.asarray(positions), base=50.0)
    np.testing.assert_allclose(other, rotated(x, positions, 50.0), atol=2e-5)
    same = turn(jnp.asarray(x, jnp.float32), jnp.asarray(positions[0]))  # (t,) for all examples
    np.testing.assert_array_equal(same[0], y[0])
    np.testing.assert_allclose(same[1], rotated(x[1:], positions[:1])[0], atol=2e-5)
    np.testing.assert_array_equal(y[0, 0], np.float32(x[0, 0]))  # position 0 stays
    headless = turn(jnp.asarray(x[:, :, 1], jnp.float32), jnp.asarray(positions))
    np.testing.assert_allclose(headless, y[:, :, 1], atol=1e-6)


def test_scores_depend_on_the_difference_and_norms_stay():
    q, k = draws(1, (8,), (8,))
    places = jnp.arange(40)
    queries, keys = (
        turn(jnp.broadcast_to(jnp.float32(a), (1, 40, 1, 8)), places)[0, :, 0] for a in (q, k)
    )
    scores = np.asarray(queries) @ np.asarray(keys).T
    for offset in (-20, -1, 0, 1, 20):
        assert np.ptp(np.diagonal(scores, offset)) < 2e-5
    np.testing.assert_allclose(scores[3, 3], q @ k, atol=1e-5)
    assert np.ptp(scores[0]) > 0.5  # while the difference does matter
    np.testing.assert_allclose(np.linalg.norm(queries, axis=-1), np.linalg.norm(q), rtol=1e-6)


def test_rotary_keeps_the_dtype_and_takes_its_angles_in_float32(strict_promotion):
    (x,) = draws(2, (1, 1, 2, 4))
    far = np.array([[1001]])  # bfloat16 would make it 1000
    want = rotated(x, far)
    for dtype, tol in ((jnp.float32, 2e-4), (jnp.bfloat16, 0.03)):
        y = turn(jnp.asarray(x, dtype), jnp.asarray(far))
        assert y.dtype == dtype
        np.testing.assert_allclose(np.float32(y), want, atol=tol)


def test_derivatives_vmap_and_float64(x64):
    x, c = map(jnp.asarray, draws(3, (2, 3, 2, 4), (2, 3, 2, 4)))
    places = jnp.array([[0, 1, 2], [4, 5, 6]])
    y = turn(x, places)
    assert y.dtype == jnp.float64
    np.testing.assert_allclose(y, rotated(np.asarray(x), np.asarray(places)), atol=1e-13)
    check_grads(lambda x: turn(x, places), (x,), order=2, modes=("fwd", "rev"))
    # the transpose of a rotation turns back
    (back,) = jax.vjp(lambda x: turn(x, places), x)[1](c)
    np.testing.assert_allclose(back, turn(c, -places), atol=1e-13)
    mapped = jax.vmap(lambda x, p: rotary(x[None], p)[0])(x, places)
    np.testing.assert_allclose(mapped, y, atol=1e-14)


# Errors


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ((4, 5), ValueError, "sinusoidal_positions: .* even and at least 2, got 5"),
        ((4, 0), ValueError, "at least 2, got 0"),
        ((-1, 4), ValueError, "length must be at least 0, got -1"),
        ((4, 4.0), TypeError, "features must be an integer, got 4.0"),
    ],
)
def test_wrong_tables_are_refused(arguments, error, told):
    with pytest.raises(error, match=told):
        sinusoidal_positions(*arguments)


@pytest.mark.parametrize(
    ("x", "positions", "base", "error", "told"),
    [
        (np.ones((2, 3, 1, 5), np.float32), np.arange(3), 10.0, ValueError, "even .* got 5"),
        (np.ones((2, 3), np.float32), np.arange(3), 10.0, ValueError, r"\(n, t, e\), got \(2, 3\)"),
        (np.ones((2, 3, 4), np.float32), np.arange(2), 10.0, ValueError, r"\(2, 3\) or \(3,\)"),
        (np.ones((2, 3, 4), np.float32), np.zeros((1, 3), int), 10.0, ValueError, r"got \(1, 3\)"),
        (np.ones((2, 3, 4), np.float32), np.ones(3, np.float32), 10.0, TypeError, "integers, got"),
        (np.ones((2, 3, 4), int), np.arange(3), 10.0, TypeError, "floating point, got int"),
        (np.ones((2, 3, 4), np.float32), np.arange(3), 0.0, ValueError, "above 0, got 0.0"),
        (np.ones((2, 3, 4), np.float32), np.arange(3), "10", TypeError, "number, got str"),
    ],
)
def test_wrong_rotations_are_refused(x, positions, base, error, told):
    with pytest.raises(error, match=told):
        rotary(x, positions, base)
