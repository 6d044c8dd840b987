"""Dataset, splits and folds, transforms, synthetic data and the bundled digits."""

import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxd2l.data import (
    Dataset,
    flatten,
    hold_out_last,
    k_folds,
    load_digits,
    one_hot,
    permute_features,
    polynomial_features,
    split,
    standardize,
    synthetic_linear,
    synthetic_polynomial,
    train_test_split,
)


def numbered(n):
    return Dataset(np.arange(2.0 * n).reshape(n, 2), np.arange(n))


# Dataset


def test_dtypes_are_brought_to_float32_and_int32():
    data = Dataset(np.zeros((2, 3), np.float64), np.array([0, 1], np.uint8), ("a", "b"))
    assert (data.inputs.dtype, data.targets.dtype) == (np.float32, np.int32)
    data = Dataset(np.zeros((2, 3), np.float16), np.zeros((2, 1), np.float64))
    assert (data.inputs.dtype, data.targets.dtype) == (np.float32, np.float32)


def test_arrays_are_read_only_and_the_callers_stay_writable():
    x = np.zeros((2, 3), np.float32)
    data = Dataset(x, np.array([0, 1]))
    with pytest.raises(ValueError, match="read-only"):
        data.inputs[0] = 1
    x[0] = 1  # allowed
    with pytest.raises(AttributeError):
        data.inputs = x


def test_take_copies_in_the_given_order():
    data = numbered(5)
    part = data.take([3, 0, 3])
    np.testing.assert_array_equal(part.inputs, data.inputs[[3, 0, 3]])
    np.testing.assert_array_equal(part.targets, [3, 0, 3])
    assert not np.shares_memory(part.inputs, data.inputs)
    assert len(data.take(range(2))) == 2


def test_repr_names_sizes_and_classes():
    assert repr(numbered(3)) == "Dataset(3 examples, inputs (2,), targets () int32)"


X2 = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X2, np.array([0])), ValueError, r"same length .* got shapes \(2, 3\) and \(1,\)"),
        ((np.float32(1), np.array([0])), ValueError, "same length"),
        ((X2[:0], np.zeros(0)), ValueError, "at least one example"),
        ((X2[:, :0], np.zeros(2)), ValueError, "no empty axis"),
        ((np.zeros((2, 3), np.uint8), np.array([0, 1])), TypeError, r"uint8; .*scale images"),
        ((np.full((2, 3), np.nan), np.array([0, 1])), ValueError, "inputs hold NaN or infinite"),
        ((np.full((2, 3), 1e300), np.array([0, 1])), ValueError, "infinite values .in float32"),
        ((X2, np.array([0.0, np.inf])), ValueError, "targets hold NaN or infinite"),
        ((X2, np.array([0, -1])), ValueError, "must be 0 or more, got -1 at example 1"),
        ((X2, np.array([0, 2**31])), ValueError, "got 2147483648 at example 1"),
        ((X2, np.array([0, 2]), ("a", "b")), ValueError, r"in \[0, 2\), got 2 at example 1"),
        ((X2, np.zeros((2, 1), int)), ValueError, r"labels of shape \(n,\), got \(2, 1\)"),
        ((X2, np.array(["a", "b"])), TypeError, "integer labels or floating point"),
        ((X2, np.zeros(2), ("a", "b")), TypeError, "with classes, targets must be integer"),
        ((X2, np.array([0, 1]), ("a", "a")), ValueError, "class names must differ"),
        ((X2, np.array([0, 1]), ()), TypeError, "tuple of names"),
        ((X2, np.array([0, 1]), (1, 2)), TypeError, "tuple of names"),
    ],
)
def test_bad_data_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Dataset(*arguments)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], ValueError, "no indices"),
        ([0, 5], ValueError, r"index 5 is outside \[0, 5\)"),
        ([-1], ValueError, "index -1 is outside"),
        ([True, False, True, False, True], TypeError, "list of integers, got bool"),
        ([0.0], TypeError, "list of integers"),
        ([[0]], TypeError, "list of integers"),
    ],
)
def test_bad_indices_are_refused(indices, error, message):
    with pytest.raises(error, match=message):
        numbered(5).take(indices)


# Splits


@given(st.integers(2, 60), st.integers(0, 5), st.data())
def test_split_is_a_partition(n, seed, data):
    first = data.draw(st.integers(1, n - 1))
    parts = split(numbered(n), (first, n - first), seed)
    assert [len(part) for part in parts] == [first, n - first]
    assert sorted(np.concatenate([part.targets for part in parts])) == list(range(n))
    for part in parts:  # inputs travel with their targets
        np.testing.assert_array_equal(part.inputs[:, 0], 2 * part.targets)


def test_split_by_fractions_and_in_order():
    parts = split(numbered(7), (1 / 3, 1 / 3, 1 / 3))
    assert [part.targets.tolist() for part in parts] == [[0, 1], [2, 3, 4], [5, 6]]


def test_random_split_is_repeatable_and_depends_on_the_seed():
    one, same, other = (train_test_split(numbered(50), 10, seed).test for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.targets, same.targets)
    assert not np.array_equal(one.targets, other.targets)
    assert not np.array_equal(np.sort(one.targets), np.arange(40, 50))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda d: split(d, (3, 3)), ValueError, r"\(3, 3\) sum to 6, not to 5"),
        (lambda d: split(d, (0.5, 0.6)), ValueError, "sum to 1.1, not to 1"),
        (lambda d: split(d, (0.5, float("nan"))), ValueError, "sum to nan"),
        (lambda d: split(d, (0.95, 0.05)), ValueError, "leaves an empty part"),
        (lambda d: split(d, (6, -1)), ValueError, "leaves an empty part"),
        (lambda d: split(d, (4, 0.2)), TypeError, "not a mixture"),
        (lambda d: split(d, (4, True)), TypeError, "not a mixture"),
        (lambda d: split(d, ()), ValueError, "sum to 0"),
        (lambda d: hold_out_last(d, 5), ValueError, "cannot hold out 5 of 5 examples"),
        (lambda d: hold_out_last(d, 0), ValueError, "n must be at least 1"),
        (lambda d: train_test_split(d, 7), ValueError, "cannot hold out 7 of 5 examples"),
        (lambda d: train_test_split(d, 0.2, -1), ValueError, "seed must be at least 0"),
        (lambda d: k_folds(5, 6), ValueError, "6 folds of 5 examples"),
        (lambda d: k_folds(5, 1), ValueError, "k must be at least 2"),
    ],
)
def test_bad_splits_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(numbered(5))


@given(st.integers(2, 80), st.integers(2, 12), st.none() | st.integers(0, 3))
def test_every_example_validates_in_exactly_one_fold(n, k, seed):
    """Catalogue C83 and F25."""
    k = min(k, n)
    folds = k_folds(n, k, seed)
    assert len(folds) == k
    assert sorted(np.concatenate([fold.valid for fold in folds])) == list(range(n))
    sizes = [len(fold.valid) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in folds:
        assert sorted(np.concatenate([fold.train, fold.valid])) == list(range(n))


def test_the_mean_of_equal_folds_is_the_mean_over_examples():
    errors = np.random.RandomState(0).rand(60)
    folds = k_folds(60, 5, seed=0)
    means = [errors[fold.valid].mean() for fold in folds]
    np.testing.assert_allclose(np.mean(means), errors.mean(), rtol=1e-12)


# Transforms


def test_one_hot_values():
    np.testing.assert_array_equal(one_hot(np.array([1]), 5), [[0, 1, 0, 0, 0]])
    labels = np.random.RandomState(0).randint(0, 7, (3, 4))
    hot = one_hot(labels, 7)
    assert hot.shape == (3, 4, 7)
    assert hot.dtype == np.float32
    np.testing.assert_array_equal(hot.argmax(-1), labels)
    np.testing.assert_array_equal(hot.sum(-1), 1)


@pytest.mark.parametrize("bad", [-1, 5])
def test_one_hot_refuses_labels_out_of_range(bad):
    with pytest.raises(ValueError, match=rf"in \[0, 5\), got {bad} at 1"):
        one_hot(np.array([0, bad]), 5)
    with pytest.raises(TypeError, match="integers, got float64"):
        one_hot(np.array([0.0]), 5)


def test_flatten_keeps_rows():
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(flatten(x)[1], np.arange(12.0, 24.0))
    with pytest.raises(ValueError, match="single number"):
        flatten(np.float32(1))


def test_standardize_against_numpy_and_reuse_of_statistics():
    random = np.random.RandomState(0)
    x, other = random.randn(50, 3) * [1, 100, 1e-3] + [0, 5, -2], random.randn(4, 3)
    z, mean, std = standardize(x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-12)
    again, mean2, std2 = standardize(other, mean, std)
    np.testing.assert_allclose(again, (other - x.mean(0)) / x.std(0), rtol=1e-9)
    assert mean2 is not None
    np.testing.assert_array_equal(std2, std)


def test_standardize_by_channel():
    x = np.random.RandomState(0).rand(4, 5, 6, 3).astype(np.float32)
    z, mean, std = standardize(x, axis=(0, 1, 2))
    assert mean.shape == std.shape == (1, 1, 1, 3)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e30, 1e-30])
@pytest.mark.parametrize("n", [1, 3, 7, 1000])
def test_a_constant_column_becomes_zero(value, n):
    x = np.full((n, 1), value, np.float32)
    z, mean, std = standardize(x)
    np.testing.assert_array_equal(z, 0)
    np.testing.assert_array_equal(std, 0)
    np.testing.assert_array_equal(mean, x[:1])


def test_standardize_does_not_overflow():
    z, _, _ = standardize(np.array([[1e300], [-1e300]]))
    np.testing.assert_allclose(z, [[1], [-1]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: standardize(np.array([[1, 2]])), TypeError, "floating point, got int64"),
        (lambda: standardize(np.array([[np.nan]])), ValueError, "fill them first"),
        (lambda: standardize(np.zeros((0, 2))), ValueError, "holds nothing"),
        (lambda: standardize(np.zeros((2, 2)), np.zeros((1, 2))), ValueError, "both mean and std"),
        (
            lambda: standardize(np.zeros((2, 2)), np.zeros((1, 3)), np.ones((1, 3))),
            ValueError,
            r"must have shape \(1, 2\), got \(1, 3\)",
        ),
    ],
)
def test_standardize_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_permuted_features_are_one_permutation_for_all_examples():
    x = np.random.RandomState(0).rand(5, 4, 4, 2).astype(np.float32)
    y = permute_features(x, seed=3)
    assert y.shape == x.shape
    np.testing.assert_array_equal(y, permute_features(x, seed=3))
    assert not np.array_equal(y, x)
    order = permute_features(np.arange(32.0).reshape(1, 4, 4, 2), seed=3).reshape(-1).astype(int)
    assert sorted(order) == list(range(32))
    np.testing.assert_array_equal(flatten(y), flatten(x)[:, order])


# Synthetic data


def test_synthetic_linear_is_the_books_and_repeatable():
    data = synthetic_linear(seed=0)
    assert data.inputs.shape == (1000, 2)
    assert data.targets.shape == (1000, 1)
    noise = data.targets - data.inputs @ np.array([[2.0], [-3.4]], np.float32) - 4.2
    assert abs(noise.std() - 0.01) < 0.001
    assert abs(noise.mean()) < 0.001
    np.testing.assert_array_equal(synthetic_linear(0).inputs, data.inputs)
    assert not np.array_equal(synthetic_linear(1).inputs, data.inputs)


def test_least_squares_recovers_the_linear_truth():
    data = synthetic_linear(seed=3)
    design = np.hstack([data.inputs, np.ones((1000, 1))])
    found = np.linalg.lstsq(design, data.targets, rcond=None)[0][:, 0]
    np.testing.assert_allclose(found, [2, -3.4, 4.2], atol=2e-3)


def test_synthetic_polynomial_is_the_books():
    data, truth = synthetic_polynomial(seed=0, n=100, degree=19)
    assert data.inputs.shape == (100, 20)
    np.testing.assert_array_equal(truth[:4], np.array([5, 1.2, -3.4, 5.6], np.float32))
    np.testing.assert_array_equal(truth[4:], 0)
    x = data.inputs[:, 1].astype(np.float64)
    noise = data.targets[:, 0] - (5 + 1.2 * x - 3.4 * x**2 / 2 + 5.6 * x**3 / 6)
    assert 0.07 < noise.std() < 0.13


def test_a_line_cannot_fit_the_cubic_but_four_coefficients_do():
    def residual(degree):
        data, truth = synthetic_polynomial(seed=1, n=1000, degree=degree)
        found, *_ = np.linalg.lstsq(data.inputs, data.targets, rcond=None)
        return np.mean((data.inputs @ found - data.targets) ** 2), found[:, 0], truth

    underfit, _, _ = residual(1)
    fit, found, truth = residual(3)
    assert underfit > 1
    assert fit < 0.02
    np.testing.assert_allclose(found, truth, atol=0.03)


def test_five_points_and_five_coefficients_leave_no_error():
    """100 noisy points cannot be met by a cubic; as many points as coefficients can."""
    few, _ = synthetic_polynomial(seed=2, n=4, degree=3)
    exact = np.linalg.solve(few.inputs.astype(np.float64), few.targets)
    np.testing.assert_allclose(few.inputs @ exact, few.targets, atol=1e-5)
    many, _ = synthetic_polynomial(seed=2, n=100, degree=3)
    found, *_ = np.linalg.lstsq(many.inputs, many.targets, rcond=None)
    assert np.mean((many.inputs @ found - many.targets) ** 2) > 0.005


def test_polynomial_features_of_high_degree_are_finite():
    features = polynomial_features(np.array([-5.0, 5.0]), 100)
    assert features.shape == (2, 101)
    np.testing.assert_allclose(features.sum(1), np.exp([-5.0, 5.0]), rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: synthetic_linear(-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: synthetic_linear(0.5), TypeError, "seed must be an integer"),
        (lambda: synthetic_linear(0, n=0), ValueError, "n must be at least 1"),
        (lambda: synthetic_linear(0, noise=-1.0), ValueError, "0 or more, got -1"),
        (lambda: synthetic_linear(0, w=()), ValueError, "list of weights"),
        (lambda: synthetic_polynomial(0, coefficients=()), ValueError, "list of numbers"),
        (lambda: synthetic_polynomial(0, degree=-1), ValueError, "degree must be at least 0"),
        (lambda: synthetic_polynomial(0, degree=101), ValueError, "at most 100, got 101"),
        (lambda: synthetic_polynomial(0, noise=np.inf), ValueError, "standard deviation"),
    ],
)
def test_synthetic_data_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Digits


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_digits_shape_range_and_border(digits):
    assert digits.inputs.shape == (1797, 28, 28, 1)
    assert digits.inputs.min() == 0
    assert digits.inputs.max() == 1
    assert digits.classes == tuple("0123456789")
    np.testing.assert_array_equal(np.bincount(digits.targets).sum(), 1797)
    border = digits.inputs.copy()
    border[:, 4:24, 4:24] = 0
    assert border.max() == 0


def test_enlarging_is_the_cubic_of_jax_away_from_the_edges(digits):
    """At the edge ours goes on with the edge pixel and `jax.image` renormalises."""
    from sklearn.datasets import load_digits as bundled

    small = (bundled().images[:50] / 16.0).astype(np.float32)
    theirs = jax.image.resize(small, (50, 20, 20), "cubic")[:, 4:16, 4:16]
    ours = digits.inputs[:50, 8:20, 8:20, 0]
    np.testing.assert_allclose(ours, np.clip(theirs, 0, 1), atol=1e-5)


def test_enlarging_keeps_what_the_images_show(digits):
    from sklearn.datasets import load_digits as bundled

    big = digits.inputs[:, 4:24, 4:24, 0].repeat(2, 1).repeat(2, 2)  # 40 = 8 * 5
    back = big.reshape(-1, 8, 5, 8, 5).mean((2, 4))
    correlation = np.corrcoef(back.reshape(-1), bundled().images.reshape(-1))[0, 1]
    assert correlation > 0.97


@pytest.mark.parametrize("size", [8, 9, 32])
def test_digits_of_other_sizes(size):
    data = load_digits(size)
    assert data.inputs.shape == (1797, size, size, 1)
    if size == 8:
        from sklearn.datasets import load_digits as bundled

        np.testing.assert_allclose(data.inputs[..., 0], bundled().images / 16.0, atol=1e-6)


def test_digits_refuse_a_small_size():
    with pytest.raises(ValueError, match="size must be at least 8, got 7"):
        load_digits(7)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxd2l\[examples\]'"):
        load_digits()


def test_a_centroid_classifier_works_on_digits(digits):
    train, test = train_test_split(digits)
    centres = np.stack([flatten(train.inputs)[train.targets == c].mean(0) for c in range(10)])
    distance = ((flatten(test.inputs)[:, None] - centres[None]) ** 2).sum(-1)
    assert (distance.argmin(1) == test.targets).mean() > 0.85
