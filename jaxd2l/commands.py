"""What `jaxd2l models`, `summary` and `train` do; `cli` reads the options and calls these.

They only put library functions together and print. Imports stand inside, so that a command loads
what it needs.
"""

import argparse
import math
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any


class Refused(Exception):
    """A mistake of the user's, shown as one line without a traceback."""


def _build(name: str, options: dict[str, Any]) -> Any:
    from jaxd2l import models

    try:
        return models.build(name, **options)
    except TypeError as error:  # an option of another type than the network's function takes
        given = ", ".join(f"{k}={v!r}" for k, v in options.items())
        raise Refused(f"cannot build {name} with {given}: {error}") from error


def models(arguments: argparse.Namespace) -> int:
    """List the networks with their options and inputs."""
    from jaxd2l import models

    for name in models.names():
        print(f"{name}\n    {models.description(name)}")
        options = [
            f"{k}={repr(v) if len(repr(v)) < 60 else '(...)'}"
            for k, v in models.options(name).items()
        ]
        print(f"    options: {', '.join(options) or 'none'}")
        print(f"    input: {'x'.join(map(str, models.input_shape(name)))}")
    return 0


def summary(arguments: argparse.Namespace) -> int:
    """Print the table of a network."""
    from jaxd2l import analysis, models

    net = _build(arguments.name, dict(arguments.set))
    table = analysis.summarize(net, arguments.input or models.input_shape(arguments.name))
    if arguments.json:
        print(table.to_json())
    else:
        print(table.to_markdown() if arguments.markdown else table)
    return 0


def _free_folder(name: str) -> Path:
    """runs/lenet, or runs/lenet-2, ... where that is taken: no run is written over."""
    number = 1
    while True:
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not folder.exists() or not any(folder.iterdir()):
            return folder
        number += 1


def _make_folder(folder: Path) -> None:
    """Made before anything is computed, so that a result always finds its place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Refused(
            f"--out: cannot write to the folder {folder}: {error.strerror}; choose another"
        ) from error


def _newest_run(name: str) -> Path:
    from jaxd2l import checkpoint

    found = [
        folder
        for folder in (Path("runs").iterdir() if Path("runs").is_dir() else ())
        if folder.name.rpartition("-")[0] == name or folder.name == name
        if folder.is_dir() and checkpoint.latest(folder) is not None
    ]
    if not found:
        raise Refused(f"--resume: there is no run of {name} under runs/; name its --out")
    return max(found, key=lambda folder: checkpoint.latest(folder).stat().st_mtime)  # type: ignore[union-attr]


#: Options of `train` that are stored with the run and come back with --resume.
_STORED = (
    "recipe",
    "data",
    "size",
    "channels",
    "hold_out",
    "level",
    "length",
    "optimizer",
    "learning_rate",
    "clip",
    "batch_size",
    "seed",
    "epochs",
)


def _tuples(value: Any) -> Any:
    """Lists as tuples, inner ones as well: JSON has no tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _settings(arguments: argparse.Namespace, stored: dict[str, Any] | None) -> dict[str, Any]:
    """What was given, else what the run was started with, else what the recipe says."""
    from jaxd2l import recipes

    given = {k: getattr(arguments, k) for k in _STORED if getattr(arguments, k) is not None}
    if given.get("data") is not None:
        given["data"] = str(Path(given["data"]).resolve())
    options = dict(arguments.set)
    if stored is not None:
        if stored.get("network") != arguments.name:
            raise Refused(
                f"--resume: the run trains {stored.get('network')!r}, not {arguments.name!r}"
            )
        for name, value in {**given, **options}.items():
            before = _tuples({**stored, **stored["options"]}.get(name))
            if name != "epochs" and value != before:
                raise Refused(
                    f"--resume: the run was started with {name}={before!r}, not {value!r}; "
                    f"only --epochs can be changed"
                )
        return {**stored, **given}
    chosen = recipes.recipe(arguments.name, given.get("recipe", "default"))
    settings = dict.fromkeys(_STORED) | {"recipe": "default", "seed": 0}
    from_recipe = ("optimizer", "learning_rate", "clip", "epochs", "batch_size", "level", "length")
    settings |= {k: getattr(chosen, k) for k in (*from_recipe, "task")}
    settings["network"] = arguments.name
    return {**settings, **given, "options": {**chosen.options, **options}}


def _stored_settings(folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """What the run was started with and how far it has come, by its newest sound checkpoint."""
    from jaxd2l import checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # train.fit will warn of a damaged one
        newest = checkpoint.latest(folder, verify=True)
    if newest is None:
        raise Refused(f"--resume: there is no checkpoint in {folder}")
    meta = checkpoint.read_metadata(newest)
    if "settings" not in meta or "position" not in meta:
        raise Refused(f"--resume: {newest} was not written by jaxd2l train")
    return dict(meta["settings"]), dict(meta["position"])


def _pair(values: Any) -> tuple[int, int] | None:
    if values is None:
        return None
    if len(values) != 2:
        raise Refused(f"--size needs a height and a width, such as 32,32; got {tuple(values)}")
    return int(values[0]), int(values[1])


def load_data(settings: dict[str, Any], codec: Any = None, classes: Any = None) -> Any:
    """The parts of the data that a run's settings name; a text's codec and classes if known."""
    from jaxd2l import recipes, text_recipes

    if settings["task"] in ("language", "text"):
        for name in ("size", "channels"):
            if settings[name] is not None:
                raise Refused(f"--{name} is for images; {settings['network']} takes text")
        cut = settings["data"], settings["level"], settings["length"], settings["hold_out"], codec
        if settings["task"] == "language":
            return text_recipes.load_language(*cut)
        return text_recipes.load_labelled(*cut, classes)
    return recipes.load_data(
        settings["task"],
        settings["data"],
        size=_pair(settings["size"]),
        channels=settings["channels"],
        hold_out=settings["hold_out"],
    )


def _fit_to_text(name: str, options: dict[str, Any], settings: dict[str, Any], codec: Any) -> None:
    """The options of a network that follow from its text: how many tokens, which one pads."""
    from jaxd2l import models

    if codec is None:
        return
    known = models.options(name)
    follows = {"vocabulary": codec.size}
    if "padding" in known:
        follows["padding"] = codec.padding
    if "length" in known and "length" not in options:
        options["length"] = settings["length"]
    for option, value in follows.items():
        if options.setdefault(option, value) != value:
            raise Refused(
                f"--set {option}={options[option]}: by the text it is {value}; leave the option out"
            )


def train(arguments: argparse.Namespace) -> int:
    """Train a network, or continue its run; the exit status."""
    from jaxd2l import analysis, checkpoint, models, plot, recipes, train

    models.options(arguments.name)  # refuses an unknown name before anything else is done
    if arguments.resume:
        folder = Path(arguments.out) if arguments.out else _newest_run(arguments.name)
        stored, position = _stored_settings(folder)
    else:
        folder = Path(arguments.out) if arguments.out else _free_folder(arguments.name)
        stored = None
        if folder.exists() and not folder.is_dir():
            raise Refused(f"--out: cannot write to the folder {folder}: it is a file")
        if checkpoint.latest(folder) is not None:
            raise Refused(
                f"--out: {folder} already holds a run; continue it with --resume, or choose "
                f"another folder"
            )
    settings = _settings(arguments, stored)
    if stored is not None and position["epoch"] >= settings["epochs"]:
        done = position["epoch"]
        print(f"{folder} has finished {done} epochs; to go on give --epochs above {done}")
        return 0
    options = {k: _tuples(v) for k, v in settings["options"].items()}
    parts = load_data(settings)
    if parts.train is None:
        raise Refused(f"{settings['data']} has a test part only; use --hold-out")
    if parts.train.classes is not None and "num_classes" in models.options(arguments.name):
        classes = len(parts.train.classes)
        if options.setdefault("num_classes", classes) != classes:
            raise Refused(
                f"--set num_classes={options['num_classes']}: the data has {classes} classes; "
                f"leave the option out"
            )
    codec = getattr(parts, "codec", None)
    _fit_to_text(arguments.name, options, settings, codec)
    settings["options"] = options
    net = _build(arguments.name, options)
    shape = parts.train.inputs.shape[1:]
    table = analysis.summarize(net, shape)
    _make_folder(folder)
    if not arguments.quiet:
        print(table)
        print(
            f"{len(parts.train):,} examples to train on, "
            f"{len(parts.test) if parts.test is not None else 0:,} to test on; "
            f"{settings['optimizer']}, learning rate {settings['learning_rate']:g}, "
            f"batches of {settings['batch_size']}, {settings['epochs']} epochs, "
            f"seed {settings['seed']}",
            flush=True,
        )
    result = train.fit(
        net,
        parts.train,
        test=parts.test,
        loss=recipes.loss_of(settings["task"]),
        metrics=recipes.metrics_of(settings["task"], parts.train.targets),
        optimizer=recipes.optimizer_of(
            settings["optimizer"], settings["learning_rate"], settings.get("clip")
        ),
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        seed=settings["seed"],
        folder=folder,
        resume=arguments.resume,
        save_every=arguments.save_every,
        meta={
            "settings": settings,
            "classes": parts.train.classes,
            **({} if codec is None else {"codec": codec.to_json()}),
        },
        progress=not arguments.quiet,
    )
    written = [p.name for p in (checkpoint.latest(folder), folder / "metrics.jsonl") if p]
    if result.history:
        try:
            curve = folder / "learning_curve.png"
            written.append(plot.learning_curve(result.history, curve, arguments.name).name)
        except ImportError as error:  # the run itself is complete and saved
            print(f"jaxd2l: no learning curve drawn: {error}", file=sys.stderr)
    if result.interrupted:
        step = int(result.train_state.step)
        again = f"jaxd2l train {arguments.name} --out {folder} --resume"
        print(f"stopped at step {step:,}; continue with: {again}")
        return 130
    last = result.history[-1]
    if settings["task"] == "language" and "test_loss" in last:
        print(f"test perplexity {math.exp(last['test_loss']):.2f} a token")
    elif "test_accuracy" in last:
        print(f"test accuracy {100 * last['test_accuracy']:.1f} %")
    elif "test_loss" in last:
        print(f"test loss {last['test_loss']:.6f}")
    print(f"wrote {folder}: {', '.join(written)}")
    return 0
