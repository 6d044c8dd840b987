"""How `jaxd2l train NAME` trains each network: data, loss, optimiser and their settings.

A recipe is only a set of defaults; the same run is a few lines over `jaxd2l.train.fit`.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jaxd2l import data
from jaxd2l.ops import losses
from jaxd2l.train.step import Loss, Metrics, default_metrics


def binary_correct(logits: Any, targets: Any) -> Any:
    """True where the sign of one logit says what the target (0 or 1) is: (n, 1) -> (n,).

    Example:
      >>> binary_correct(jnp.array([[2.0], [-1.0]]), jnp.array([[1.0], [1.0]])).tolist()
      [1.0, 0.0]
    """
    return ((logits > 0) == (targets > 0.5)).astype(jnp.float32)[:, 0]


OPTIMIZERS: Mapping[str, Callable[[float], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "sgd": optax.sgd,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Defaults of one way to train one network.

    Attributes:
      task: "images" (labels), "binary" (odd or even digits, or two classes of images),
        "linear" and "polynomial" (synthetic regression), "language" (the next token of a text),
        "text" (labelled lines).
      options: arguments of the network's function.
      clip: the largest global norm of a gradient, None for any.
      level: how a text is cut, see `text_recipes.LEVELS`.
      length: tokens of one example.
    """

    task: str
    options: Mapping[str, Any]
    optimizer: str
    learning_rate: float
    epochs: int
    batch_size: int
    clip: float | None = None
    level: str | None = None
    length: int | None = None


_IMAGES = Recipe("images", {}, "adam", 1e-3, 20, 64)
_LANGUAGE = Recipe(
    "language", {"features": 128}, "adam", 5e-3, 5, 32, clip=1.0, level="letters", length=64
)
_TEXT = Recipe("text", {}, "adam", 1e-3, 10, 64, level="word", length=64)

#: By network, then by name of the recipe; "default" first.
RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "lenet": {
        "default": Recipe("images", {}, "adam", 2e-3, 20, 64),
        "book": Recipe("images", {"activation": "sigmoid", "pooling": "avg"}, "adam", 5e-3, 40, 64),
    },
    "mlp": {
        "default": _IMAGES,
        "book": Recipe("images", {}, "sgd", 0.1, 20, 64),
    },
    "softmax_regression": {"default": Recipe("images", {}, "sgd", 0.1, 20, 64)},
    "logistic_regression": {"default": Recipe("binary", {}, "sgd", 0.1, 20, 64)},
    "linear_regression": {"default": Recipe("linear", {}, "sgd", 0.03, 3, 10)},
    "polynomial_regression": {"default": Recipe("polynomial", {}, "momentum", 0.01, 100, 10)},
    "rnn_lm": {"default": _LANGUAGE},
    "gru_lm": {"default": _LANGUAGE},
    "lstm_lm": {"default": _LANGUAGE},
    "gpt": {
        "default": dataclasses.replace(
            _LANGUAGE, options={"positions": "rotary"}, learning_rate=2e-3, length=128
        ),
    },
    "textcnn": {"default": _TEXT},
    "bilstm": {"default": _TEXT},
}


def optimizer_of(
    name: str, learning_rate: float, clip: float | None = None
) -> optax.GradientTransformation:
    """The optimiser of a recipe, after clipping the gradient's global norm where asked to.

    Example:
      >>> optimizer, gradient = optimizer_of("sgd", 1.0, clip=1.0), jnp.array([3.0, 4.0])
      >>> print(optimizer.update(gradient, optimizer.init(gradient))[0])
      [-0.6 -0.8]
    """
    optimizer = OPTIMIZERS[name](learning_rate)
    return optimizer if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimizer)


def recipe(network: str, name: str = "default") -> Recipe:
    """The recipe of a network.

    Raises:
      ValueError: the network has no recipe of that name.

    Example:
      >>> recipe("lenet", "book").options
      {'activation': 'sigmoid', 'pooling': 'avg'}
    """
    known = RECIPES.get(network, {"default": _IMAGES})
    if name not in known:
        raise ValueError(
            f"the network {network!r} has no recipe {name!r}; it has {', '.join(known)}"
        )
    return known[name]


def loss_of(task: str) -> Loss:
    """The loss that a task is trained with.

    Example:
      >>> loss_of("images").__name__
      'softmax_cross_entropy'
    """
    if task in ("images", "language", "text"):
        return losses.softmax_cross_entropy
    return losses.sigmoid_cross_entropy if task == "binary" else losses.squared_loss


def metrics_of(task: str, targets: Any) -> Metrics:
    """The metrics that a task is judged by, besides its loss.

    Example:
      >>> list(metrics_of("images", np.array([3, 1])))
      ['accuracy']
    """
    return {"accuracy": binary_correct} if task == "binary" else default_metrics(targets)


def load_data(
    task: str,
    path: str | os.PathLike[str] | None = None,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    hold_out: int | None = None,
) -> data.Parts:
    """Training and test data of a task; `path` as in `data.load`, None for the bundled data.

    Raises:
      ValueError: a path for a task that makes its own data, or what `data.load` refuses.

    Example:
      >>> [len(part) for part in load_data("linear")]
      [800, 200]
    """
    if task in ("linear", "polynomial"):
        if path is not None or size is not None or channels is not None:
            raise ValueError(f"the task {task!r} makes its own data; it takes no folder of images")
        if task == "linear":
            made = data.synthetic_linear(0)
        else:
            features, _ = data.synthetic_polynomial(0)
            made = data.Dataset(features.inputs[:, 1:2], features.targets)  # x itself
        return data.hold_out_last(made, len(made) // 5 if hold_out is None else hold_out)
    parts = data.load(path, size=size, channels=channels, hold_out=hold_out)
    if task == "images":
        return parts
    return data.Parts(*(part and _binary(part, path is None) for part in parts))


def _binary(part: data.Dataset, odd: bool) -> data.Dataset:
    if not odd and len(part.classes or ()) != 2:
        raise ValueError(
            f"logistic regression needs data of two classes, got {len(part.classes or ())}"
        )
    labels = part.targets % 2 if odd else part.targets
    return data.Dataset(part.inputs, labels[:, None].astype(np.float32))
