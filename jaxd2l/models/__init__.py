"""The published networks: functions that return a network."""

import inspect
from collections.abc import Callable
from typing import Any

from jaxd2l.layers import Layer
from jaxd2l.models.lenet import lenet as lenet
from jaxd2l.models.mlp import mlp as mlp
from jaxd2l.models.regression import linear_regression as linear_regression
from jaxd2l.models.regression import logistic_regression as logistic_regression
from jaxd2l.models.regression import polynomial_regression as polynomial_regression
from jaxd2l.models.regression import softmax_regression as softmax_regression

_MODELS: dict[str, Callable[..., Layer]] = {
    "lenet": lenet,
    "linear_regression": linear_regression,
    "logistic_regression": logistic_regression,
    "mlp": mlp,
    "polynomial_regression": polynomial_regression,
    "softmax_regression": softmax_regression,
}


def names() -> tuple[str, ...]:
    """The names that `build` knows, sorted.

    Example:
      >>> "lenet" in names()
      True
    """
    return tuple(sorted(_MODELS))


def options(name: str) -> dict[str, Any]:
    """The options of a network and their defaults.

    Raises:
      ValueError: there is no network of that name.

    Example:
      >>> options("mlp")
      {'hidden': (256,), 'num_classes': 10, 'activation': 'relu', 'dropout': ()}
    """
    parameters = inspect.signature(_find(name)).parameters.values()
    return {p.name: p.default for p in parameters}


def build(name: str, **given: Any) -> Layer:
    """The network of that name; `given` are the arguments of its function.

    Raises:
      ValueError: there is no network of that name, or it has no such option.

    Example:
      >>> build("lenet", activation="sigmoid", pooling="avg") == lenet(10, "sigmoid", "avg")
      True
    """
    function = _find(name)
    unknown = sorted(set(given) - set(options(name)))
    if unknown:
        raise ValueError(
            f"the network {name!r} has no option {unknown[0]!r}; it has {sorted(options(name))}"
        )
    return function(**given)


def description(name: str) -> str:
    """One line about the network: the first of its docstring.

    Example:
      >>> description("logistic_regression")
      'One logit z = x w + b of a flattened input; the probability is sigmoid(z).'
    """
    return (inspect.getdoc(_find(name)) or "").splitlines()[0]


def _find(name: str) -> Callable[..., Layer]:
    if name not in _MODELS:
        raise ValueError(f"there is no network {name!r}; the names are {', '.join(names())}")
    return _MODELS[name]
