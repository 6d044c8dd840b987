"""Windows of a text, against slicing and against the loops of the book's first edition."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxd2l.data import Batches
from jaxd2l.data.text import Codec, adjacent, partition, windows

sizes = {"length": st.integers(2, 60), "steps": st.integers(1, 8), "offset": st.integers(0, 9)}


def tokens_of(length):
    return np.random.RandomState(length).randint(0, 50, length)


@pytest.mark.smoke
@given(sizes["length"], sizes["steps"])
def test_windows_start_at_every_token(length, steps):
    tokens = tokens_of(length)
    if length < steps + 1:
        told = rf"1 window\(s\) of {steps} steps .* need {steps + 1} tokens, got {length}; use a"
        with pytest.raises(ValueError, match=told):
            windows(tokens, steps)
        return
    data = windows(tokens, steps)
    assert len(data) == length - steps
    assert data.inputs.dtype == data.targets.dtype == np.int32
    for i in range(length - steps):
        assert data.inputs[i].tolist() == tokens[i : i + steps].tolist()
        assert data.targets[i].tolist() == tokens[i + 1 : i + steps + 1].tolist()


def test_the_first_windows_are_those_of_the_first_tokens():
    tokens, steps = tokens_of(50), 4
    whole = windows(tokens, steps)
    train = windows(tokens[: 20 + steps], steps)
    validation = windows(tokens[20 : 30 + steps], steps)
    for part, rows in ((train, range(20)), (validation, range(20, 30))):
        taken = whole.take(rows)
        np.testing.assert_array_equal(part.inputs, taken.inputs)
        np.testing.assert_array_equal(part.targets, taken.targets)


def test_overlapping_windows_cost_no_memory():
    tokens = np.zeros(1_000_000, np.int32)
    data = windows(tokens, 1000)  # 8 GB if they were copied
    assert np.shares_memory(data.inputs[-1], tokens)
    assert np.shares_memory(data.targets[-1], tokens)
    assert not data.inputs.flags.writeable
    assert tokens.flags.writeable


@given(**sizes)
def test_partition_is_the_books_random_sampling(length, steps, offset):
    tokens = tokens_of(length)
    corpus = tokens[offset:].tolist()
    number = (len(corpus) - 1) // steps
    if number < 1:
        with pytest.raises(ValueError, match="partition: 1 window"):
            partition(tokens, steps, offset)
        return
    data = partition(tokens, steps, offset)
    starts = range(0, number * steps, steps)
    assert data.inputs.tolist() == [corpus[j : j + steps] for j in starts]
    assert data.targets.tolist() == [corpus[j + 1 : j + 1 + steps] for j in starts]


def sequential(corpus, batch_size, steps, offset):
    """`seq_data_iter_sequential` of the first edition, 8.3.4, its offset given."""
    number = ((len(corpus) - offset - 1) // batch_size) * batch_size
    xs = np.array(corpus[offset : offset + number]).reshape(batch_size, -1)
    ys = np.array(corpus[offset + 1 : offset + 1 + number]).reshape(batch_size, -1)
    for i in range(0, steps * (xs.shape[1] // steps), steps):
        yield xs[:, i : i + steps], ys[:, i : i + steps]


@given(**sizes, batch_size=st.integers(1, 5))
def test_adjacent_is_the_books_sequential_sampling(length, steps, offset, batch_size):
    tokens = tokens_of(length)
    wanted = list(sequential(tokens.tolist(), batch_size, steps, offset)) if length > offset else []
    if not wanted:
        with pytest.raises(ValueError, match=f"adjacent: {batch_size} window"):
            adjacent(tokens, batch_size, steps, offset)
        return
    data = adjacent(tokens, batch_size, steps, offset)
    for drop_last in (False, True):
        found = list(Batches(data, batch_size, shuffle=False, drop_last=drop_last).epoch(0))
        assert len(found) == len(wanted)
        for batch, (x, y) in zip(found, wanted, strict=True):
            assert batch.mask.all()
            np.testing.assert_array_equal(batch.inputs, x)
            np.testing.assert_array_equal(batch.targets, y)


def test_each_row_goes_on_where_it_ended():
    batches = list(Batches(adjacent(range(1000), 4, 7, 3), 4, shuffle=False).epoch(0))
    assert len(batches) == (1000 - 3 - 1) // 4 // 7
    for batch in batches:
        np.testing.assert_array_equal(batch.targets, batch.inputs + 1)
    for batch, after in itertools.pairwise(batches):
        np.testing.assert_array_equal(after.inputs[:, 0], batch.targets[:, -1])
    seen = np.concatenate([batch.inputs.ravel() for batch in batches])
    assert len(set(seen.tolist())) == len(seen)  # no token twice
    np.testing.assert_array_equal(batches[0].inputs[:, 0], 3 + 249 * np.arange(4))


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: windows([0, 1, -2], 1), ValueError, r"index -2 at position 2 is outside \[0, 214"),
        (lambda: windows([0, 2**31], 1), ValueError, "position 1 is outside"),
        (lambda: windows([0.0, 1.0], 1), TypeError, r"integers of shape \(n,\), got float64"),
        (lambda: windows([[0, 1]], 1), TypeError, r"got int64 of shape \(1, 2\)"),
        (lambda: windows([True, False], 1), TypeError, "got bool"),
        (lambda: windows(["a", "b"], 1), TypeError, "windows: indices must be integers"),
        (lambda: windows([], 1), ValueError, "need 2 tokens, got 0; use a longer text"),
        (lambda: windows([0, 1], 0), ValueError, "steps must be at least 1"),
        (lambda: windows([0, 1], 1.0), TypeError, "steps must be an integer"),
        (lambda: partition([0, 1], 1, -1), ValueError, "offset must be at least 0"),
        (lambda: partition([0, 1], 1, 5), ValueError, "got 0 after an offset of 5"),
        (lambda: partition([0, 1], 0), ValueError, "steps must be at least 1"),
        (lambda: adjacent(range(9), 0, 1), ValueError, "batch_size must be at least 1"),
        (lambda: adjacent(range(9), 3, 3), ValueError, "3 window.* need 10 tokens, got 9"),
    ],
)
def test_windows_that_cannot_be(make, error, told):
    with pytest.raises(error, match=told):
        make()


def test_from_a_text_to_batches():
    codec = Codec.train("abcdefgh")
    batch = next(Batches(windows(codec.encode("abcdefgh"), 3), 2, shuffle=False).epoch(0))
    assert [codec.decode(row) for row in batch.inputs] == ["abc", "bcd"]
    assert [codec.decode(row) for row in batch.targets] == ["bcd", "cde"]
