"""time_machine.py with time_machine_settings.py and time_machine_training.py: windows, runs and
tables, in a short form."""

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxd2l import apply, init, layers, models, summarize
from jaxd2l.data import text
from jaxd2l.ops.initializers import Constant, Normal

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
STEPS, VOCABULARY = 4, 6
TOKENS = np.random.RandomState(0).randint(0, VOCABULARY, 60).astype(np.int32)


@pytest.fixture
def module(monkeypatch):
    """Import from experiments/ as a script there does; forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (Path(getattr(sys.modules[name], "__file__", None) or "/").parent) == EXPERIMENTS:
            del sys.modules[name]


@pytest.fixture
def training(module):
    return module("time_machine_training")


@pytest.fixture
def table(module):
    return module("time_machine")


def small(vocabulary):
    return models.rnn_lm(vocabulary, features=5)


def sgd(steps):
    return optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.5))


def setting(training, **changes):
    one = training.Setting(small, 3, sgd, {"*": Normal(0.3)}, batch=4, stride=3, steps=STEPS)
    return dataclasses.replace(one, **changes)


@pytest.fixture
def corpus(training):
    codec = text.Codec.train("abcde")
    assert codec.size == VOCABULARY
    return training.Corpus(codec, TOKENS[:44], text.windows(TOKENS[40:], STEPS))


# Windows


def test_shuffled_windows_come_once(training):
    places = training.shuffled(10, 3, 4)
    offsets = set()
    for seed in range(8):
        starts, counts = places(jax.random.key(seed))
        assert starts.shape == counts.shape == (3, 4)
        assert counts.sum() == 10
        real = np.sort(np.asarray(starts)[np.asarray(counts)])
        offsets.add(int(real[0]))
        np.testing.assert_array_equal(real, real[0] + 3 * np.arange(10))
        assert (np.asarray(starts)[np.asarray(counts)] != real).any()
    assert offsets == {0, 1, 2}


def test_every_window_of_the_book_comes_once_in_an_epoch(training):
    starts, counts = training.shuffled(training.WINDOWS, 1, training.BATCH)(jax.random.key(0))
    assert starts.shape == (10, 1024)
    np.testing.assert_array_equal(np.sort(starts[counts]), np.arange(10_000))


def test_continued_batches_are_those_of_adjacent(training):
    places = training.continued(len(TOKENS), STEPS, 3)
    starts, counts = places(jax.random.key(1))
    assert counts.all()
    offset = int(starts[0, 0])
    assert 0 <= offset < STEPS
    assert starts.shape == (4, 3)
    # the stretches are as long as the latest offset allows
    wanted = text.adjacent(TOKENS[offset : offset + 3 * 18 + 1], 3, STEPS)
    found = TOKENS[np.asarray(starts).reshape(-1)[:, None] + np.arange(STEPS)]
    np.testing.assert_array_equal(found, wanted.inputs)
    offsets = {int(places(jax.random.key(seed))[0][0, 0]) for seed in range(30)}
    assert offsets == set(range(STEPS))
    assert np.asarray(starts).max() - offset + STEPS - 1 + STEPS < len(TOKENS)


def test_the_split_is_the_books(training, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "WINDOWS", 50)
    monkeypatch.setattr(training, "VALIDATION", 20)
    letters = "".join("abcdefgh"[i] for i in np.random.RandomState(1).randint(0, 8, 200))
    (tmp_path / "book.txt").write_text(letters.upper() + "!", "utf-8")
    corpus = training.read(str(tmp_path / "book.txt"))
    every = text.windows(corpus.codec.encode(letters), 32)
    np.testing.assert_array_equal(text.windows(corpus.tokens, 32).inputs, every.inputs[:50])
    np.testing.assert_array_equal(corpus.validation.inputs, every.inputs[50:70])
    np.testing.assert_array_equal(corpus.validation.targets, every.targets[50:70])
    (tmp_path / "short.txt").write_text("short", "utf-8")
    with pytest.raises(ValueError, match="102 characters are needed, there are 5"):
        training.read(str(tmp_path / "short.txt"))


# Runs


@jax.jit
def gradient(params, window, real, carry):
    """Of the mean loss of the windows that count: (gradient, (sum of losses, carry))."""

    def loss(params):
        logits, after, _ = layers.extend(small(VOCABULARY), params, {}, window[:, :-1], carry)
        picked = jax.nn.log_softmax(logits) * jax.nn.one_hot(window[:, 1:], VOCABULARY)
        values = -picked.sum(-1).mean(-1) * real
        return values.sum() / real.sum(), (values.sum(), after)

    return jax.grad(loss, has_aux=True)(params)


@pytest.mark.parametrize("carry", [False, True])
def test_a_run_is_the_loop_written_by_hand(training, corpus, monkeypatch, carry):
    monkeypatch.setattr(training, "WINDOWS", 40)
    one = setting(training, carry=carry)
    found = jax.jit(training.make_run(one, corpus))(7)
    key = jax.random.key(7)
    params, _ = init(small(VOCABULARY), key, (STEPS,), initializers=one.initializers)
    places = training.continued(40, STEPS, 4) if carry else training.shuffled(13, 3, 4)
    zero = {"rnn1": {"hidden": jnp.zeros((4, 5))}}
    perplexities = []
    for number in range(3):
        starts, counts = places(jax.random.fold_in(jax.random.fold_in(key, 1), number))
        total, before = 0.0, zero
        for at, real in zip(np.asarray(starts), np.asarray(counts), strict=True):
            window = corpus.tokens[at[:, None] + np.arange(STEPS + 1)]
            grads, (value, after) = gradient(params, window, real, before)
            norm = np.sqrt(sum(np.square(g).sum() for g in jax.tree.leaves(grads)))
            rate = 0.5 * min(1, 0.1 / norm)
            params = jax.tree.map(lambda p, g, r=rate: np.asarray(p - r * g), params, grads)
            total, before = total + float(value), after if carry else zero
        perplexities.append(np.exp(total / counts.sum()))
    np.testing.assert_allclose(found.training, perplexities, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found.params, params)


def test_perplexity_is_the_mean_over_batches(training, corpus):
    net, part = small(VOCABULARY), corpus.validation
    params, _ = init(net, jax.random.key(0), (STEPS,), initializers={"*": Normal(0.5)})
    assert len(part) == 16
    values = []
    for rows in (slice(0, 7), slice(7, 14), slice(14, 16)):
        logits, _ = apply(net, params, {}, jnp.asarray(part.inputs[rows]))
        p = np.take_along_axis(jax.nn.softmax(logits), part.targets[rows][..., None], -1)
        values.append(np.exp(-np.log(p).mean()))
    found = training.perplexity(net, params, part, batch=7)
    np.testing.assert_allclose(found, np.mean(values), rtol=1e-5)


def test_noise_is_added_in_training_only(training):
    net = layers.Dense("output", 40, kernel_init=Constant(1.0))
    model = training.noisy(net, 0.25)
    params, _ = model.init(jax.random.key(0), (30,))
    x = jnp.eye(30)

    def outputs(key, train):
        y, _ = model.apply(params, {}, x, key=key, train=train, mask=None)
        return np.asarray(y)

    np.testing.assert_array_equal(outputs(None, False), 1.0)
    first, second = (outputs(jax.random.key(k), True) for k in (1, 2))
    assert (first != second).all()
    # a kernel's own noise and, the same in every row, a bias's
    kernel = first - first.mean(axis=0)
    assert abs(kernel.std() - 0.25) < 0.02
    assert abs(first.mean()) - 1 < 0.2


# Tables


def test_the_settings_are_the_books(module, table):
    settings = module("time_machine_settings")
    rows = {
        "RNN from scratch": (2876, 100, 1, 7.275),
        "RNN concise": (2876, 100, 1, 7.19),
        "GRU from scratch": (6780, 50, 4, 6.71),
        "GRU concise": (6812, 50, 4, 6.91),
        "LSTM from scratch": (8732, 50, 4, 7.465),
        "LSTM concise": (8732, 50, 4, 6.77),
        "2-layer GRU": (13084, 100, 2, 6.36),
    }
    assert list(table.BOOK) == list(rows)
    for name, (parameters, epochs, rate, mean) in rows.items():
        row = table.BOOK[name]
        assert summarize(row.setting.make(28), (32,)).parameters == parameters
        assert (row.setting.epochs, row.rate, row.setting.batch) == (epochs, rate, 1024)
        assert np.mean(row.published.validation) == pytest.approx(mean)
        # the rate is the one that is printed, and the gradient is clipped
        optimizer = row.setting.optimizer(1)
        huge = {"w": jnp.array([3e4, 4e4])}
        step, _ = optimizer.update(huge, optimizer.init(huge), huge)
        np.testing.assert_allclose(step["w"], [-0.6 * rate, -0.8 * rate], rtol=1e-5)
    for make, epochs, rate, against in table.NETWORKS.values():
        for line in against:  # equal epochs, and no more parameters
            assert table.BOOK[line].setting.epochs == epochs
            assert table.BOOK[line].rate == rate
            ours = summarize(settings.recipe(make, epochs).make(28), (32,)).parameters
            assert ours <= rows[line][0]


def test_scratch_and_concise_start_as_the_books(table):
    for name in ("LSTM from scratch", "GRU concise"):
        row = table.BOOK[name]
        params, _ = init(
            row.setting.make(28), jax.random.key(0), (32,), initializers=row.setting.initializers
        )
        for leaf in jax.tree.leaves(params):
            if name.endswith("scratch"):
                assert leaf.std() == pytest.approx(0.01 * (leaf.ndim > 1), rel=0.1)
            else:
                assert leaf.std() == pytest.approx(32**-0.5 / 3**0.5, rel=0.25)


def runs(table, validation, training=((9.0, 7.0), (8.0, 6.0))):
    return table.Found([{}, {}], np.array(training), np.array(validation), np.array([3.0, 5.0]))


def test_a_spike_is_seen(table):
    found = runs(table, [1, 2], [[9.0, 6.0, 7.5, 5.0], [8.0, 8.0, 8.4, 8.2]])
    assert found.spike == pytest.approx(7.5 / 6)
    assert found.median == 1.5
    assert str(found) == "1.50 (1.00-2.00)"
    assert str(found._replace(validation=np.array([1.0]))) == "1.00"


def cells(output):
    lines = [line for line in output.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert re.fullmatch(r"\|:--(\|--:)+\|", lines[1])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_the_book(table, capsys):
    good, bad = runs(table, [7.0, 7.2]), runs(table, [7.5, 7.7], [[4.0, 9.0], [4.0, 3.0]])
    table.print_book({"GRU concise": good, "2-layer GRU": bad}, True)
    first, second = cells(capsys.readouterr().out)
    assert first[:5] == [
        "GRU concise",
        "2, 4",
        "5.66 / 7.27",
        "4.94 / 6.55",
        "6.50 / 7.10 (7.00-7.20)",
    ]
    assert first[5:] == ["7.26", "yes", "0.78", "yes", "4"]
    assert second[5:9] == ["6.68", "no", "2.25", "no"]
    table.print_book({"RNN concise": good}, False)
    assert cells(capsys.readouterr().out) == [
        ["RNN concise", "2, 1", "6.50 / 7.10 (7.00-7.20)", "0.78", "yes", "4"]
    ]


def test_the_tables_of_the_recipe_and_of_the_first_edition(table, capsys):
    found = {(name, "the recipe"): runs(table, [6.6, 6.6]) for name in table.NETWORKS}
    table.print_recipe(found, True)
    verdicts = {row[0]: row[-2] for row in cells(capsys.readouterr().out)}
    assert verdicts == {"RNN": "yes", "GRU": "no", "LSTM": "yes", "2-layer GRU": "no"}
    table.print_first({"GRU": runs(table, [9, 9], [[3.0, 1.05], [3.0, 1.25]])}, True)
    assert cells(capsys.readouterr().out) == [["GRU", "2", "1.150", "no", "5"]]


@pytest.mark.slow
def test_the_command(training, table, monkeypatch, capsys):
    """One network of each part, on a stretch of the text that ships with Python."""
    monkeypatch.setattr(training, "WINDOWS", 400)
    monkeypatch.setattr(training, "VALIDATION", 100)
    make, _, rate, against = table.NETWORKS["GRU"]
    monkeypatch.setattr(table, "NETWORKS", {"GRU": (make, 8, rate, against)})
    row = table.BOOK["RNN concise"]
    row = row._replace(setting=dataclasses.replace(row.setting, epochs=10, batch=100))
    monkeypatch.setattr(table, "BOOK", {"RNN concise": row})
    old = dataclasses.replace(table.FIRST["GRU"], epochs=10, batch=4)
    monkeypatch.setattr(table, "FIRST", {"GRU": old})
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(sys, "argv", ["time_machine.py", "--quick"])
    table.main()
    out = capsys.readouterr().out
    assert re.findall("^## (.*?):", out, re.M) == [
        "Our recipe",
        "The book's settings",
        "The first edition",
    ]
    own, book, old = (cells(part) for part in out.split("## ")[1:4])
    assert [r[0] for r in (own[0], old[0], book[0])] == ["GRU", "GRU", "RNN concise"]
    assert float(own[0][3].split()[0]) < 28  # better than chance
    assert float(old[0][2]) < 28
    assert len(re.findall(r"^- GRU .*, temperature .*: time traveller.{60}$", out, re.M)) == 6
