"""Additive attention: its formula, masks and dropout, the book's example, gradients, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from jaxd2l.ops.attention import additive_attention, additive_weights
from jaxd2l.ops.dropout import dropout

attend = jax.jit(additive_attention, static_argnames="dropout")


@jax.jit
def both(query, key, value, *kernels, **seen):
    weights = additive_weights(query, key, *kernels, **seen)
    return weights, additive_attention(query, key, value, *kernels, **seen)


# n=2, q=3, k=4, dq=5, dk=2, v=3, h=6
SHAPES = [(2, 3, 5), (2, 4, 2), (2, 4, 3), (5, 6), (2, 6), (6,)]
MASK = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]], bool)  # the second query sees nothing


def draws(seed=0, shapes=SHAPES):
    draw = np.random.RandomState(seed)
    return [draw.randn(*shape) for shape in shapes]


def arrays(dtype=jnp.float32):
    return [jnp.asarray(a, dtype) for a in draws()]


def by_hand(query, key, value, query_kernel, key_kernel, score_kernel, seen):
    """(y, weights), one pair after the other; `seen` (n, q, k)."""
    n, q, k = seen.shape
    weights = np.zeros((n, q, k))
    for b, i in np.ndindex(n, q):
        for j in range(k):
            hidden = np.tanh(query[b, i] @ query_kernel + key[b, j] @ key_kernel)
            weights[b, i, j] = np.exp(hidden @ score_kernel) * seen[b, i, j]
        weights[b, i] /= weights[b, i].sum() or 1
    return np.stack([w @ v for w, v in zip(weights, value, strict=True)]), weights


@pytest.mark.smoke
def test_the_example_of_the_book():
    query, key = np.random.RandomState(0).randn(2, 1, 20), np.ones((2, 10, 2))
    value = np.broadcast_to(np.arange(40.0).reshape(1, 10, 4), (2, 10, 4))
    kernels = draws(1, [(20, 8), (2, 8), (8,)])
    given = (jnp.asarray(a, jnp.float32) for a in (query, key, value, *kernels))
    y = attend(*given, lengths=jnp.array([2, 6]))  # equal keys: the mean of the valid values
    np.testing.assert_allclose(y, [[[2, 3, 4, 5]], [[10, 11, 12, 13]]], rtol=1e-6)


@pytest.mark.parametrize(
    ("lengths", "mask"),
    [
        (None, None),
        ([4, 2], None),
        ([0, 3], MASK),
        (None, MASK[0]),
        ([1, 3], MASK[None, :, 1:2]),
    ],
)
def test_it_is_the_formula_under_every_mask(lengths, mask, x64, strict_promotion):
    seen = np.broadcast_to(True if mask is None else mask, (2, 3, 4))
    if lengths is not None:
        seen = seen & (np.arange(4) < np.array(lengths)[:, None, None])
    lengths = None if lengths is None else jnp.array(lengths)
    mask = None if mask is None else jnp.asarray(mask)
    given = arrays(jnp.float64)
    y, weights = by_hand(*draws(), seen)
    got, pooled = both(*given, lengths=lengths, mask=mask)
    np.testing.assert_allclose(got, weights, atol=1e-14)
    np.testing.assert_allclose(got.sum(-1), seen.any(-1), atol=1e-14)
    np.testing.assert_allclose(pooled, y, atol=1e-13)


def test_derivatives_also_where_a_query_sees_nothing(x64):
    f = functools.partial(additive_attention, lengths=jnp.array([4, 2]), mask=jnp.asarray(MASK))
    given = arrays(jnp.float64)
    check_grads(jax.jit(f), given, order=1, modes=("fwd", "rev"))
    gradients = jax.jit(jax.grad(lambda a: jnp.sum(jnp.sin(f(*a)))))(given)
    assert (gradients[0][:, 1] == 0).all()  # of the query without keys
    assert (gradients[1][1, 2:] == 0).all()  # of the keys beyond the length
    assert all(jnp.isfinite(g).all() and jnp.abs(g).max() > 1e-3 for g in gradients)


@pytest.mark.slow
def test_second_derivatives(x64):
    f = jax.jit(functools.partial(additive_attention, lengths=jnp.array([0, 3])))
    check_grads(f, arrays(jnp.float64), order=2, modes=("fwd", "rev"))


def test_dtypes(strict_promotion):
    want = by_hand(*draws(), np.ones((2, 3, 4), bool))[0]
    for dtype, tol in ((jnp.float32, 1e-5), (jnp.bfloat16, 0.06)):
        y = attend(*arrays(dtype))
        assert y.dtype == dtype
        np.testing.assert_allclose(np.float32(y), want, atol=tol)


def test_what_is_masked_has_no_influence_even_if_it_is_enormous():
    query, key, value, *kernels = arrays()
    lengths = jnp.array([4, 2])
    y = attend(query, key, value, *kernels, lengths=lengths)
    other = attend(query, key.at[1, 2:].set(1e30), value.at[1, 2:].set(1e30), *kernels,
                   lengths=lengths)  # fmt: skip
    np.testing.assert_array_equal(y, other)


def test_dropout_drops_weights_by_the_example():
    given, key = arrays(), jax.random.key(3)
    weights, plain = both(*given)
    want = jnp.matmul(dropout(weights, 0.5, key), given[2])
    y = attend(*given, dropout=0.5, dropout_key=key)
    np.testing.assert_allclose(y, want, atol=1e-6)
    second = [a[1:] for a in given[:3]] + given[3:]
    alone = attend(*second, dropout=0.5, dropout_key=key, examples=jnp.array([1]))
    np.testing.assert_allclose(alone[0], y[1], atol=1e-6)
    assert jnp.abs(y - plain).max() > 0.1


def test_vmap_and_shard_map_equal_the_batch():
    query, key, value, *kernels = arrays()
    lengths = jnp.array([4, 2])
    y = attend(query, key, value, *kernels, lengths=lengths)

    def one(q, k, v, length):
        return additive_attention(q[None], k[None], v[None], *kernels, lengths=length[None])[0]

    np.testing.assert_allclose(jax.vmap(one)(query, key, value, lengths), y, atol=1e-6)
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.shard_map(
        lambda q, k, v, length, *kernels: additive_attention(q, k, v, *kernels, lengths=length),
        mesh=mesh,
        in_specs=(P("i"),) * 4 + (P(),) * 3,
        out_specs=P("i"),
    )
    np.testing.assert_allclose(jax.jit(split)(query, key, value, lengths, *kernels), y, atol=1e-6)


@pytest.mark.parametrize(
    ("place", "shape", "told"),
    [
        (0, (3, 5), r"query must have shape \(n, time, features\), got \(3, 5\)"),
        (0, (1, 3, 5), "same number of examples, got 1 and 2"),
        (2, (2, 3, 3), r"value must have shape \(2, 4, v\) .* got \(2, 3, 3\)"),
        (3, (4, 6), r"query_kernel must have shape \(5, h\) and score_kernel \(h,\), got \(4, 6\)"),
        (4, (2, 5), r"key_kernel must have shape \(2, h\) .* got \(2, 5\) and \(6,\)"),
        (5, (6, 1), r"score_kernel \(h,\), got \(5, 6\) and \(6, 1\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(place, shape, told):
    given = arrays()
    given[place] = jnp.ones(shape)
    with pytest.raises(ValueError, match=f"additive_attention: .*{told}"):
        additive_attention(*given)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"mask": np.ones((3, 4))}, TypeError, "mask must be boolean .* got float"),
        ({"mask": np.ones((2, 4), bool)}, ValueError, r"broadcast to \(2, 3, 4\), got \(2, 4\)"),
        ({"lengths": np.ones(3, int)}, ValueError, r"lengths must .*\(2,\), got \(3,\)"),
        ({"lengths": np.ones(2)}, TypeError, "lengths must be integers"),
        ({"dropout": 0.5}, ValueError, "dropout_key is None"),
        ({"dropout": -0.5, "dropout_key": jax.random.key(0)}, ValueError, r"in \[0, 1\], got -0.5"),
    ],
)
def test_wrong_options_are_refused(options, error, told):
    with pytest.raises(error, match=told):
        additive_attention(*arrays(), **options)


def test_integers_are_refused():
    for place, name in enumerate(("query", "key", "value")):
        given = arrays()
        given[place] = jnp.ones(given[place].shape, int)
        with pytest.raises(TypeError, match=f"additive_attention: {name} must be floating point"):
            additive_attention(*given)
