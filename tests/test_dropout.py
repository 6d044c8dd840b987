import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jax.test_util import check_grads

from jaxd2l.ops.dropout import classic_dropout, dropout, dropout_mask

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def mesh():
    assert jax.device_count() == 4
    return jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


# --- one example, one mask ------------------------------------------------------------------------


def test_four_devices_draw_the_mask_of_one(mesh):
    x = jnp.asarray(np.random.RandomState(0).randn(8, 3, 5), jnp.float32)
    alone = jax.jit(lambda x, key: dropout(x, 0.4, key))(x, KEY)
    assert 0 < (alone == 0).sum() < alone.size
    split, whole = PartitionSpec("data"), PartitionSpec()

    def local(x, key):
        first = jax.lax.axis_index("data") * 2
        return dropout(x, 0.4, key, examples=first + jnp.arange(2))

    mapped = jax.pmap(local, axis_name="data", in_axes=(0, None))(x.reshape(4, 2, 3, 5), KEY)
    np.testing.assert_array_equal(mapped.reshape(8, 3, 5), alone)

    sharded_map = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=(split, whole), out_specs=split, check_vma=False)
    )
    np.testing.assert_array_equal(sharded_map(x, KEY), alone)

    on_mesh = jax.device_put(x, NamedSharding(mesh, split))
    sharded = jax.jit(lambda x, key: dropout(x, 0.4, key), out_shardings=NamedSharding(mesh, split))
    result = sharded(on_mesh, KEY)
    assert len(result.addressable_shards) == 4
    np.testing.assert_array_equal(result, alone)

    # Without the global indices every device would draw the same mask for its share.
    same = jax.pmap(lambda x, key: dropout(x, 0.4, key), in_axes=(0, None))(
        jnp.ones((4, 2, 3, 5)), KEY
    )
    np.testing.assert_array_equal(same[0], same[3])


def test_the_mask_does_not_depend_on_the_rest_of_the_batch():
    whole = dropout_mask(KEY, 0.3, (16, 7))
    order = np.random.RandomState(0).permutation(16)
    np.testing.assert_array_equal(
        dropout_mask(KEY, 0.3, (16, 7), examples=jnp.asarray(order)), whole[order]
    )
    np.testing.assert_array_equal(dropout_mask(KEY, 0.3, (5, 7)), whole[:5])  # a short last batch
    far = dropout_mask(KEY, 0.3, (1, 7), examples=np.array([3], np.uint8))
    np.testing.assert_array_equal(far, whole[3:4])


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_every_generator_keeps_the_promise(impl):
    key = jax.random.key(5, impl=impl)
    whole = dropout_mask(key, 0.5, (6, 20))
    part = dropout_mask(key, 0.5, (2, 20), examples=jnp.array([4, 1]))
    np.testing.assert_array_equal(part, whole[jnp.array([4, 1])])
    other = dropout_mask(jax.random.fold_in(key, 1), 0.5, (6, 20))
    assert (other != whole).any()
    assert (whole[0] != whole[1]).any()


def test_keys_of_the_old_kind_and_mapped_keys():
    old = dropout_mask(jax.random.PRNGKey(0), 0.5, (4, 6))
    np.testing.assert_array_equal(old, dropout_mask(KEY, 0.5, (4, 6)))
    keys = jax.random.split(KEY, 3)
    mapped = jax.jit(jax.vmap(lambda k: dropout_mask(k, 0.5, (4, 6))))(keys)
    for key, mask in zip(keys, mapped, strict=True):
        np.testing.assert_array_equal(mask, dropout_mask(key, 0.5, (4, 6)))


def test_the_mask_is_the_same_eagerly_compiled_and_in_any_dtype(x64, strict_promotion):
    mask = dropout_mask(KEY, 0.25, (6, 5))
    np.testing.assert_array_equal(jax.jit(lambda k: dropout_mask(k, 0.25, (6, 5)))(KEY), mask)
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        y = dropout(jnp.ones((6, 5), dtype), 0.25, KEY)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y != 0, mask)
        assert classic_dropout(jnp.ones((6, 5), dtype), 0.25, KEY, train=True).dtype == dtype
        assert classic_dropout(jnp.ones(6, dtype), 0.25, None, train=False).dtype == dtype
    np.testing.assert_array_equal(
        dropout_mask(KEY, 0.25, (6, 5), examples=jnp.arange(6, dtype=jnp.int64)), mask
    )


# --- distribution ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_mean_is_the_input_and_variance_is_as_published(rate):
    # C70, F21: E = x, Var = x^2 rate / (1 - rate).
    n = 100_000
    y = np.asarray(dropout(jnp.full((n, 2), jnp.array([1.0, -3.0])), rate, KEY), np.float64)
    deviation = math.sqrt(rate / (1 - rate))
    for column, x in zip(y.T, (1.0, -3.0), strict=True):
        assert abs(column.mean() - x) < 5 * abs(x) * deviation / math.sqrt(n)
        np.testing.assert_allclose(column.var(), x**2 * rate / (1 - rate), rtol=0.05)
    both_dropped = ((y == 0).all(1)).mean()  # the two units are independent
    assert abs(both_dropped - rate**2) < 5 * math.sqrt(rate**2 * (1 - rate**2) / n)
    neighbours = ((y[1:, 0] == 0) & (y[:-1, 0] == 0)).mean()  # and so are neighbouring examples
    assert abs(neighbours - rate**2) < 6 * math.sqrt(rate**2 * (1 - rate**2) / n)


def test_at_test_time_all_units_are_used_and_the_factor_is_the_share_kept():
    # C72, E18: "multiply by p" is false when p is the fraction dropped.
    x, rate = jnp.full((100_000, 1), 2.0), 0.2
    train_mean = classic_dropout(x, rate, KEY, train=True).mean()
    test = classic_dropout(x[:1], rate, None, train=False)[0, 0]
    np.testing.assert_allclose(test, 2.0 * (1 - rate), rtol=1e-6)
    np.testing.assert_allclose(train_mean, test, rtol=0.01)
    assert abs(train_mean - 2.0 * rate) > 1
    # E19: a "retain 0.8" is rate 0.2 here.
    assert abs(dropout_mask(KEY, 0.2, (100_000, 1)).mean() - 0.8) < 0.01


def test_inverted_dropout_is_classic_dropout_over_the_share_kept():
    x = jnp.asarray(np.random.RandomState(0).randn(10, 4), jnp.float32)
    np.testing.assert_allclose(
        dropout(x, 0.3, KEY), classic_dropout(x, 0.3, KEY, train=True) / 0.7, rtol=1e-6
    )


def test_half_gives_the_most_entropy_not_the_most_masks():
    # C71: any rate in (0, 1) can give all 2^n masks; the entropy n H(rate) is largest at 1/2.
    rates = np.array([0.2, 0.4, 0.5, 0.6, 0.8])
    per_unit = -(rates * np.log(rates) + (1 - rates) * np.log(1 - rates))
    measured = []
    for rate in rates:
        masks = np.asarray(dropout_mask(KEY, float(rate), (20_000, 3)))
        patterns, counts = np.unique(masks, axis=0, return_counts=True)
        assert len(patterns) == 2**3
        share = counts / counts.sum()
        measured.append(-(share * np.log(share)).sum())
    np.testing.assert_allclose(measured, 3 * per_unit, rtol=0.02)
    assert np.argmax(measured) == 2


def test_dropout_on_a_linear_model_is_ridge_in_expectation():
    # C73, F21: E|y - (x m / (1-p)) w|^2 = |y - x w|^2 + p / (1-p) sum_j w_j^2 sum_i x_ij^2.
    rng = np.random.RandomState(0)
    x, w, y, rate = rng.randn(6, 4), rng.randn(4), rng.randn(6), 0.3
    wanted = ((y - x @ w) ** 2).sum()
    wanted += rate / (1 - rate) * (w**2 * (x**2).sum(0)).sum()
    exact = 0.0
    for mask in itertools.product([0, 1], repeat=4):
        chance = np.prod(np.where(mask, 1 - rate, rate))
        exact += chance * ((y - (x * mask / (1 - rate)) @ w) ** 2).sum()
    np.testing.assert_allclose(exact, wanted, rtol=1e-12)

    def loss(key):
        return jnp.sum(jnp.square(y - dropout(jnp.asarray(x, jnp.float32), rate, key) @ w))

    samples = np.asarray(jax.jit(jax.vmap(loss))(jax.random.split(KEY, 20_000)))
    assert abs(samples.mean() - wanted) < 5 * samples.std() / math.sqrt(len(samples))


# --- forward and backward -------------------------------------------------------------------------


def test_dropped_units_are_zero_forward_and_give_no_gradient():
    # E17, C76: per example, a dropped hidden unit's weights get no gradient, in or out; over a
    # batch they do, since other examples keep the unit.
    rng = np.random.RandomState(0)
    x = jnp.asarray(rng.randn(8, 3), jnp.float32)
    first, second = jnp.asarray(rng.randn(3, 5)), jnp.asarray(rng.randn(5, 2))
    mask = np.asarray(dropout_mask(KEY, 0.5, (8, 5)))
    assert mask.any(0).all()
    assert not mask.all(0).any()
    hidden = dropout(x @ first, 0.5, KEY)
    np.testing.assert_array_equal(hidden == 0, ~mask)

    @jax.jit
    def slopes(x, examples, first, second):
        def loss(first, second):
            h = dropout(x @ first, 0.5, KEY, examples=examples)
            return jnp.sum(jnp.square(h @ second))

        return jax.grad(loss, (0, 1))(first, second)

    for i in range(8):
        a, b = slopes(x[i : i + 1], jnp.array([i]), first, second)
        np.testing.assert_array_equal((np.asarray(a) == 0).all(0), ~mask[i])
        np.testing.assert_array_equal((np.asarray(b) == 0).all(1), ~mask[i])
    a, b = slopes(x, jnp.arange(8), first, second)
    assert (np.asarray(a) != 0).all()
    assert (np.asarray(b) != 0).all()
    # E19: activations are dropped; the weights stay, all of them.
    assert a.shape == first.shape
    assert b.shape == second.shape


def test_gradients_of_both_modes(x64):
    x = jnp.asarray(np.random.RandomState(0).randn(3, 4))
    check_grads(
        jax.jit(
            lambda x: (
                dropout(x, 0.5, KEY),
                classic_dropout(x, 0.5, KEY, train=True),
                classic_dropout(x, 0.5, None, train=False),
                dropout(x, 1.0, KEY),
            )
        ),
        (x,),
        order=1,
    )


def test_rates_zero_and_one():
    x = jnp.asarray([[1.0, -2.0], [jnp.inf, jnp.nan]])
    np.testing.assert_array_equal(dropout(x, 0.0, KEY), x)
    np.testing.assert_array_equal(dropout(x, 0, KEY), x)
    value, slope = jax.value_and_grad(lambda x: dropout(x, 1.0, KEY).sum())(x)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    np.testing.assert_array_equal(dropout(x, 1.0, KEY), 0)
    np.testing.assert_array_equal(classic_dropout(x, 1.0, KEY, train=True), 0)
    np.testing.assert_array_equal(classic_dropout(x[:1], 1.0, None, train=False), 0)
    assert not dropout_mask(KEY, 1, (2, 3)).any()
    assert dropout_mask(KEY, 0, (2, 3)).all()
    assert not dropout_mask(KEY, 1 - 1e-12, (2, 3)).any()
    assert dropout_mask(KEY, 0.5, (0, 3)).shape == (0, 3)
    assert dropout_mask(KEY, 0.5, (5,)).shape == (5,)


def test_equal_networks_do_not_trace_again():
    traces = []

    @jax.jit
    def step(x, key, examples):
        traces.append(1)
        return dropout(x, 0.5, key, examples=examples)

    for i in range(3):
        step(jnp.ones((2, 3)), jax.random.fold_in(KEY, i), jnp.arange(2) + i)
    assert len(traces) == 1


def test_refusals():
    x = jnp.ones((4, 3))
    for rate in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"dropout: rate is the fraction dropped .* in \[0, 1"):
            dropout(x, rate, KEY)
    for rate in (True, "0.5", jnp.array(0.5)):
        with pytest.raises(TypeError, match="dropout: rate must be a Python number, got"):
            dropout(x, rate, KEY)
    with pytest.raises(TypeError, match="dropout: x must be floating point, got int32"):
        dropout(jnp.ones((4, 3), jnp.int32), 0.5, KEY)
    with pytest.raises(ValueError, match="shape must have a leading batch axis"):
        dropout(jnp.array(1.0), 0.5, KEY)
    with pytest.raises(ValueError, match=r"one index per example, shape \(4,\), got \(3,\)"):
        dropout(x, 0.5, KEY, examples=jnp.arange(3))
    with pytest.raises(ValueError, match=r"one index per example, shape \(4,\), got \(3,\)"):
        dropout(x, 0.0, KEY, examples=jnp.arange(3))
    with pytest.raises(TypeError, match="dropout_mask: examples must be integers, got float32"):
        dropout(x, 0.5, KEY, examples=jnp.ones(4))
    with pytest.raises(ValueError, match=r"key must be one PRNG key, got .* shape \(2,\)"):
        dropout(x, 0.5, jax.random.split(KEY))
    with pytest.raises(ValueError, match="classic_dropout: key is None, but training draws a mask"):
        classic_dropout(x, 0.5, None, train=True)
    with pytest.raises(ValueError, match="classic_dropout: rate is the fraction dropped"):
        classic_dropout(x, 2.0, None, train=False)
