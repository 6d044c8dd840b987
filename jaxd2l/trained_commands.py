"""What `jaxd2l evaluate`, `predict` and `generate` do with a trained network."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from jaxd2l.commands import Refused, load_data


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a trained network on test data."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxd2l import data, recipes, train
    from jaxd2l.layers import apply
    from jaxd2l.ops import metrics

    net, params, state, meta = train.load(arguments.checkpoint)
    settings = meta.get("settings")
    if settings is None:
        raise Refused(f"{arguments.checkpoint} was not written by jaxd2l train")
    data_path = None if arguments.data is None else str(Path(arguments.data).resolve())
    if data_path not in (None, settings["data"]):
        settings |= {"data": data_path, "hold_out": None}
    if arguments.hold_out is not None:
        settings |= {"hold_out": arguments.hold_out}
    settings = {"size": None, "channels": None, **settings}
    classes = meta.get("classes")
    parts = load_data(settings, _stored_codec(meta), classes and tuple(classes))
    part = parts.test if parts.test is not None else parts.train
    shape = tuple(meta["input_shape"])
    if part.inputs.shape[1:] != shape:
        raise Refused(f"the data has inputs of shape {part.inputs.shape[1:]}, the network {shape}")
    trained_on = meta.get("classes")
    if part.classes is not None and trained_on is not None and list(part.classes) != trained_on:
        raise Refused(
            f"the data has the classes {', '.join(part.classes)}, the network was trained on "
            f"{', '.join(trained_on)}"
        )
    task = settings["task"]
    measured = train.evaluate(
        net,
        params,
        state,
        part,
        loss=recipes.loss_of(task),
        metrics=recipes.metrics_of(task, part.targets),
    )
    report: dict[str, Any] = {"examples": len(part), **measured}
    if task == "language":
        report["perplexity"] = math.exp(measured["loss"])
    if part.classes is not None:
        run = jax.jit(lambda x: apply(net, params, state, x)[0].argmax(axis=-1))
        predicted = []
        for batch in data.Batches(part, min(256, len(part)), shuffle=False).epoch(0):
            predicted.append(np.asarray(run(batch.inputs))[batch.mask])
        labels, found = jnp.asarray(part.targets), jnp.asarray(np.concatenate(predicted))
        confusion = metrics.confusion_matrix(labels, found, len(part.classes))
        by_class = metrics.per_class_metrics(confusion)
        report["classes"] = list(part.classes)
        report["per_class"] = {k: np.asarray(v).tolist() for k, v in by_class._asdict().items()}
        report["confusion_matrix"] = np.asarray(confusion).tolist()
    if arguments.json:
        print(json.dumps(report))
        return 0
    print(f"{report['examples']:,} examples, loss {report['loss']:.4f}")
    if "perplexity" in report:
        print(f"perplexity {report['perplexity']:.2f} a token")
    if "accuracy" in report:
        print(f"accuracy {100 * report['accuracy']:.1f} %")
    if "classes" in report:
        _print_classes(report)
    return 0


def _print_classes(report: dict[str, Any]) -> None:
    names, rows = report["classes"], report["per_class"]
    wide = max(5, *(len(name) for name in names))
    print(f"\n{'class':<{wide}}  precision  recall     f1  examples")
    for i, name in enumerate(names):
        print(
            f"{name:<{wide}}  {rows['precision'][i]:9.3f}  {rows['recall'][i]:6.3f}  "
            f"{rows['f1'][i]:5.3f}  {int(rows['support'][i]):8,}"
        )
    cell = max(4, *(len(f"{n:,}") for row in report["confusion_matrix"] for n in row))
    cell = max(cell, *(min(len(name), 10) for name in names))
    print("\nconfusion matrix (rows: true class, columns: predicted)")
    print(" " * wide + "".join(f"  {name[:10]:>{cell}}" for name in names))
    for name, row in zip(names, report["confusion_matrix"], strict=True):
        print(f"{name:<{wide}}" + "".join(f"  {n:>{cell},}" for n in row))


def _stored_codec(meta: dict[str, Any]) -> Any:
    """The codec of the text that a network was trained on, or None."""
    from jaxd2l.data import text

    return text.Codec.from_json(meta["codec"]) if "codec" in meta else None


def predict(arguments: argparse.Namespace) -> int:
    """Classify image files, or the lines of text files."""
    import jax
    import numpy as np

    from jaxd2l import data, train
    from jaxd2l.layers import apply
    from jaxd2l.ops.softmax import softmax

    net, params, state, meta = train.load(arguments.checkpoint)
    shape, classes, codec = tuple(meta["input_shape"]), meta.get("classes"), _stored_codec(meta)
    if classes is None or (codec is None and len(shape) != 3):
        raise Refused(
            f"{arguments.checkpoint}: predict needs a network that classifies images or texts"
        )
    if codec is None:
        images = [data.read_image(f, shape[:2], shape[2]) for f in arguments.files]
        inputs, told = np.stack(images), arguments.files
    else:
        lines = [line for f in arguments.files for line in data.text.read_text(f).splitlines()]
        told = [line for line in lines if line.strip()]
        examples = [data.text.Example(classes[0], line) for line in told]  # the label is not read
        inputs = data.text.labelled_dataset(examples, codec, shape[0], classes).inputs
    run = jax.jit(lambda x: softmax(apply(net, params, state, x)[0]))
    for one, probabilities in zip(told, np.asarray(run(inputs)), strict=True):
        best = int(probabilities.argmax())
        if arguments.json:
            kind = "file" if codec is None else "text"
            found = dict(zip(classes, probabilities.tolist(), strict=True))
            print(json.dumps({kind: one, "class": classes[best], "probabilities": found}))
        else:
            print(f"{one}: {classes[best]} ({100 * probabilities[best]:.1f} %)")
    return 0


def generate(arguments: argparse.Namespace) -> int:
    """Go on with a prompt by a trained language model."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxd2l import generation, train

    net, params, state, meta = train.load(arguments.checkpoint)
    codec = _stored_codec(meta)
    if codec is None or meta.get("settings", {}).get("task") != "language":
        raise Refused(f"{arguments.checkpoint}: generate needs a language model of jaxd2l train")
    tokens = codec.encode(arguments.prompt)
    if len(tokens) == 0:
        raise Refused("--prompt is empty; give at least one token to start from")
    unknown = int((tokens == 0).sum()) if arguments.prompt else 0
    if unknown:
        print(f"jaxd2l: {unknown} tokens of the prompt are unknown to the model", file=sys.stderr)
    made = generation.generate(
        net,
        params,
        state,
        jnp.tile(jnp.asarray(tokens), (arguments.samples, 1)),
        arguments.length,
        key=jax.random.key(arguments.seed),
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
    )
    for row in np.asarray(made):
        print(codec.decode(np.concatenate([tokens, row])))
    return 0
