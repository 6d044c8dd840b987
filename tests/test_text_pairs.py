"""Byte pairs, against learning and applying them the slow and obvious way."""

import itertools
import json
import random
import re
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxd2l.data import text
from jaxd2l.data.text import BytePairs, pairs

CORPUS = "it was the best of times, it was the worst of times; the the the  end\n\n0123 0123"


def replaced(symbols, pair, new):
    """`symbols` with `new` for every `pair`, from left to right."""
    result, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            result.append(new)
            i += 2
        else:
            result.append(symbols[i])
            i += 1
    return result


def learnt_slowly(pieces, merges):
    """All pairs counted anew before every merge."""
    pieces, learnt = [list(piece.encode()) for piece in pieces], []
    for k in range(merges):
        counts = Counter(pair for piece in pieces for pair in itertools.pairwise(piece))
        if not counts or max(counts.values()) < 2:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        learnt.append(best)
        pieces = [replaced(piece, best, 256 + k) for piece in pieces]
    return tuple(learnt)


def applied_slowly(piece, merges):
    """All merges one after the other, over the whole piece."""
    symbols = list(piece.encode())
    for k, pair in enumerate(merges):
        symbols = replaced(symbols, tuple(pair), 256 + k)
    return symbols


few_words = st.lists(st.text("aabc", min_size=1, max_size=12), min_size=1, max_size=12)


@given(few_words, st.integers(0, 25))
def test_the_merges_are_those_of_counting_anew(words, merges):
    pieces = [words[0], *(" " + word for word in words[1:])]
    assert BytePairs.train(" ".join(words), merges).merges == learnt_slowly(pieces, merges)


@given(few_words, few_words)
def test_encoding_is_applying_the_merges_in_order(words, others):
    learnt = BytePairs.train(" ".join(words), 20)
    pieces = [others[0], *(" " + word for word in others[1:])]
    wanted = [1 + s for piece in pieces for s in applied_slowly(piece, learnt.merges)]
    assert learnt.encode(" ".join(others)).tolist() == wanted


def test_a_larger_corpus_against_counting_anew():
    words = text.words(text.normalize(text.english()[:6000]))
    pieces = [words[0], *(" " + word for word in words[1:])]
    learnt = BytePairs.train(" ".join(words), 60)
    assert learnt.merges == learnt_slowly(pieces, 60)
    assert len(learnt.merges) == 60


@pytest.mark.smoke
def test_a_small_corpus_by_hand():
    learnt = BytePairs.train("aaab aaab", 10)
    a, b, space = ord("a"), ord("b"), ord(" ")
    # (a, a) comes 4 times; then aa+a, with lower numbers than (space, aa), comes twice, ...
    assert learnt.merges == ((a, a), (a, b), (256, 257))
    assert learnt.pieces == (b"<unk>", *(bytes([i]) for i in range(256)), b"aa", b"ab", b"aaab")
    assert learnt.encode("aaab aaab").tolist() == [259, 1 + space, 259]
    assert learnt.encode("ba").tolist() == [1 + b, 1 + a]
    assert len(learnt) == 260
    assert repr(learnt) == "BytePairs(260 tokens)"


@given(st.text(st.sampled_from(" \n\t_a1.é漢\U0001f600\u0301\u2028\0"), max_size=40))
def test_any_text_comes_back_and_no_merge_leaves_its_word(given):
    assert "".join(m[0] for m in pairs._PIECE.finditer(given)) == given
    learnt = BytePairs.train(CORPUS + given, 50)
    assert learnt.decode(learnt.encode(given)) == given
    for piece in learnt.pieces[257:]:
        shown = piece.decode("utf-8", "replace")
        assert re.fullmatch(r" ?[^\W\d_]+| ?\d+| ?[^\w\s]+| ?[^\s\w]*_.*|\s+| ?\W*�\W*.*", shown)
    assert BytePairs.from_json(json.loads(json.dumps(learnt.to_json()))) == learnt


def test_every_index_can_be_decoded_alone():
    learnt = BytePairs.train(CORPUS, 40, reserved=("<pad>", "<bos>"))
    assert learnt.pieces[:3] == (b"<unk>", b"<pad>", b"<bos>")
    assert learnt.index("<bos>") == 2
    assert len(learnt) == 3 + 256 + len(learnt.merges)
    for i, piece in enumerate(learnt.pieces):
        assert learnt.decode([i]) == piece.decode("utf-8", "replace")
    assert learnt.decode(np.array([3 + 0xE9])) == "\ufffd"
    assert learnt.decode([3 + 0xC3, 3 + 0xA9]) == "é"
    with pytest.raises(ValueError, match="'the' is none of its special tokens"):
        learnt.index("the")
    with pytest.raises(ValueError, match="index -1 at position 0 is outside"):
        learnt.decode([-1])


def test_merges_make_english_shorter_and_stay_the_same():
    corpus = text.english()[:50_000]
    few, many = BytePairs.train(corpus, 50), BytePairs.train(corpus, 200)
    assert many.merges[:50] == few.merges
    assert len(many.encode(corpus)) < len(few.encode(corpus)) < len(corpus)
    assert len(many.encode(corpus)) < 0.5 * len(corpus)
    assert b" the" in many.pieces


def test_no_token_grows_without_bound():
    learnt = BytePairs.train("a" * 3000, 100)
    assert [len(piece) for piece in learnt.pieces[257:]][:8] == [2, 4, 8, 16, 32, 64, 128, 256]
    assert max(len(piece) for piece in learnt.pieces) == 256
    assert learnt.decode(learnt.encode("a" * 3001)) == "a" * 3001
    bomb = [(97, 97)] + [(256 + k, 256 + k) for k in range(40)]
    with pytest.raises(ValueError, match="merge 8 makes a token of over 256 bytes"):
        BytePairs(tuple(bomb))


def test_one_enormous_word_takes_time_in_proportion():
    """Learning and encoding rescan nothing: 8 times the text is 8 times the work, not 64 times."""

    def seconds(length):
        letters = "".join(random.Random(0).choices("acgt", k=length))
        began = time.process_time()
        learnt = BytePairs.train(letters, 200)
        assert learnt.decode(learnt.encode(letters)) == letters
        return time.process_time() - began

    small = min(seconds(5_000) for _ in range(3))
    assert seconds(40_000) < 24 * small


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: BytePairs.train("a", -1), "merges must be at least 0"),
        (lambda: BytePairs.train("", 1), "the text is empty"),
        (lambda: BytePairs(((1, 256),)), r"merge 0 must be two of \[0, 256\), got \(1, 256\)"),
        (lambda: BytePairs(((1, -1),)), "merge 0 must be two of"),
        (lambda: BytePairs(((1, 2, 3),)), "merge 0 must be two of"),
        (lambda: BytePairs(((1, True),)), "merge 0 must be two of"),
        (lambda: BytePairs(((1, 2), (1, 2))), "the same pair is merged twice"),
        (lambda: BytePairs((), ("<pad>", "<pad>")), "reserved must differ"),
    ],
)
def test_byte_pairs_that_cannot_be(make, told):
    with pytest.raises(ValueError, match=told):
        make()
