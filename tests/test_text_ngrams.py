"""Counts of n-grams and the language models made of them, against counting by hand."""

import collections
import fractions
import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxd2l.data.text.ngrams import NGramModel, most_ngrams, ngram_counts, table_sizes
from jaxd2l.data.text.smoothing import AddK, MaximumLikelihood, Smoothing, WithShorter, WithUnigram

SIZE = 4
STRENGTHS = (0.5, 2.0, 1.25, 3.0)
SMOOTHINGS = [MaximumLikelihood(), AddK(0.25), WithUnigram(STRENGTHS), WithShorter(STRENGTHS)]
texts = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=25)


def brute_force(text, order, smoothing):
    """P(w | context) in exact fractions, straight from the definitions."""

    def count(gram):
        n = len(gram)
        return sum(tuple(text[i : i + n]) == gram for i in range(len(text) - n + 1))

    def probability(context, token):
        counts = [count((*context, w)) for w in range(SIZE)]
        found, total = counts[token], sum(counts)
        if isinstance(smoothing, MaximumLikelihood):
            return fractions.Fraction(found, total) if total else fractions.Fraction(0)
        if isinstance(smoothing, AddK):
            k = fractions.Fraction(smoothing.k)
            return (found + k) / (total + SIZE * k)
        e = fractions.Fraction(STRENGTHS[len(context)])
        if not context:
            base = fractions.Fraction(1, SIZE)
        else:
            base = probability((() if isinstance(smoothing, WithUnigram) else context[1:]), token)
        return (found + e * base) / (total + e)

    def cut(context, token):
        return probability(tuple(context[max(len(context) - order + 1, 0) :]), token)

    return cut


# Counts


@given(texts, st.integers(1, 5))
def test_counts_equal_a_counter(text, n):
    grams, counts = ngram_counts(text, n)
    found = {tuple(g): c for g, c in zip(grams.tolist(), counts.tolist(), strict=True)}
    windows = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    assert found == collections.Counter(windows)
    assert grams.tolist() == sorted(grams.tolist())
    assert grams.shape == (len(found), n)


def test_counts_of_large_tokens_do_not_overflow():
    big = 2**31 - 1  # to the fourth power it would not fit into 64 bits
    grams, counts = ngram_counts(np.array([big, 0, big, 0, big, 0], np.int64), 4)
    assert grams.tolist() == [[0, big, 0, big], [big, 0, big, 0]]
    assert counts.tolist() == [1, 2]
    assert ngram_counts(np.array([255, 255, 255], np.uint8), 2).counts.tolist() == [2]


def test_f40_ca12_c155_tables_grow_with_the_power_counts_with_the_text():
    assert table_sizes(10**5) == (10**5, 10**10, 10**15, 10**20)
    assert sum(table_sizes(10**5)) == 100_001_000_010_000_100_000
    assert [sum(table_sizes(10, n)) for n in (1, 2, 3)] == [10, 110, 1110]  # times V for each n
    assert most_ngrams(10**5) == 4 * 10**5 - 6 == 399_994
    assert [most_ngrams(n) for n in (0, 1, 2, 3, 4)] == [0, 1, 3, 6, 10]
    # Reached by a text whose tokens all differ, and never passed by another.
    for text in (np.arange(1000), np.random.RandomState(0).randint(0, 30, 1000)):
        found = sum(len(ngram_counts(text, n).counts) for n in (1, 2, 3, 4))
        assert found <= most_ngrams(1000) == 3994
        assert (found == 3994) == (text[-1] == 999)


# Probabilities


@pytest.mark.smoke
@settings(max_examples=12)
@given(texts, st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=8), st.integers(1, 4))
def test_probabilities_equal_exact_fractions(text, other, order):
    for smoothing in SMOOTHINGS:
        model = NGramModel.fit(text, order, vocabulary=SIZE, smoothing=smoothing)
        exact = brute_force(text, order, smoothing)
        wanted = [float(exact(other[:i], token)) for i, token in enumerate(other)]
        with np.errstate(divide="ignore"):
            logs = np.log(wanted)
        np.testing.assert_allclose(model.log_probabilities(other), logs, rtol=1e-12, atol=1e-12)
        for context in (other[:-1], other, []):
            found = model.distribution(context)
            wanted = [float(exact(context, token)) for token in range(SIZE)]
            np.testing.assert_allclose(found, wanted, rtol=1e-12)
            for token in range(SIZE):
                assert model.probability(context, token) == pytest.approx(wanted[token], rel=1e-12)


def test_the_book_s_smoothing_by_hand():
    """D2L 9.3.1 with its three epsilons, on "a b a b c": n = 5, m = 4."""
    text, e = [0, 1, 0, 1, 2], (2.0, 3.0, 5.0, 7.0)
    model = NGramModel.fit(text, 3, vocabulary=4, smoothing=WithUnigram(e))
    p0 = (2 + 2 / 4) / (5 + 2)
    p2, p3 = (1 + 2 / 4) / (5 + 2), (0 + 2 / 4) / (5 + 2)
    assert model.probability([], 0) == pytest.approx(p0)
    assert model.probability([0], 2) == pytest.approx((0 + 3 * p2) / (2 + 3))
    assert model.probability([0, 1], 2) == pytest.approx((1 + 5 * p2) / (2 + 5))
    assert model.probability([3, 3], 3) == pytest.approx(p3)  # never came: the single token's
    # Interpolation differs from the third token on only.
    other = model.with_smoothing(WithShorter(e))
    np.testing.assert_allclose(other.distribution([1]), model.distribution([1]))
    between = (1 + 3 * p2) / (2 + 3)  # P(c | b)
    assert other.probability([0, 1], 2) == pytest.approx((1 + 5 * between) / (2 + 5))


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_c157_the_chain_rule_gives_a_joint_distribution(smoothing):
    text = np.random.RandomState(1).randint(0, 3, 60)
    for order in (1, 2, 3, 4):
        model = NGramModel.fit(text, order, vocabulary=3, smoothing=smoothing)
        every = np.array(list(itertools.product(range(3), repeat=5)))
        logs = model.log_probabilities(every)
        assert np.exp(logs.sum(1)).sum() == pytest.approx(1, rel=1e-12)
        steps = [model.probability(text[:i], text[i]) for i in range(5)]
        assert model.log_probability(text[:5]) == pytest.approx(math.log(math.prod(steps)))


def test_c157_the_product_of_conditional_frequencies_is_the_joint_frequency():
    """A toy corpus of sentences: P(w1) P(w2 | w1) P(w3 | w1, w2) P(w4 | w1, w2, w3)."""
    draw = np.random.RandomState(0)
    sentences = [tuple(row) for row in draw.randint(0, 3, (40, 4)).tolist()]
    prefixes = [collections.Counter(s[:n] for s in sentences) for n in range(5)]
    for sentence, count in prefixes[4].items():
        product = fractions.Fraction(1)
        for n in range(4):
            product *= fractions.Fraction(
                prefixes[n + 1][sentence[: n + 1]], prefixes[n][sentence[:n]]
            )
        assert product == fractions.Fraction(count, 40)
    # On a ring every gram is followed, and the model's P(w4 | w1, w2, w3) goes with the rest.
    ring = draw.randint(0, 3, 50)
    closed = np.concatenate([ring, ring[:3]])
    model = NGramModel.fit(closed, 4, vocabulary=3, smoothing=MaximumLikelihood())
    triples = ngram_counts(closed[:-1], 3)
    frequency = dict(zip(map(tuple, triples.grams.tolist()), triples.counts / 50, strict=True))
    for gram, count in zip(*ngram_counts(closed, 4), strict=True):
        joint = frequency[tuple(gram[:3].tolist())] * model.probability(gram[:3], gram[3])
        assert joint == pytest.approx(count / 50)


# Perplexity


def test_c154_perplexity_is_1_if_all_is_foreseen_and_v_if_nothing_is():
    constant = [3] * 20
    model = NGramModel.fit(constant, 2, vocabulary=5, smoothing=MaximumLikelihood())
    assert model.perplexity(constant) == 1
    cycle = [0, 1, 2, 3, 4] * 8
    model = NGramModel.fit(cycle, 2, vocabulary=5, smoothing=MaximumLikelihood())
    assert np.exp(-model.log_probabilities(cycle)[1:].mean()) == 1
    assert model.perplexity(cycle) == pytest.approx(5 ** (1 / 40))  # the first alone costs
    uniform = model.with_smoothing(AddK(1e12))
    assert uniform.perplexity([4, 4, 0, 2]) == pytest.approx(5)
    alone = NGramModel.fit(cycle, 1, vocabulary=5, smoothing=MaximumLikelihood())
    assert alone.perplexity([3, 3, 1]) == pytest.approx(5)
    assert model.perplexity([1, 0]) == math.inf  # 0 never came after 1
    assert model.log_probability([1, 0]) == -math.inf
    assert model.probability([0], 2) == 0


def test_longer_contexts_fit_better_and_then_too_well():
    """Text of a known source: the perplexity of order 2 comes down to exp(its entropy rate)."""
    rng = np.random.default_rng(0)
    p = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1]])
    text = [0]
    for _ in range(12_000):
        text.append(int(rng.choice(3, p=p[text[-1]])))
    stationary = np.linalg.matrix_power(p, 100)[0]
    floor = float(np.exp(-(stationary[:, None] * p * np.log(p)).sum()))
    train, test = text[:8000], text[8000:]
    found = [NGramModel.fit(train, n, vocabulary=3).perplexity(test) for n in (1, 2, 3, 4)]
    assert found[0] > 1.2 * floor
    assert found[1:] == pytest.approx([floor] * 3, rel=0.02)
    few = [
        NGramModel.fit(text[:60], n, vocabulary=3, smoothing=MaximumLikelihood())
        for n in (1, 2, 3, 4)
    ]
    values = [model.perplexity(text[:60]) for model in few]
    assert values == sorted(values, reverse=True)
    assert few[3].perplexity(test) == math.inf


def test_rows_are_texts_of_their_own():
    text = np.random.RandomState(2).randint(0, SIZE, 40)
    model = NGramModel.fit(text, 3, vocabulary=SIZE)
    rows = text[:30].reshape(2, 3, 5)
    found = model.log_probabilities(rows)
    assert found.shape == rows.shape
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(found[index], model.log_probabilities(rows[index]))
    assert model.log_probabilities([]).shape == (0,)
    assert model.log_probabilities(np.zeros((4, 0), int)).shape == (4, 0)
    assert model.log_probability([]) == 0


def test_a_text_shorter_than_the_order():
    model = NGramModel.fit([1], 4, vocabulary=2, smoothing=MaximumLikelihood())
    assert model.log_probabilities([1, 1]).tolist() == [0, -math.inf]
    smooth = model.with_smoothing(WithShorter())
    assert smooth.probability([1, 1, 1], 1) == pytest.approx(0.75)  # all falls to (1 + 1/2) / 2


# Generation


def test_generation_draws_from_the_model():
    text = [0, 1, 2, 0, 1, 0, 2, 1, 0, 0, 1]
    model = NGramModel.fit(text, 2, vocabulary=3, smoothing=AddK(0.5))
    drawn = model.generate([0], 20_000, np.random.default_rng(0))
    assert drawn.shape == (20_000,)
    np.testing.assert_array_equal(drawn[:50], model.generate([0], 50, np.random.default_rng(0)))
    pairs = ngram_counts(drawn, 2)
    table = np.zeros((3, 3))
    table[tuple(pairs.grams.T)] = pairs.counts
    wanted = np.stack([model.distribution([i]) for i in range(3)])
    np.testing.assert_allclose(table / table.sum(1, keepdims=True), wanted, atol=0.02)
    assert model.generate([], 0, np.random.default_rng(0)).tolist() == []


def test_generation_by_maximum_likelihood_repeats_the_text_and_tells_of_its_end():
    text = [0, 1, 2, 3, 4]
    model = NGramModel.fit(text, 2, vocabulary=5, smoothing=MaximumLikelihood())
    rng = np.random.default_rng(0)
    assert model.generate([0], 4, rng).tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"nothing ever came after \[4\]"):
        model.generate([0], 5, rng)


# Speed, errors


def test_a_book_is_counted_at_once():
    rng = np.random.RandomState(0)
    for length, size in ((170_000, 28), (32_000, 4_500)):
        text = (size * rng.rand(length) ** 3).astype(np.int32)
        began = time.process_time()
        model = NGramModel.fit(text, 4, vocabulary=size)
        assert model.perplexity(text) > 1
        assert time.process_time() - began < 2  # 0.03 to 0.1 s on a quiet machine


def test_models_cannot_be_changed():
    model = NGramModel.fit([0, 1, 1], 2, vocabulary=2)
    with pytest.raises(AttributeError):
        model.order = 3
    with pytest.raises(ValueError, match="read-only"):
        model._levels[1].counts[0] = 7
    assert repr(model) == "NGramModel(order=2, vocabulary=2, smoothing=WithShorter())"
    assert model.with_smoothing(AddK()).order == 2
    assert AddK(1) == AddK(1.0)
    assert hash(AddK(1)) == hash(AddK(1.0))


def test_the_base_class_asks_for_its_rule():
    model = NGramModel.fit([0, 1], 1, vocabulary=2, smoothing=Smoothing())
    with pytest.raises(NotImplementedError, match="Smoothing must define estimate"):
        model.perplexity([0])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: NGramModel.fit([], 2, vocabulary=3), ValueError, "no tokens to count"),
        (
            lambda m: NGramModel.fit([0], 5, vocabulary=3),
            ValueError,
            "order must be in 1..4, got 5",
        ),
        (lambda m: NGramModel.fit([0], 0, vocabulary=3), ValueError, "order must be at least 1"),
        (lambda m: NGramModel.fit([3], 2, vocabulary=3), ValueError, r"index 3 .* \[0, 3\)"),
        (lambda m: NGramModel.fit([0.5], 2, vocabulary=3), TypeError, "must be integers"),
        (
            lambda m: NGramModel.fit([0], 2, vocabulary=3, smoothing=AddK),
            TypeError,
            "smoothing must be a Smoothing such as AddK",
        ),
        (lambda m: m.perplexity([]), ValueError, "there are no tokens"),
        (lambda m: m.perplexity([0, 9]), ValueError, "index 9 at position 1"),
        (lambda m: m.perplexity("ab"), TypeError, "must be integers"),
        (lambda m: m.log_probabilities(1), TypeError, r"must be \(..., length\), got \(\)"),
        (lambda m: m.probability([0], 3), ValueError, "index 3"),
        (lambda m: m.probability([-1], 0), ValueError, "index -1"),
        (lambda m: m.distribution([0.0]), TypeError, "must be integers"),
        (lambda m: m.generate([0], -1, np.random.default_rng()), ValueError, "at least 0"),
        (lambda m: m.generate([0], 1, 0), TypeError, "must be a numpy.random.Generator, got int"),
        (lambda m: ngram_counts([0, -1], 2), ValueError, "index -1"),
        (lambda m: ngram_counts([0], 0), ValueError, "n must be at least 1"),
        (lambda m: AddK(0), ValueError, "AddK: k must be above 0 and finite, got 0"),
        (lambda m: AddK("1"), TypeError, "k must be a number, got str"),
        (lambda m: WithShorter((1.0, 2.0)), ValueError, "must be four numbers"),
        (lambda m: WithUnigram((1, 1, 1, math.inf)), ValueError, "WithUnigram: strengths"),
        (lambda m: table_sizes(0), ValueError, "vocabulary must be at least 1"),
        (lambda m: most_ngrams(-1), ValueError, "length must be at least 0"),
    ],
)
def test_mistakes_are_told(call, error, words):
    with pytest.raises(error, match=words):
        call(NGramModel.fit([0, 1, 2, 0], 2, vocabulary=3))
