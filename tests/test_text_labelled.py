"""Files of labelled lines, and the padded arrays made of them."""

import numpy as np
import pytest

from jaxd2l.data.text import Codec, Example, labelled_dataset, read_labelled

LINES = "good\tA fine film.\n\n bad \t  No,\tno. \r\ngood\tfine fine\n"
EXAMPLES = [
    Example("good", "A fine film."),
    Example("bad", "No,\tno."),
    Example("good", "fine fine"),
]
CODEC = Codec.train("\n".join(e.text for e in EXAMPLES), "word", reserved=("<pad>",))


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "reviews.tsv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.smoke
def test_a_file_becomes_examples(write):
    assert read_labelled(write(LINES)) == EXAMPLES
    assert read_labelled(write("\ufeff" + LINES)) == EXAMPLES
    assert read_labelled(write("1\tx\u2028y\n0\tz")) == [
        Example("1", "x\u2028y"),
        Example("0", "z"),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("good\ta\nbad no tab\n", r"reviews.tsv, line 2: no tab; .*label<TAB>text, got 'bad no"),
        ("good\t \nbad\tb\n", "line 1: no text after the tab"),
        ("good\ta\n\n\tb\n", "line 3: no label before the tab"),
        ("good\ta\ngood\tb\n", "only the label 'good'; there must be at least two"),
        ("\n \n", "no examples; there must be at least two"),
        ("", "the file is empty"),
        (b"good\ta\nbad\t\xff\n", r"reviews.tsv, byte 11 \(line 2\) is not UTF-8"),
        (b"good\ta\nbad\t\0\n", r"byte 11 \(line 2\) is NUL"),
        ("x" * 1000, "more than the limit of 999 bytes"),
        ("y" * 999, "line 1: no tab; every line must be label<TAB>text, got 'y{40}'"),
    ],
)
def test_files_that_are_refused(write, content, told):
    with pytest.raises(ValueError, match=told):
        read_labelled(write(content), max_bytes=999)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="this is a folder"):
        read_labelled(tmp_path)


def test_texts_are_cut_and_filled_up():
    data = labelled_dataset(EXAMPLES, CODEC, 3)
    assert data.inputs.shape == (3, 3)
    assert data.inputs.dtype == data.targets.dtype == np.int32
    assert data.classes == ("bad", "good")
    assert data.targets.tolist() == [1, 0, 1]
    assert [CODEC.decode(row) for row in data.inputs] == [
        "A fine film",
        "No , no",
        "fine fine <pad>",
    ]
    assert data.inputs[2, 2] == 1


def test_classes_are_sorted():
    labels = [str(i) for i in (7, 3, 9, 1, 5, 8, 2)]
    data = labelled_dataset([Example(label, "film") for label in labels], CODEC, 1)
    assert data.classes == tuple("1235789")
    assert [data.classes[i] for i in data.targets] == labels


@pytest.mark.parametrize("level", ["character", "word", "bpe"])
def test_every_level_pads_with_the_same_index(level):
    codec = Codec.train(LINES, level, reserved=("<pad>",))
    data = labelled_dataset(EXAMPLES, codec, 50)
    for row, example in zip(data.inputs, EXAMPLES, strict=True):
        ids = codec.encode(example.text)
        assert row.tolist() == ids.tolist() + [1] * (50 - len(ids))


def test_test_data_have_the_classes_of_the_training_data():
    data = labelled_dataset([Example("good", "an unseen film")], CODEC, 3, ("bad", "good"))
    assert data.targets.tolist() == [1]
    assert data.classes == ("bad", "good")
    assert data.inputs[0].tolist() == [0, 0, CODEC.vocab.index("film")]
    with pytest.raises(ValueError, match=r"example 1 has the label 'odd', .* \('bad', 'good'\)"):
        labelled_dataset([EXAMPLES[0], Example("odd", "x")], CODEC, 3, ("bad", "good"))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: labelled_dataset([], CODEC, 3), "there are no examples"),
        (lambda: labelled_dataset(EXAMPLES, CODEC, 0), "length must be at least 1"),
        (lambda: labelled_dataset(EXAMPLES, Codec.train("a"), 3), "has no '<pad>'"),
        (
            lambda: labelled_dataset([EXAMPLES[0], Example("bad", " ")], CODEC, 3),
            r"example 1, ' ', has no tokens under Codec\('word'.*leave it out",
        ),
    ],
)
def test_data_that_cannot_be(make, told):
    with pytest.raises(ValueError, match=told):
        make()
