import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from sklearn import metrics as oracle

from jaxd2l.ops import losses, metrics


def test_accuracy_of_the_notes_example_and_with_a_mask(strict_promotion):
    logits = jnp.array([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5], [9.0, 0.0, 0.0]])
    labels = jnp.array([0, 2, 1])
    hits = jax.jit(metrics.correct)(logits, labels)
    assert hits.dtype == jnp.bool_
    np.testing.assert_array_equal(hits, [False, True, False])
    np.testing.assert_allclose(metrics.accuracy(logits, labels), 1 / 3, rtol=1e-6)
    assert jax.jit(metrics.accuracy)(logits, labels, jnp.array([True, True, False])) == 0.5
    assert metrics.accuracy(logits, labels, jnp.zeros(3, bool)) == 0
    assert metrics.accuracy(logits[:2], labels[:2]) == 0.5
    assert metrics.accuracy(logits.reshape(3, 1, 3), labels.reshape(3, 1)).shape == ()
    mapped = jax.vmap(metrics.correct)(logits, labels)
    np.testing.assert_array_equal(mapped, hits)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint32"])
def test_correct_takes_every_integer_dtype_and_more_classes_than_it_holds(dtype):
    logits = jnp.zeros((2, 600)).at[0, 5].set(1).at[1, 256 + 5].set(1)
    hits = metrics.correct(logits, jnp.array([5, 5], dtype))
    np.testing.assert_array_equal(hits, [True, False])


def test_the_first_of_equal_logits_counts():
    hits = metrics.correct(jnp.zeros((2, 3)), jnp.array([0, 1]))
    np.testing.assert_array_equal(hits, [True, False])


def test_perplexity_of_perfect_uniform_and_impossible_guesses():
    # F41: 1, the number of tokens, infinity.
    labels = jnp.array([0, 3, 27])
    perfect = 1000 * jax.nn.one_hot(labels, 28)
    assert metrics.perplexity(losses.softmax_cross_entropy(perfect, labels)) == 1
    uniform = losses.softmax_cross_entropy(jnp.zeros((3, 28)), labels)
    np.testing.assert_allclose(metrics.perplexity(uniform), 28, rtol=1e-5)
    wrong = losses.softmax_cross_entropy(perfect, (labels + 1) % 28)
    assert metrics.perplexity(wrong) == jnp.inf
    assert metrics.perplexity(jnp.array([0.0, jnp.inf])) == jnp.inf
    losses_of_tokens = jnp.array([[1.0, 2.0], [3.0, jnp.nan]])
    mask = jnp.array([[True, True], [True, False]])
    np.testing.assert_allclose(metrics.perplexity(losses_of_tokens, mask), math.exp(2), rtol=1e-6)


@pytest.fixture(scope="module")
def confusion():
    return jax.jit(metrics.confusion_matrix, static_argnums=2)


@hypothesis.given(st.integers(0, 999), st.integers(1, 4))
def test_confusion_and_per_class_metrics_equal_scikit_learn(confusion, seed, used):
    rng = np.random.RandomState(seed)
    labels, predictions = rng.randint(0, used, (2, 12))
    mask = rng.rand(12) < 0.8
    mask[0] = True
    counts = confusion(labels, predictions, 4, mask)
    kept = labels[mask], predictions[mask]
    expected = oracle.confusion_matrix(*kept, labels=range(4))
    np.testing.assert_array_equal(counts, expected)
    ours = metrics.per_class_metrics(np.asarray(counts))
    theirs = oracle.precision_recall_fscore_support(*kept, labels=range(4), zero_division=0)
    for a, b, name in zip(ours, theirs, ours._fields, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=name)


def test_confusion_matrices_add_up_and_skip_what_is_out_of_range(confusion, strict_promotion):
    labels, predictions = jnp.array([[0, -1, 2], [3, 1, 1]]), jnp.array([[1, 0, 2], [0, -1, 1]])
    counts = confusion(labels, predictions, 3)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, [[0, 1, 0], [0, 1, 0], [0, 0, 1]])
    halves = [metrics.confusion_matrix(a, b, 3) for a, b in zip(labels, predictions, strict=True)]
    np.testing.assert_array_equal(counts, halves[0] + halves[1])
    mapped = jax.vmap(lambda a, b: metrics.confusion_matrix(a, b, 3))(labels, predictions)
    np.testing.assert_array_equal(mapped, jnp.stack(halves))
    wide = metrics.confusion_matrix(jnp.array([200, 44], jnp.uint8), jnp.array([200, 300]), 400)
    assert wide[200, 200] == wide[44, 300] == 1
    assert wide.sum() == 2


def test_per_class_metrics_of_nothing_are_zero_not_nan(strict_promotion):
    values = jax.jit(metrics.per_class_metrics)(jnp.array([[2, 0, 0], [1, 0, 0], [0, 0, 0]]))
    np.testing.assert_allclose(values.precision, [2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(values.recall, [1, 0, 0])
    np.testing.assert_allclose(values.f1, [0.8, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(values.support, [2, 1, 0])


def test_gradient_norms_by_path_and_together(strict_promotion):
    grads = {
        "stage1": {"conv": {"kernel": jnp.full((3, 3, 2, 2), -0.5), "bias": jnp.zeros(2)}},
        "head": [{"kernel": jnp.full((4,), 3.0, jnp.bfloat16)}],
    }
    norms = jax.jit(metrics.gradient_norms)(grads)
    assert {k: float(v) for k, v in norms.items()} == {
        "head/0/kernel": 6.0,
        "stage1/conv/bias": 0.0,
        "stage1/conv/kernel": 3.0,
    }
    assert all(v.dtype == jnp.float32 for v in norms.values())
    total = metrics.global_norm(grads)
    np.testing.assert_allclose(total, math.sqrt(45), rtol=1e-6)
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose(total, optax.tree.norm(grads), rtol=1e-6)
    assert metrics.global_norm({}) == 0
    many = {str(i): jnp.ones(1000, jnp.bfloat16) for i in range(3)}
    np.testing.assert_allclose(metrics.global_norm(many), math.sqrt(3000), rtol=1e-6)
    large = {"w": jnp.full(4, 1e30)}
    np.testing.assert_allclose(metrics.gradient_norms(large)["w"], 2e30, rtol=1e-6)
    np.testing.assert_allclose(metrics.global_norm({"a": large, "b": large}), 2**1.5 * 1e30)


def test_gradient_norms_keep_double_precision(x64):
    norms = metrics.gradient_norms({"w": jnp.ones(2, jnp.float64)})
    assert norms["w"].dtype == jnp.float64
    mixed = {"a": jnp.ones(2, jnp.float64), "b": jnp.ones(2, jnp.float32)}
    np.testing.assert_allclose(metrics.global_norm(mixed), 2.0, rtol=1e-7)


def test_gradient_norms_show_vanishing_layer_by_layer():
    # ME7: a chain of sigmoids loses at least three quarters of the gradient at each layer.
    params = {f"layer{i}": {"kernel": jnp.ones((1, 1))} for i in range(6)}

    def loss(params):
        x = jnp.ones((1, 1))
        for i in range(6):
            x = jax.nn.sigmoid(x @ params[f"layer{i}"]["kernel"])
        return x.sum()

    norms = list(jax.jit(lambda p: metrics.gradient_norms(jax.grad(loss)(p)))(params).values())
    assert all(a < 0.4 * b for a, b in itertools.pairwise(norms))


def test_refusals():
    logits, labels = jnp.zeros((4, 3)), jnp.zeros(4, jnp.int32)
    with pytest.raises(
        ValueError,
        match=r"correct: labels must have the shape of logits .*\(4, 1\) for logits \(4, 3\)",
    ):
        metrics.accuracy(logits, labels[:, None])
    with pytest.raises(TypeError, match="correct: labels must be integers, got float32"):
        metrics.correct(logits, jnp.zeros(4))
    with pytest.raises(TypeError, match="correct: logits must be floating point, got int32"):
        metrics.correct(jnp.zeros((4, 3), jnp.int32), labels)
    with pytest.raises(ValueError, match="confusion_matrix: labels and predictions must have the"):
        metrics.confusion_matrix(labels, labels[:, None], 3)
    with pytest.raises(ValueError, match="confusion_matrix: labels and mask must have the same"):
        metrics.confusion_matrix(labels, labels, 3, jnp.ones(3, bool))
    with pytest.raises(TypeError, match="confusion_matrix: mask must be boolean, got int32"):
        metrics.confusion_matrix(labels, labels, 3, labels)
    with pytest.raises(TypeError, match="confusion_matrix: predictions must be integers"):
        metrics.confusion_matrix(labels, jnp.zeros(4), 3)
    with pytest.raises(ValueError, match="confusion_matrix: num_classes must be at least 1, got 0"):
        metrics.confusion_matrix(labels, labels, 0)
    with pytest.raises(ValueError, match=r"per_class_metrics: confusion must have shape \(c, c\)"):
        metrics.per_class_metrics(jnp.zeros((2, 3)))
    with pytest.raises(TypeError, match="gradient_norms: leaf 'a/0' must be floating point"):
        metrics.gradient_norms({"a": [jnp.array(1)]})
    with pytest.raises(ValueError, match="masked_mean: values and mask must have the"):
        metrics.perplexity(jnp.zeros(3), jnp.ones(2, bool))
