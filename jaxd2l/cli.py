"""The command `jaxd2l`: train, evaluate, predict, generate, summary, models.

It only reads options and prints; the work is done by the library functions that it calls.
"""

import argparse
import ast
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from jaxd2l import __version__, commands, trained_commands


def _size(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 28,28,1") from None


def _count(text: str) -> int:
    value = _seed(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be at least 1, got 0")
    return value


def _seed(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be in [0, 2**32), got {value}")
    return value


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}")
    return value


def _temperature(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else _rate(text)


def _network(text: str) -> str:
    """The name of a network; rnn-lm is rnn_lm."""
    return text.replace("-", "_")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name.replace("-", "_"), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.replace("-", "_"), value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxd2l", description="Deep learning as pure functions over parameter pytrees."
    )
    parser.add_argument("--version", action="version", version=f"jaxd2l {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add = subparsers.add_parser("models", help="list the networks, their options and inputs")
    add.set_defaults(run=commands.models)

    add = subparsers.add_parser("summary", help="print the table of a network")
    add.add_argument("name", type=_network, metavar="NAME", help="the network, see `jaxd2l models`")
    add.add_argument(
        "--input",
        type=_size,
        metavar="H,W,C",
        help="size of one input, such as 28,28,1 (default: the published one, see `jaxd2l models`)",
    )
    _add_set(add)
    form = add.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as a JSON object")
    form.add_argument("--markdown", action="store_true", help="as a Markdown table")
    add.set_defaults(run=commands.summary)

    add = subparsers.add_parser(
        "train",
        help="train a network",
        description="Train a network; without --data on data that comes with the library or its "
        "dependencies. Where a default depends on the network, the recipe gives it.",
    )
    add.add_argument("name", type=_network, metavar="NAME", help="the network, see `jaxd2l models`")
    _add_train(add)
    add.set_defaults(run=commands.train)

    add = subparsers.add_parser("evaluate", help="measure a trained network on test data")
    add.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint or a run's folder")
    add.add_argument("--data", help="a folder as for train (default: what it was trained on)")
    add.add_argument(
        "--hold-out",
        type=_count,
        metavar="N",
        help="measure on N held-out examples, chosen as by train (default: as in training; a fifth "
        "of other data that has no test part)",
    )
    add.add_argument("--json", action="store_true", help="as a JSON object")
    add.set_defaults(run=trained_commands.evaluate)

    add = subparsers.add_parser("predict", help="classify images or texts with a trained network")
    add.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint or a run's folder")
    add.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="image files (resized to the input); for a network of texts, files of one text a line",
    )
    add.add_argument("--json", action="store_true", help="one JSON object per image or text")
    add.set_defaults(run=trained_commands.predict)

    add = subparsers.add_parser("generate", help="go on with a text by a trained language model")
    add.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint or a run's folder")
    add.add_argument("--prompt", default=" ", help="the text to go on with (default: a space)")
    add.add_argument("--length", type=_count, default=200, help="tokens to add (default: 200)")
    add.add_argument(
        "--temperature",
        type=_temperature,
        default=0.8,
        help="logits are divided by it; 0 takes the likeliest token (default: 0.8)",
    )
    add.add_argument("--top-k", type=_count, help="only the K likeliest tokens (default: all)")
    add.add_argument(
        "--top-p", type=_rate, help="only the likeliest tokens of this probability (default: all)"
    )
    add.add_argument("--samples", type=_count, default=1, help="how many texts (default: 1)")
    add.add_argument("--seed", type=_seed, default=0, help="of the choices (default: 0)")
    add.set_defaults(run=trained_commands.generate)
    return parser


def _add_set(add: argparse.ArgumentParser) -> None:
    add.add_argument(
        "--set",
        type=_option,
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the network, such as activation=sigmoid; repeatable (default: none)",
    )


def _by_network(field: str, text: str) -> str:
    """A help text with the default that each network's recipe has."""
    from jaxd2l import recipes

    values = {n: getattr(r["default"], field) for n, r in recipes.RECIPES.items()}
    told = ", ".join(f"{n} {v}" for n, v in values.items() if v is not None)
    return f"{text} (default: {told})"


def _add_train(add: argparse.ArgumentParser) -> None:
    add.add_argument(
        "--recipe", help="default, or book: the book's form of LeNet and MLP (default: default)"
    )
    add.add_argument(
        "--data",
        metavar="PATH",
        help="a folder of IDX files (MNIST, Fashion-MNIST; gzipped or not), or of images with a "
        "sub-folder for each class (default: scikit-learn's handwritten digits at 28x28); for a "
        "language model a text file (default: the English help of Python); for a classifier of "
        "texts a file of lines label<TAB>text",
    )
    add.add_argument(
        "--size", type=_size, metavar="H,W", help="resize images (default: as they are)"
    )
    add.add_argument(
        "--channels", type=int, choices=(1, 3), help="grey or RGB (default: as they are)"
    )
    add.add_argument(
        "--hold-out",
        type=_count,
        metavar="N",
        help="hold out N examples to test on, the last ones of IDX files, else a fixed random "
        "choice; of a text the last N windows (default: a fifth, of a text a tenth, where the data "
        "has no test part)",
    )
    add.add_argument(
        "--level",
        choices=("letters", "character", "word", "bpe"),
        help=_by_network("level", "how a text is cut; letters are a-z and space"),
    )
    add.add_argument(
        "--length", type=_count, help=_by_network("length", "tokens of one example of text")
    )
    _add_set(add)
    add.add_argument("--epochs", type=_count, help=_by_network("epochs", "passes over the data"))
    add.add_argument(
        "--batch-size", type=_count, help=_by_network("batch_size", "examples per step")
    )
    add.add_argument(
        "--optimizer",
        choices=("adam", "momentum", "sgd"),
        help=_by_network("optimizer", "update rule; momentum is SGD with 0.9"),
    )
    add.add_argument("--learning-rate", type=_rate, help=_by_network("learning_rate", "step size"))
    add.add_argument(
        "--clip", type=_rate, help=_by_network("clip", "the largest norm of a gradient")
    )
    add.add_argument("--seed", type=_seed, help="of parameters, batches and dropout (default: 0)")
    add.add_argument(
        "--out",
        metavar="DIR",
        help="where checkpoints, metrics.jsonl and learning_curve.png go (default: runs/NAME, or "
        "runs/NAME-2, ... where that is taken)",
    )
    add.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out, or the newest of NAME under runs/ (default: off)",
    )
    add.add_argument(
        "--save-every",
        type=_count,
        metavar="STEPS",
        help="also save a checkpoint after so many steps (default: after every epoch only)",
    )
    add.add_argument("--quiet", action="store_true", help="print the result only (default: off)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0, 1 for a mistake, 2 for wrong usage, 130 for Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        status = int(arguments.run(arguments))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (commands.Refused, ValueError, OSError, ImportError, FloatingPointError) as error:
        notes = [n for n in getattr(error, "__notes__", ()) if "JAX has removed" not in n]
        print(" ".join([f"jaxd2l: {error}", *notes]), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("jaxd2l: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
