"""The command line on text: language models, generation, classifiers of labelled lines."""

import json
import math
import re

import numpy as np
import pytest

from jaxd2l import cli, text_recipes, train
from jaxd2l.data import text

SMALL = ("--set", "features=16", "--length", "16", "--epochs", "2")
WORDS = ("the cat sat on the mat and saw the dog ", "a dog ran to the house of the red cat ")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "book.txt"
    random = np.random.RandomState(0)
    path.write_text("".join(WORDS[i] for i in random.randint(0, 2, 150)))
    return path


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    command = ["train", "gru-lm", "--data", str(corpus), *SMALL, "--epochs", "20"]
    assert cli.main([*command, "--quiet", "--out", str(folder)]) == 0
    return folder


@pytest.mark.smoke
def test_a_language_model_learns_and_writes_its_codec(trained, corpus):
    net, _, _, meta = train.load(trained)
    codec = text.Codec.from_json(meta["codec"])
    assert codec.size == len(set(corpus.read_text())) + 1 == net.layers[-1].features
    assert codec.decode(codec.encode("The cat!")) == "the cat "
    history = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert math.exp(history[-1]["test_loss"]) < 2.0  # nearly all letters follow from the words
    assert history[-1]["test_loss"] < 0.3 * history[0]["test_loss"]


def test_train_names_the_perplexity(corpus, tmp_path, capsys):
    command = ["train", "rnn_lm", "--data", str(corpus), *SMALL, "--out", str(tmp_path / "r")]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    found = re.search(r"^test perplexity (\d+\.\d\d) a token$", out, re.MULTILINE)
    assert found
    records = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert float(found[1]) == round(math.exp(json.loads(records[-1])["test_loss"]), 2)
    assert (
        cli.main(["train", "rnn-lm", "--resume", "--out", str(tmp_path / "r"), "--epochs", "3"])
        == 0
    )
    assert len((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.smoke
def test_generate_goes_on_with_the_prompt(trained, capsys):
    command = ["generate", str(trained), "--prompt", "The cat ", "--length", "40"]
    assert cli.main([*command, "--temperature", "0"]) == 0
    greedy = capsys.readouterr().out
    assert greedy.startswith("the cat ")
    assert len(greedy) == 8 + 40 + 1
    assert set(greedy.split()[:-1]) <= set("".join(WORDS).split())  # it has learnt the words
    assert cli.main([*command, "--samples", "3", "--top-k", "1", "--seed", "5"]) == 0
    assert capsys.readouterr().out == 3 * greedy
    assert cli.main([*command, "--samples", "2", "--top-p", "0.9"]) == 0
    assert len(set(capsys.readouterr().out.splitlines())) == 2


def test_generate_tells_of_unknown_tokens_and_refuses_an_empty_prompt(trained, capsys):
    assert cli.main(["generate", str(trained), "--prompt", "xyz cat", "--length", "1"]) == 0
    assert "3 tokens of the prompt are unknown" in capsys.readouterr().err
    assert cli.main(["generate", str(trained), "--prompt", ""]) == 1
    assert "--prompt is empty" in capsys.readouterr().err


def test_evaluate_measures_perplexity_also_of_another_text(trained, tmp_path, capsys):
    assert cli.main(["evaluate", str(trained), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["perplexity"] == pytest.approx(math.exp(report["loss"]))
    assert report["perplexity"] < 2.0
    other = tmp_path / "other.txt"
    other.write_text("qqq zzz xxx jjj vvv kkk " * 40)
    assert cli.main(["evaluate", str(trained), "--data", str(other)]) == 0
    worse = re.search(r"perplexity ([\d.]+) a token", capsys.readouterr().out)
    assert float(worse[1]) > 10


@pytest.mark.parametrize("level", ["character", "word", "bpe"])
def test_every_level_trains_and_generates(corpus, level, tmp_path, capsys):
    command = ["train", "rnn-lm", "--data", str(corpus), "--level", level, *SMALL]
    assert cli.main([*command, "--epochs", "1", "--quiet", "--out", str(tmp_path)]) == 0
    assert cli.main(["generate", str(tmp_path), "--prompt", "the dog", "--length", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("the dog")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rnn-lm", "--set", "vocabulary=7"], "by the text it is"),
        (["rnn-lm", "--size", "8,8"], "--size is for images"),
        (["textcnn"], "needs --data FILE"),
        (["rnn-lm", "--hold-out", "999999"], "too few to hold out"),
        (["rnn-lm", "--length", "99999999"], "use a longer text or fewer steps"),
    ],
)
def test_wrong_use_is_one_line(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *arguments]) == 1
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_generate_refuses_what_is_no_language_model(tmp_path, capsys):
    assert cli.main(["train", "linear_regression", "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert cli.main(["generate", str(tmp_path)]) == 1
    assert "needs a language model" in capsys.readouterr().err


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    path = tmp_path_factory.mktemp("labelled") / "reviews.tsv"
    random = np.random.RandomState(0)
    good, bad = ("fine", "lovely", "great"), ("poor", "dull", "awful")
    lines = []
    for i in range(120):
        word = (good, bad)[i % 2][random.randint(3)]
        filler = ["the", "film", "was", "a", "bit"][: random.randint(1, 6)]
        lines.append(f"{('good', 'bad')[i % 2]}\t{' '.join(filler)} {word}")
    path.write_text("\n".join(lines))
    return path


def test_a_classifier_of_texts_is_trained_evaluated_and_used(reviews, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "textcnn", "--data", str(reviews), "--length", "8", "--epochs", "8"]
    assert cli.main([*command, "--set", "features=8", "--out", str(out)]) == 0
    assert "96 examples to train on, 24 to test on" in capsys.readouterr().out
    assert cli.main(["evaluate", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["classes"] == ["bad", "good"]
    assert report["accuracy"] > 0.9
    texts = tmp_path / "new.txt"
    texts.write_text("the film was lovely\n\nthe film was awful\n")
    assert cli.main(["predict", str(out), str(texts), "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(t["text"], t["class"]) for t in told] == [
        ("the film was lovely", "good"),
        ("the film was awful", "bad"),
    ]


def test_held_out_lines_are_always_the_same_and_none_is_in_both_parts(reviews):
    once, again = (text_recipes.load_labelled(reviews, "word", 8) for _ in range(2))
    np.testing.assert_array_equal(once.test.inputs, again.test.inputs)
    assert (len(once.train), len(once.test)) == (96, 24)
    with pytest.raises(ValueError, match="each part needs some"):
        text_recipes.load_labelled(reviews, "word", 8, hold_out=120)


def test_windows_held_out_are_the_last_of_the_text(corpus):
    parts = text_recipes.load_language(corpus, "character", 10, hold_out=3)
    written = corpus.read_text()
    assert len(parts.test) == 3
    assert parts.codec.decode(parts.test.targets.ravel()) == written[-30:]
    assert parts.codec.decode(parts.train.inputs.ravel()) == written[: parts.train.inputs.size]
    with pytest.raises(ValueError, match="letters, character, word, bpe"):
        text_recipes.load_language(corpus, "syllable", 10)
