"""The command line: what it prints, what it writes, and how it refuses."""

import argparse
import io
import json
import math
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxd2l import checkpoint, cli, models, recipes, train
from jaxd2l.train.progress import Progress

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("train", "softmax_regression", "--size", "8,8", "--epochs", "2")


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def make_idx(folder, n=40, side=8, prefix="t10k"):
    """Bright squares whose place tells the label."""
    folder.mkdir(exist_ok=True)
    random = np.random.RandomState(0)
    labels = np.arange(n) % 4
    images = random.randint(0, 40, (n, side, side))
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] = 250
    write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
    write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return folder


def make_images(folder, n=10, side=8):
    from PIL import Image

    random = np.random.RandomState(0)
    for name, low in (("dark", 0), ("light", 155)):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = random.randint(low, low + 100, (side, side)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with runs/softmax_regression in it, and what the command printed."""
    place = tmp_path_factory.mktemp("trained")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        assert cli.main(QUICK) == 0
    return place, out.getvalue(), err.getvalue()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def beside(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    return trained[0]


def refused(capsys, *argv, status=1):
    """The one line of the error."""
    if status == 2:
        with pytest.raises(SystemExit) as stop:
            cli.main(argv)
        assert stop.value.code == 2
    else:
        assert cli.main(argv) == status
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if status == 1:
        assert err.startswith("jaxd2l: ")
        assert err.count("\n") == 1
    return err.splitlines()[-1]


# What it prints


def test_models_lists_every_network_with_its_options(capsys):
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    for name in models.names():
        assert f"{name}\n" in out
    assert "options: num_classes=10, activation='relu', pooling='max', batch_norm=False" in out
    assert out.count("    input: ") == len(models.names())
    assert "    input: 299x299x3\n" in out


@pytest.mark.smoke
def test_summary_as_text_json_and_markdown(capsys):
    assert cli.main(["summary", "lenet", "--input", "28,28,1"]) == 0
    text = capsys.readouterr().out
    assert "parameters 61,706" in text
    assert "MACs per example 416,520" in text
    assert cli.main(["summary", "lenet", "--input", "28x28x1", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["parameters"] == 61706
    options = ["--set", "batch_norm=True", "--set", "activation=sigmoid"]
    assert cli.main(["summary", "lenet", "--input", "28,28,1", "--markdown", *options]) == 0
    markdown = capsys.readouterr().out
    assert markdown.startswith("|")
    assert "sigmoid" in markdown
    assert "conv1_bn" in markdown
    assert cli.main(["summary", "mlp", "--input", "28,28,1", "--set", "hidden=(300,100)"]) == 0
    assert "266,610" in capsys.readouterr().out  # the MLP of LeCun et al. 1998


@pytest.mark.smoke
def test_summary_of_every_network_at_its_own_size(capsys):
    for name in models.names():
        assert cli.main(["summary", name, "--json"]) == 0, name
        table = json.loads(capsys.readouterr().out)
        assert tuple(table["input_shape"]) == models.input_shape(name)
        counts = re.findall(r"([\d,]{6,}) parameters", models.description(name))
        assert [f"{table['parameters']:,}"] * len(counts) == counts, name
        assert table["flops"] == 2 * table["macs"] >= 0
        rows = table["rows"]
        assert table["activation_bytes_training"] == (
            4 * math.prod(table["input_shape"]) + sum(row["activation_bytes"] for row in rows)
        )
        flags = sum(row["exceeds_input"] for row in rows)
        assert cli.main(["summary", name]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3 + len(rows) + 1 + 3 + bool(flags)  # title, input; rule, totals
        assert sum("*" in line for line in lines) == flags + bool(flags)


def test_summary_of_a_given_size_and_of_an_option(capsys):
    assert cli.main(["summary", "vgg11", "--input", "32,32,1"]) == 0
    assert "* 5 layers read units that already see more than the input (32x32)" in (
        capsys.readouterr().out
    )
    assert cli.main(["summary", "vgg11", "--input", "32,32,1", "--markdown"]) == 0
    assert r"- \* 5 layers read units" in capsys.readouterr().out
    assert cli.main(["summary", "polynomial_regression", "--set", "degree=5"]) == 0
    assert "parameters 6 " in capsys.readouterr().out


@pytest.mark.parametrize("command", ["", "models", "summary", "train", "evaluate", "predict"])
def test_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert "usage: jaxd2l" in capsys.readouterr().out


def test_every_option_shows_its_default():
    (commands,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    shown = 0
    for command in ("train", "evaluate"):
        for action in commands.choices[command]._actions:
            if action.option_strings and action.dest not in ("help", "json"):
                assert "(default: " in action.help, action.option_strings
                shown += 1
    assert shown > 15
    text = " ".join(commands.choices["train"].format_help().split())
    for name, known in recipes.RECIPES.items():
        assert f"{name} {known['default'].epochs}" in text


def test_version(capsys):
    from jaxd2l import __version__

    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"jaxd2l {__version__}\n"


# Training


@pytest.mark.smoke
def test_train_prints_and_writes_everything(trained):
    place, out, err = trained
    lines = out.splitlines()
    assert re.fullmatch(r"layer +output +receptive field +stride .* parameters +MACs", lines[0])
    assert "parameters 650 (2,600 bytes)" in out
    assert "1,438 examples to train on, 359 to test on; sgd, learning rate 0.1, batches" in out
    assert re.fullmatch(r"test accuracy \d+\.\d %", lines[-2])
    folder = place / "runs" / "softmax_regression"
    assert lines[-1] == (
        f"wrote {folder.relative_to(place)}: step_00000046.safetensors, metrics.jsonl, "
        f"learning_curve.png"
    )
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records] == [1, 2]
    assert lines[-2] == f"test accuracy {100 * records[-1]['test_accuracy']:.1f} %"
    assert records[-1]["test_accuracy"] > 0.5
    assert (folder / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"
    epochs = err.splitlines()
    assert len(epochs) == 2  # no terminal: a line per epoch
    assert epochs[1].startswith("epoch 2/2  train loss ")


def test_a_second_run_takes_another_folder(here, capsys):
    for expected in ("linear_regression", "linear_regression-2"):
        assert cli.main(["train", "linear_regression", "--epochs", "1", "--quiet"]) == 0
        out = capsys.readouterr()
        assert re.fullmatch(rf"test loss 0\.\d{{6}}\nwrote runs/{expected}: .*\n", out.out)
        assert out.err == ""
    assert cli.main(["train", "linear_regression", "--resume", "--epochs", "2", "--quiet"]) == 0
    assert "wrote runs/linear_regression-2: step_00000160" in capsys.readouterr().out
    assert recipes.recipe("linear_regression").epochs == 3


def test_resume_takes_the_options_of_the_run(here, capsys):
    start = ["train", "linear_regression", "--epochs", "1", "--seed", "3", "--batch-size", "50"]
    assert cli.main([*start, "--learning-rate", "0.2", "--optimizer", "momentum"]) == 0
    assert cli.main(["train", "linear_regression", "--resume", "--epochs", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("momentum, learning rate 0.2, batches of 50, ") == 2
    same = ["--seed", "3", "--batch-size", "50", "--epochs", "2"]
    assert cli.main(["train", "linear_regression", "--resume", *same]) == 0
    done = "runs/linear_regression has finished 2 epochs; to go on give --epochs above 2"
    assert capsys.readouterr().out.strip() == done
    for name, value, was in (
        ("--seed", "4", "seed=3, not 4"),
        ("--learning-rate", "0.1", "learning_rate=0.2, not 0.1"),
        ("--optimizer", "sgd", "optimizer='momentum', not 'sgd'"),
        ("--set", "outputs=2", "outputs=None, not 2"),
    ):
        again = ("train", "linear_regression", "--resume", name, value)
        assert f"the run was started with {was}" in refused(capsys, *again)
    again = ("train", "mlp", "--resume", "--out", "runs/linear_regression")
    assert "the run trains 'linear_regression', not 'mlp'" in refused(capsys, *again)


def test_an_error_from_inside_jit_is_shown_without_its_internals(here, capsys):
    line = refused(capsys, "train", "linear_regression", "--set", "outputs=2", "--quiet")
    assert "(10, 2) and (10, 1)" in line
    assert "JAX" not in line


def test_resume_passes_a_damaged_checkpoint_by(here, capsys):
    start = ["train", "linear_regression", "--out", "a", "--quiet"]
    assert cli.main([*start, "--epochs", "2"]) == 0
    checkpoint.step_path("a", 160).write_bytes(b"damaged")
    with pytest.warns(RuntimeWarning, match="step_00000160") as caught:
        assert cli.main([*start, "--epochs", "3", "--resume"]) == 0
    assert len(caught) == 1
    assert checkpoint.steps("a") == [80, 160, 240]


@pytest.mark.smoke
def test_a_folder_of_idx_files_end_to_end(here, capsys):
    make_idx(here / "idx", prefix="train")
    make_idx(here / "idx", n=12)
    start = ["train", "mlp", "--set", "hidden=(8,)", "--data", "idx", "--epochs", "60"]
    assert cli.main([*start, "--learning-rate", "0.02", "--quiet"]) == 0
    assert "test accuracy 100.0 %" in capsys.readouterr().out
    assert cli.main(["evaluate", "runs/mlp", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["examples"] == 12
    assert report["accuracy"] == 1.0
    matrix = np.array(report["confusion_matrix"])
    assert matrix.shape == (10, 10)
    assert np.diag(matrix).tolist() == [3, 3, 3, 3] + 6 * [0]
    make_idx(here / "large", side=10)
    line = refused(capsys, "evaluate", "runs/mlp", "--data", "large")
    assert "the data has inputs of shape (10, 10, 1), the network (8, 8, 1)" in line
    line = refused(capsys, *start, "--hold-out", "5", "--out", "b")
    assert "has a test part of its own; hold_out is for data that has none" in line
    labels = here / "idx" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-3])
    assert "t10k-labels-idx1-ubyte: truncated" in refused(capsys, "evaluate", "runs/mlp")


def test_a_folder_of_images_end_to_end(here, capsys):
    """The number of classes and their names come from the data."""
    make_images(here / "images")
    start = ["train", "softmax_regression", "--data", "images", "--epochs", "40", "--quiet"]
    assert cli.main([*start, "--hold-out", "6"]) == 0
    assert "test accuracy 100.0 %" in capsys.readouterr().out
    net, _, _, meta = train.load("runs/softmax_regression")
    assert net == models.softmax_regression(2)
    assert meta["classes"] == ["dark", "light"]
    files = ["images/light/0.png", "images/dark/0.png"]
    assert cli.main(["predict", "runs/softmax_regression", *files]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"images/light/0.png: light \(\d+\.\d %\)", first)
    assert second.startswith("images/dark/0.png: dark (")
    assert cli.main(["evaluate", "runs/softmax_regression"]) == 0
    assert capsys.readouterr().out.startswith("6 examples, loss ")
    assert cli.main(["evaluate", "runs/softmax_regression", "--data", "images"]) == 0
    assert capsys.readouterr().out.startswith("6 examples, loss ")  # the same ones
    make_images(here / "others")
    (here / "others" / "light").rename(here / "others" / "bright")
    line = refused(capsys, "evaluate", "runs/softmax_regression", "--data", "others")
    assert "the data has the classes bright, dark, the network was trained on dark, light" in line
    again = ("train", "logistic_regression", "--data", "images", "--epochs", "60", "--quiet")
    assert cli.main([*again, "--learning-rate", "1"]) == 0
    assert "test accuracy 100.0 %" in capsys.readouterr().out


def test_the_book_recipe(here, capsys):
    start = ["train", "lenet", "--recipe", "book", "--epochs", "1", "--hold-out", "1700"]
    assert cli.main(start) == 0
    out = capsys.readouterr().out
    assert "sigmoid" in out
    assert "avg_pool" in out
    meta = checkpoint.read_metadata(checkpoint.latest("runs/lenet"))
    assert meta["settings"]["recipe"] == "book"
    assert meta["settings"]["options"]["pooling"] == "avg"


def test_divergence_is_one_line(here, capsys):
    line = refused(
        capsys, "train", "linear_regression", "--learning-rate", "1e9", "--quiet", "--out", "a"
    )
    assert line.startswith("jaxd2l: training diverged: the loss or a parameter was NaN or infinite")
    assert checkpoint.steps("a") == []


# What is not installed


def test_without_matplotlib_the_run_is_not_lost(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["train", "linear_regression", "--epochs", "1", "--quiet"]) == 0
    out = capsys.readouterr()
    assert "no learning curve drawn: pictures need matplotlib: pip install" in out.err
    expected = "wrote runs/linear_regression: step_00000080.safetensors, metrics.jsonl\n"
    assert out.out.endswith(expected)


def test_without_scikit_learn_the_error_says_what_to_install(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert "pip install 'jaxd2l[examples]'" in refused(capsys, *QUICK)
    assert not (here / "runs").exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(monkeypatch):
    stream = Terminal()
    bar = Progress(10, 4, stream, seconds=0.0)
    for _ in range(6):
        bar.update()
        assert bar.due()
        bar.figures({"loss": 0.5, "accuracy": 0.875})
    bar.line("epoch 1/1")
    bar.close()
    shown = stream.getvalue()
    assert "10/10" in shown
    assert "loss=0.5000, accuracy=0.8750" in shown
    assert "epoch 1/1\n" in shown


def test_figures_are_wanted_twice_a_second_only():
    bar = Progress(10, 0, Terminal())
    assert not bar.due()
    bar.shown -= 0.6
    assert bar.due()
    bar.figures({"loss": 1.0})
    assert not bar.due()
    bar.close()


@pytest.mark.parametrize("case", ["no terminal", "no tqdm"])
def test_lines_where_there_can_be_no_bar(monkeypatch, case):
    stream = io.StringIO() if case == "no terminal" else Terminal()
    if case == "no tqdm":
        monkeypatch.setitem(sys.modules, "tqdm", None)
    bar = Progress(2, 0, stream)
    bar.update()
    assert not bar.due()
    bar.figures({"loss": 1.0})
    bar.line("epoch 1/1")
    bar.close()
    assert stream.getvalue() == "epoch 1/1\n"


def test_training_on_a_terminal(here, monkeypatch, capsys):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(Progress.__init__, "__defaults__", (None, 0.0))
    assert cli.main(["train", "softmax_regression", "--size", "8,8", "--epochs", "1"]) == 0
    shown = stream.getvalue()
    assert "23/23" in shown
    assert re.search(r"loss=\d\.\d{4}, accuracy=0\.\d{4}", shown)


# Evaluation and prediction


def test_evaluate_prints_classes_and_the_confusion_matrix(beside, capsys):
    assert cli.main(["evaluate", "runs/softmax_regression"]) == 0
    out = capsys.readouterr().out
    assert re.match(r"359 examples, loss \d\.\d{4}\naccuracy \d\d\.\d %\n", out)
    assert "class  precision  recall     f1  examples" in out
    assert "confusion matrix (rows: true class, columns: predicted)" in out
    last = (beside / "runs" / "softmax_regression" / "metrics.jsonl").read_text().splitlines()[-1]
    assert f"accuracy {100 * json.loads(last)['test_accuracy']:.1f} %" in out


def test_evaluate_as_json_agrees_with_itself(beside, capsys):
    newest = checkpoint.latest("runs/softmax_regression")
    assert cli.main(["evaluate", str(newest), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    matrix = np.array(report["confusion_matrix"])
    assert matrix.sum() == report["examples"] == 359
    assert report["accuracy"] == pytest.approx(np.trace(matrix) / 359)
    assert report["classes"] == [str(i) for i in range(10)]
    assert matrix.sum(axis=1).tolist() == report["per_class"]["support"]
    np.testing.assert_allclose(
        report["per_class"]["recall"], np.diag(matrix) / matrix.sum(axis=1), rtol=1e-6
    )
    assert cli.main(["evaluate", str(newest), "--json", "--hold-out", "100"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 100


def test_predict_as_json(beside, tmp_path, capsys):
    from PIL import Image
    from sklearn.datasets import load_digits

    source = load_digits()
    files = []
    for i in range(20):  # in the order 0 1 2 ... 9 0 1 ...
        files.append(str(tmp_path / f"{i}.png"))
        pixels = (source.images[i] * 15.9).astype(np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(files[-1])
    assert cli.main(["predict", "runs/softmax_regression", *files, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [f["file"] for f in found] == files
    assert sum(f["class"] == str(i % 10) for i, f in enumerate(found)) >= 14
    for f in found:
        assert sum(f["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(f["probabilities"], key=f["probabilities"].get) == f["class"]


# Mistakes


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("summary nothing --input 3", "there is no network 'nothing'; there are alexnet, "),
        ("summary resnet51", "there is no network 'resnet51'; did you mean resnet50"),
        ("summary vgg11 --input 16,16,3", "kernel 2 is larger than the padded input 1"),
        ("summary lenet --input 16,2", "a kernel in one dimension is written (k,)"),
        ("summary lenet --input 28", "Conv 'conv1' needs an input of shape (h, w, c), got (28,)"),
        ("summary lenet --input 4,4,1", "kernel 5 is larger than the padded input 2"),
        ("summary lenet --input 28,28,1 --set pool=max", "has no option 'pool'; it has "),
        (
            "summary lenet --input 28,28,1 --set pooling=min",
            "pooling must be one of ['avg', 'max']",
        ),
        ("summary mlp --input 28,28,1 --set hidden=5.5", "cannot build mlp with hidden=5.5: "),
        ("summary mlp --input 0,28,1", "0"),
        ("train nothing", "there is no network 'nothing'"),
        ("train softmax_regression --data missing", "no data at missing"),
        ("train softmax_regression --recipe book", "has no recipe 'book'; it has default"),
        ("train softmax_regression --size 8", "--size needs a height and a width"),
        ("train softmax_regression --size 8,9", "the bundled digits are square"),
        ("train softmax_regression --hold-out 5000", "cannot hold out 5,000 of 1,797 examples"),
        ("train lenet --set num_classes=5", "num_classes=5: the data has 10 classes"),
        ("train lenet --set num_classes=20", "num_classes=20: the data has 10 classes"),
        (
            "train softmax_regression --size 8,8 --out file",
            "--out: cannot write to the folder file",
        ),
        ("train linear_regression --size 8,8", "makes its own data"),
        ("train lenet --size 8,8 --set activation=nothing", "Activation: unknown kind"),
        ("train lenet --resume", "--resume: there is no run of lenet under runs/"),
        ("train lenet --resume --out nowhere", "--resume: there is no checkpoint in nowhere"),
        ("train linear_regression --out file/x", "file"),
        ("train linear_regression --out /proc/nothing/x", "/proc/nothing"),
        ("evaluate nowhere", "nowhere: no checkpoint here"),
        ("evaluate file", "file: "),
        ("predict nowhere x.png", "nowhere: no checkpoint here"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, argv, message):
    (here / "file").write_text("just text")
    line = refused(capsys, *argv.split())
    assert message in line.replace(str(here) + os.sep, "")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--epochs 0", "argument --epochs: must be at least 1, got 0"),
        ("--epochs -3", "argument --epochs: must be in [0, 2**32), got -3"),
        ("--epochs many", "argument --epochs: 'many' is not a whole number"),
        ("--batch-size 0", "argument --batch-size: must be at least 1, got 0"),
        ("--save-every 0", "argument --save-every: must be at least 1, got 0"),
        ("--hold-out 0", "argument --hold-out: must be at least 1, got 0"),
        ("--learning-rate 0", "argument --learning-rate: must be a positive number, got 0"),
        ("--learning-rate -0.1", "argument --learning-rate: must be a positive number, got -0.1"),
        ("--learning-rate nan", "argument --learning-rate: must be a positive number, got nan"),
        ("--learning-rate fast", "argument --learning-rate: 'fast' is not a number"),
        ("--seed -1", "argument --seed: must be in [0, 2**32), got -1"),
        ("--seed 4294967296", "argument --seed: must be in [0, 2**32)"),
        ("--channels 2", "argument --channels: invalid choice"),
        ("--size wide", "argument --size: 'wide' is not a size such as 28,28,1"),
        ("--size 8,,8", "argument --size: '8,,8' is not a size such as 28,28,1"),
        ("--set activation", "argument --set: 'activation' is not of the form NAME=VALUE"),
        ("--optimizer lion", "argument --optimizer: invalid choice"),
        ("--speed 9", "unrecognized arguments: --speed 9"),
    ],
)
def test_a_wrong_option_is_refused_at_once(here, capsys, option, message):
    assert message in refused(capsys, "train", "lenet", *option.split(), status=2)
    assert list(here.iterdir()) == []


def test_no_command(capsys):
    assert "required: COMMAND" in refused(capsys, status=2)


def test_out_that_holds_a_run_is_refused(beside, capsys):
    before = checkpoint.latest("runs/softmax_regression").read_bytes()
    line = refused(capsys, *QUICK, "--out", "runs/softmax_regression")
    assert "already holds a run; continue it with --resume, or choose another folder" in line
    assert checkpoint.latest("runs/softmax_regression").read_bytes() == before


def test_predict_refuses_what_is_no_image(beside, tmp_path, capsys):
    (tmp_path / "a.png").write_text("text")
    run = "runs/softmax_regression"
    assert "a.png: cannot be read as an image" in refused(
        capsys, "predict", run, str(tmp_path / "a.png")
    )
    assert "b.png" in refused(capsys, "predict", run, str(tmp_path / "b.png"))


def test_predict_refuses_a_network_that_classifies_no_images(here, capsys):
    assert cli.main(["train", "linear_regression", "--epochs", "1", "--quiet"]) == 0
    capsys.readouterr()
    line = refused(capsys, "predict", "runs/linear_regression", "a.png")
    assert "predict needs a network that classifies images" in line
    assert cli.main(["evaluate", "runs/linear_regression"]) == 0
    assert re.fullmatch(r"200 examples, loss \d\.\d{4}\n", capsys.readouterr().out)


def test_damaged_and_foreign_checkpoints(beside, tmp_path, capsys):
    import jax.numpy as jnp

    content = bytearray(checkpoint.latest("runs/softmax_regression").read_bytes())
    content[-1] ^= 1
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content)
    assert "damaged.safetensors" in refused(capsys, "evaluate", str(damaged))
    damaged.write_bytes(content[: len(content) // 2])
    assert "damaged.safetensors" in refused(capsys, "evaluate", str(damaged))
    foreign = tmp_path / "foreign.safetensors"
    checkpoint.save(foreign, {"w": jnp.ones(2)})
    assert "holds no network" in refused(capsys, "evaluate", str(foreign))
    checkpoint.save(foreign, {"w": jnp.ones(2)}, net=models.lenet())
    assert "not a checkpoint of train.fit" in refused(capsys, "evaluate", str(foreign))
    checkpoint.save_step(tmp_path / "run", 1, {"w": jnp.ones(2)})
    again = ("train", "lenet", "--resume", "--out", str(tmp_path / "run"))
    assert "was not written by jaxd2l train" in refused(capsys, *again)


def test_ctrl_c_outside_the_loop(monkeypatch, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.commands, "models", interrupt)
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == "jaxd2l: interrupted\n"


def test_a_reader_that_stops_early_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxd2l.cli", "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    process.stdout.close()
    with process:
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "jaxd2l.cli", "summary", "nothing", "--input", "3"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("jaxd2l: there is no network 'nothing'")
    assert done.stderr.count("\n") == 1
