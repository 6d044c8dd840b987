"""Batches: one shape, each example once an epoch, exact resume, fresh arrays."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxd2l.data import Batches, Dataset, epoch_order
from jaxd2l.geometry import iterations_per_epoch


def numbered(n):
    return Dataset(np.arange(2.0 * n).reshape(n, 2), np.arange(n))


def equal(a, b):
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3), st.booleans())
def test_each_example_comes_once_an_epoch(n, size, epoch, shuffle):
    batches = Batches(numbered(n), size, seed=1, shuffle=shuffle)
    seen = []
    count = 0
    for batch in batches.epoch(epoch):
        count += 1
        assert batch.inputs.shape == (size, 2)
        assert batch.targets.shape == batch.mask.shape == batch.indices.shape == (size,)
        assert batch.mask.dtype == bool
        np.testing.assert_array_equal(batch.targets, batch.indices)
        np.testing.assert_array_equal(batch.inputs[:, 0], 2 * batch.indices)
        seen += batch.targets[batch.mask].tolist()
        assert set(batch.targets[~batch.mask]) <= set(range(n))  # the filling is real examples
    assert sorted(seen) == list(range(n))
    if not shuffle:
        assert seen == list(range(n))
    assert count == len(batches) == iterations_per_epoch(n, size)


@given(st.integers(1, 40), st.integers(1, 12))
def test_only_the_last_batch_is_padded(n, size):
    """The notes say the last batch is short when the batch is larger than the data; it is short
    whenever the size does not divide the number (E5, E72)."""
    masks = [batch.mask for batch in Batches(numbered(n), size).epoch(0)]
    assert all(mask.all() for mask in masks[:-1])
    rest = n % size or size
    np.testing.assert_array_equal(masks[-1], np.arange(size) < rest)
    assert (len(masks) * size == n) == (n % size == 0)


@given(st.integers(1, 40), st.integers(1, 12))
def test_drop_last(n, size):
    if n < size:
        with pytest.raises(ValueError, match=f"leaves nothing of {n} examples"):
            Batches(numbered(n), size, drop_last=True)
        return
    batches = Batches(numbered(n), size, drop_last=True)
    seen = [batch.indices for batch in batches.epoch(0)]
    assert len(seen) == len(batches) == n // size
    assert len(set(np.concatenate(seen))) == n // size * size


def test_two_thousand_samples_in_batches_of_five_hundred():
    batches = Batches(Dataset(np.zeros((2000, 1)), np.zeros(2000, int)), 500)
    assert sum(1 for _ in batches.epoch(0)) == len(batches) == 4


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 4), st.data())
def test_resume_is_exact(n, size, epoch, data):
    make = lambda: Batches(numbered(n), size, seed=7)  # noqa: E731
    whole = list(make().epoch(epoch))
    start = data.draw(st.integers(0, len(whole)))
    rest = list(make().epoch(epoch, start=start))
    assert len(rest) == len(whole) - start
    assert all(equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_order_depends_on_seed_and_epoch_only():
    orders = {
        (seed, epoch): tuple(epoch_order(50, seed, epoch))
        for seed, epoch in itertools.product((0, 1, 2, 2**32, 2**40 + 1), (0, 1, 2, 2**20))
    }
    assert len(set(orders.values())) == len(orders)
    assert orders[1, 2] == tuple(epoch_order(50, 1, 2))


def test_order_is_pinned():
    """A stored position must mean the same under every version of NumPy."""
    assert epoch_order(10, seed=42, epoch=3).tolist() == [3, 8, 4, 9, 6, 5, 2, 0, 7, 1]


def test_order_is_uniform():
    """Each of the 24 orders of 4 examples comes about equally often (chi-square, 23 degrees)."""
    counts = {}
    for epoch in range(4800):
        order = tuple(epoch_order(4, 0, epoch))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 49.7  # p = 0.001


def test_arrays_are_fresh_so_that_jax_may_keep_them():
    data = numbered(8)
    kept = []
    for shuffle in (True, False):
        for batch in Batches(data, 4, shuffle=shuffle).epoch(0):
            for array in batch:
                assert array.flags.owndata or array.base.flags.owndata
                assert not np.shares_memory(array, data.inputs)
                assert not np.shares_memory(array, data.targets)
            kept.append(batch)
    for a, b in itertools.combinations(kept, 2):
        assert not any(np.shares_memory(x, y) for x in a for y in b)
    on_device = [jax.device_put(batch.inputs) for batch in kept]
    for batch, array in zip(kept, on_device, strict=True):
        np.testing.assert_array_equal(array[:, 0], 2 * batch.indices)


def test_a_batch_is_a_pytree_and_one_compiled_step_serves_an_epoch():
    traces = []

    @jax.jit
    def total(batch):
        traces.append(1)
        return jnp.sum(jnp.where(batch.mask, batch.targets, 0))

    batches = Batches(numbered(10), 4)
    assert sum(int(total(batch)) for batch in batches.epoch(0)) == sum(range(10))
    assert len(batches) == 3
    assert len(traces) == 1


def test_targets_of_any_rank():
    data = Dataset(np.zeros((5, 2)), np.arange(5.0)[:, None])
    assert [batch.targets.shape for batch in Batches(data, 2).epoch(0)] == [(2, 1)] * 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda d: Batches(d, 0), ValueError, "batch_size must be at least 1, got 0"),
        (lambda d: Batches(d, 2.0), TypeError, "batch_size must be an integer, got 2.0"),
        (lambda d: Batches(d, 2, seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda d: Batches(d, 2).epoch(-1), ValueError, "epoch must be at least 0"),
        (lambda d: Batches(d, 2).epoch(0, start=-1), ValueError, "start must be at least 0"),
        (lambda d: Batches(d, 2).epoch(0, start=4), ValueError, "start 4 is beyond the 3 steps"),
    ],
)
def test_bad_arguments_are_refused_at_once(call, error, message):
    with pytest.raises(error, match=message):
        call(numbered(5))
