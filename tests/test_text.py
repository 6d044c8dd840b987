"""Text: files, the default corpus, tokens, vocabularies and codecs."""

import json
import string
import sys
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxd2l.data
from jaxd2l import checkpoint, records
from jaxd2l.data import text
from jaxd2l.data.text import BytePairs, Codec, Vocab

# Has every letter in both cases, digits, marks, accents and white space of several kinds.
EXTRACT = """The quick Brown Fox jumps over 13 lazy dogs -- so it is said -- [1898]!

\tPack my box with five dozen liquor jugs; 'Sphinx of black quartz', he wrote,
"judge my vow". A café, a naïve QUIZ, and ZEPHYRS that vexed Jack FROM KYOTO.
"""


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "a.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


# Corpus


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"a\r\nb\rc\n\r\n", "a\nb\nc\n\n"),
        (b"\xef\xbb\xbfa", "a"),
        ("é漢\U0001f600\u2028\ufeff.", "é漢\U0001f600\u2028\ufeff."),
        (b" ", " "),
    ],
)
def test_a_file_is_read_as_text(write, content, wanted):
    assert text.read_text(write(content)) == wanted
    assert text.read_text(str(write(content))) == wanted


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"a\.txt: the file is empty; name a file with text in it"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"ab\ncd\xff!", r"a\.txt, byte 5 \(line 2\) is not UTF-8 text: invalid start byte; save"),
        (b"caf\xe9", r"byte 3 \(line 1\) is not UTF-8 text: unexpected end of data"),
        (b"\xef\xbb\xbf\n\n\xe9a", r"byte 5 \(line 3\) is not UTF-8"),
        (b"\xed\xa0\x80", r"byte 0 \(line 1\) is not UTF-8"),  # a surrogate
        ("a\nb".encode("utf-16"), r"byte 0 \(line 1\) is not UTF-8"),
        (b"ab\n\0", r"byte 3 \(line 2\) is NUL; this is not a text file"),
        (b"x" * 101, "more than the limit of 100 bytes; if that is right, raise max_bytes"),
    ],
)
def test_what_is_no_text_file_is_refused(write, content, told):
    with pytest.raises(ValueError, match=told):
        text.read_text(write(content), max_bytes=100)


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="this is a folder; name one text file"):
        text.read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        text.read_text(tmp_path / "none.txt")


@pytest.mark.smoke
def test_the_default_corpus_is_long_english_and_always_the_same():
    corpus = text.english()
    assert len(corpus) > 300_000
    topics = sys.modules["pydoc_data.topics"].topics
    assert corpus.startswith(topics[min(topics)])
    assert corpus.endswith(topics[max(topics)])
    assert len(corpus) == sum(len(topic) + 1 for topic in topics.values()) - 1
    common = [word for word, _ in Counter(text.words(text.normalize(corpus))).most_common(12)]
    assert {"the", "a", "is", "to", "of", "and"} <= set(common)
    codec = Codec.train(corpus, normalize=True)
    assert codec.size == 28


def test_without_the_default_corpus_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ImportError, match=r"without pydoc_data.*name a text file instead"):
        text.english()


# Normalisation and tokens


@pytest.mark.smoke
def test_the_vocabulary_of_the_book_has_28_tokens():
    codec = Codec.train(EXTRACT, "character", normalize=True)
    assert codec.size == 28
    assert codec.vocab.tokens[0] == "<unk>"
    assert set(codec.vocab.tokens[1:]) == {*string.ascii_lowercase, " "}
    assert codec.vocab.tokens[1] == " "  # the most frequent
    assert sum(codec.vocab.counts) == len(text.normalize(EXTRACT))
    assert codec.vocab.counts[0] == 0
    ids = codec.encode("time traveller")
    assert ids.shape == (14,)
    assert ids.all()
    assert codec.decode(ids) == "time traveller"


@given(st.text())
def test_normalize_leaves_letters_and_single_spaces(given):
    found = text.normalize(given)
    assert set(found) <= {*string.ascii_lowercase, " "}
    assert "  " not in found
    assert text.normalize(found) == found
    letters = [c.lower() for c in given if c in string.ascii_letters]
    assert list(found.replace(" ", "")) == letters
    assert text.words(found) == found.split()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("", []),
        (" \n\t", []),
        (
            "don't 'quote' rock 'n' roll",
            ["don't", "'", "quote", "'", "rock", "'", "n", "'", "roll"],
        ),
        ("l’été, l’hiver…", ["l’été", ",", "l’hiver", "…"]),
        ("«Да!» — 42.5%", ["«", "Да", "!", "»", "—", "42", ".", "5", "%"]),
        ("नमस्ते cafe\u0301", ["नमस्ते", "cafe\u0301"]),  # marks that combine stay
        ("¿qué? e-mail_x", ["¿", "qué", "?", "e", "-", "mail", "_", "x"]),
    ],
)
def test_words(given, wanted):
    assert text.words(given) == wanted


@given(st.text())
def test_words_lose_nothing_but_white_space_and_are_words_again(given):
    found = text.words(given)
    assert "".join(found) == "".join(given.split())
    assert text.words(" ".join(found)) == found


@pytest.mark.parametrize(
    "use",
    [
        text.normalize,
        text.characters,
        text.words,
        Codec.train,
        lambda t: Codec.train("a").encode(t),
        lambda t: BytePairs(()).encode(t),
        lambda t: BytePairs.train(t, 1),
    ],
)
def test_half_characters_and_what_is_no_text_are_refused(use):
    with pytest.raises(ValueError, match=r"lone surrogate, U\+DC80, at character 2; read"):
        use("ab\udc80")
    with pytest.raises(TypeError, match="must be a str, got bytes"):
        use(b"ab")


# Vocabularies


def test_a_vocabulary_is_in_the_order_of_the_counts():
    tokens = ["b", "b", "a", "c", "c", "c", "<unk>", "d", "<pad>", "<pad>", "e"]
    vocab = Vocab.build(tokens, min_count=2, reserved=("<bos>", "<pad>"))
    assert vocab.tokens == ("<unk>", "<bos>", "<pad>", "c", "b")
    assert vocab.counts == (4, 0, 2, 3, 2)  # unknown: <unk>, a, d, e
    assert len(vocab) == 5
    assert "c" in vocab
    assert "a" not in vocab
    assert vocab.index("<pad>") == 2
    assert vocab.encode(["c", "a", "<bos>", "zebra"]).tolist() == [3, 0, 1, 0]
    assert repr(vocab) == "Vocab(5 tokens)"


@given(st.lists(st.text(min_size=1, max_size=2)), st.integers(1, 3))
def test_a_vocabulary_is_a_value_and_counts_every_token(tokens, least):
    tokens = [*tokens, "a"]
    vocab = Vocab.build(tokens, least)
    again = Vocab.build(reversed(tokens), least)
    assert vocab == again
    assert hash(vocab) == hash(again)
    assert Vocab.build([*tokens, "one more"]) != vocab
    assert sum(vocab.counts) == len(tokens)
    for token, count in list(zip(vocab.tokens, vocab.counts, strict=True))[1:]:
        assert tokens.count(token) == count >= least
    ids = vocab.encode(tokens)
    assert ids.dtype == np.int32
    assert np.count_nonzero(ids == 0) == vocab.counts[0]
    assert vocab.decode(ids) == [t if t in vocab else "<unk>" for t in tokens]
    assert Vocab.from_json(json.loads(json.dumps(vocab.to_json()))) == vocab


def test_indices_outside_and_of_other_types_are_refused():
    vocab = Vocab.build("ab")
    assert vocab.decode([]) == []
    assert vocab.decode(jnp.array([1, 2])) == ["a", "b"]
    for bad in (3, -1):
        with pytest.raises(ValueError, match=rf"index {bad} at position 1 is outside \[0, 3\)"):
            vocab.decode([0, bad])
    with pytest.raises(ValueError, match="outside"):
        vocab.decode(np.array([2**64 - 1], np.uint64))
    for wrong in ([0.0], [[0]], 0, [True], ["a"]):
        with pytest.raises(TypeError, match=r"Vocab.decode: indices must be integers of shape"):
            vocab.decode(wrong)
    with pytest.raises(ValueError, match="'z' is none of its 3 tokens"):
        vocab.index("z")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Vocab.build([]), "there are no tokens"),
        (lambda: Vocab.build("a", min_count=0), "min_count must be at least 1"),
        (lambda: Vocab.build("a", reserved=("x", "x")), "reserved must differ"),
        (lambda: Vocab.build("a", reserved=("<unk>",)), "from '<unk>'"),
        (lambda: Vocab.build("a", reserved="<pad>"), "must be a tuple of names"),
        (lambda: Vocab((), ()), "the first token must be '<unk>'"),
        (lambda: Vocab(("a",), (1,)), "the first token must be '<unk>'"),
        (lambda: Vocab(("<unk>", "a", "a"), (0, 1, 1)), "'a' comes twice"),
        (lambda: Vocab(("<unk>", "a"), (0,)), "1 counts for 2 tokens"),
        (lambda: Vocab(("<unk>", "a"), (0, -1)), "counts must be at least 0"),
        (lambda: Vocab(("<unk>", ""), (0, 1)), "strings that are not empty"),
    ],
)
def test_vocabularies_that_cannot_be(make, told):
    with pytest.raises((ValueError, TypeError), match=told):
        make()


# Codecs

CODECS = {
    "character": Codec.train(EXTRACT),
    "word": Codec.train(EXTRACT, "word", min_count=2, reserved=("<pad>",)),
    "bpe": Codec.train(EXTRACT, "bpe", merges=30, reserved=("<pad>",)),
    "book": Codec.train(EXTRACT, "character", normalize=True),
    "book words": Codec.train(EXTRACT, "word", normalize=True),
}


@given(st.text())
def test_round_trips_through_every_codec(given):
    own = Codec.train(given + "a")
    assert own.decode(own.encode(given)) == given
    assert CODECS["bpe"].decode(CODECS["bpe"].encode(given)) == given
    assert CODECS["book"].decode(CODECS["book"].encode(given)) == text.normalize(given)
    known = CODECS["character"].vocab
    shown = "".join(c if c in known else "<unk>" for c in given)
    assert CODECS["character"].decode(CODECS["character"].encode(given)) == shown
    words = Codec.train(given + " a", "word")
    assert words.decode(words.encode(given)) == " ".join(text.words(given))


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_is_a_value_that_a_checkpoint_can_hold(name, tmp_path):
    codec = CODECS[name]
    file = checkpoint.save(tmp_path / "a", {"x": np.zeros(1)}, meta={"codec": codec.to_json()})
    again = Codec.from_json(checkpoint.read_metadata(file)["codec"])
    assert again == codec
    assert hash(again) == hash(codec)
    assert records.load(records.dump(codec)) == codec
    ids = codec.encode(EXTRACT)
    assert ids.dtype == np.int32
    assert ids.min() >= 0
    assert ids.max() < codec.size
    np.testing.assert_array_equal(again.encode(EXTRACT), ids)
    assert codec.encode("").shape == (0,)
    assert codec.decode([]) == ""
    assert codec.decode([0]) == "<unk>"
    with pytest.raises(ValueError, match=rf"position 0 is outside \[0, {codec.size}\)"):
        codec.decode([codec.size])


def test_the_padding_of_a_codec_has_index_1_when_reserved_first():
    assert CODECS["word"].padding == CODECS["bpe"].padding == 1
    assert CODECS["bpe"].decode([1, 2 + ord("a")]) == "<pad>a"
    for name in ("character", "book words"):
        with pytest.raises(ValueError, match=r"no '<pad>'; train it with reserved=\('<pad>',\)"):
            _ = CODECS[name].padding
    bare = Codec("bpe", BytePairs(()))
    with pytest.raises(ValueError, match="no '<pad>'"):
        _ = bare.padding


def test_what_a_codec_is_called():
    shown = "Codec('character', Vocab(28 tokens), normalize=True)"
    assert repr(CODECS["book"]) == shown
    assert repr(CODECS["bpe"]).startswith("Codec('bpe', BytePairs(")
    assert jaxd2l.data.text is text


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Codec.train("a", "letters"), "level must be one of .*'bpe'.*, got 'letters'"),
        (lambda: Codec.train("a", "word", merges=3), "level 'word' has no merges; leave it out"),
        (lambda: Codec.train("a", "bpe", min_count=2), "level 'bpe' has no min_count"),
        (lambda: Codec.train(""), "there are no tokens"),
        (lambda: Codec.train("...", "word", normalize=True), "there are no tokens"),
        (lambda: Codec.train("", "bpe"), "the text is empty"),
        (lambda: Codec("bpe", Vocab.build("a")), "needs a vocabulary of type BytePairs, got Vocab"),
        (lambda: Codec("word", BytePairs(())), "needs a vocabulary of type Vocab"),
        (lambda: Codec("word", Vocab.build("a"), 1), "normalize must be a bool"),
        (lambda: Codec.from_json(Vocab.build("a").to_json()), "wanted a Codec, got Vocab"),
        (lambda: Codec.from_json({"type": "os.system"}), "unknown record type 'os.system'"),
        (lambda: Codec.from_json({"type": "Codec", "level": "word"}), "not a valid Codec"),
        (lambda: Codec.from_json([]), "wanted a Codec, got tuple"),
        (
            lambda: Vocab.from_json({"type": "Vocab", "tokens": ["<unk>", 1], "counts": [0, 1]}),
            "not a valid Vocab: Vocab: tokens must be strings",
        ),
    ],
)
def test_codecs_that_cannot_be(make, told):
    with pytest.raises((ValueError, TypeError), match=told):
        make()
