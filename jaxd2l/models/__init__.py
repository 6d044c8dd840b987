"""Networks by name: the published ones here, the book's in `d2l`, their parts in `blocks`.

The published ones equal torchvision's where it has them. Each function returns a network; the
number of input channels is that of the input at `init`.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from jaxd2l.layers import Layer
from jaxd2l.models import auxiliary as auxiliary
from jaxd2l.models import blocks as blocks
from jaxd2l.models import d2l as d2l
from jaxd2l.models.alexnet import alexnet as alexnet
from jaxd2l.models.colornet import colornet as colornet
from jaxd2l.models.densenet import densenet121 as densenet121
from jaxd2l.models.densenet import densenet161 as densenet161
from jaxd2l.models.densenet import densenet169 as densenet169
from jaxd2l.models.densenet import densenet201 as densenet201
from jaxd2l.models.erfnet import erfnet as erfnet
from jaxd2l.models.googlenet import googlenet as googlenet
from jaxd2l.models.googlenet import googlenet_auxiliary as googlenet_auxiliary
from jaxd2l.models.highway import highway as highway
from jaxd2l.models.highway import highway_cnn as highway_cnn
from jaxd2l.models.igc import igc as igc
from jaxd2l.models.inception import inception_v3 as inception_v3
from jaxd2l.models.inception import inception_v3_auxiliary as inception_v3_auxiliary
from jaxd2l.models.language import gpt as gpt
from jaxd2l.models.language import gru_lm as gru_lm
from jaxd2l.models.language import lstm_lm as lstm_lm
from jaxd2l.models.language import rnn_lm as rnn_lm
from jaxd2l.models.lenet import lenet as lenet
from jaxd2l.models.mlp import mlp as mlp
from jaxd2l.models.mobilenet import mobilenet_v1 as mobilenet_v1
from jaxd2l.models.mobilenet import mobilenet_v2 as mobilenet_v2
from jaxd2l.models.nin import nin as nin
from jaxd2l.models.regression import linear_regression as linear_regression
from jaxd2l.models.regression import logistic_regression as logistic_regression
from jaxd2l.models.regression import polynomial_regression as polynomial_regression
from jaxd2l.models.regression import softmax_regression as softmax_regression
from jaxd2l.models.resnet import resnet18 as resnet18
from jaxd2l.models.resnet import resnet34 as resnet34
from jaxd2l.models.resnet import resnet50 as resnet50
from jaxd2l.models.resnet import resnet101 as resnet101
from jaxd2l.models.resnet import resnet152 as resnet152
from jaxd2l.models.resnet import resnet_v2 as resnet_v2
from jaxd2l.models.resnet import resnext50_32x4d as resnext50_32x4d
from jaxd2l.models.resnet import wide_resnet50_2 as wide_resnet50_2
from jaxd2l.models.shufflenet import shufflenet_v1 as shufflenet_v1
from jaxd2l.models.shufflenet import shufflenet_v2 as shufflenet_v2
from jaxd2l.models.squeezenet import squeezenet1_0 as squeezenet1_0
from jaxd2l.models.squeezenet import squeezenet1_1 as squeezenet1_1
from jaxd2l.models.text import bilstm as bilstm
from jaxd2l.models.text import textcnn as textcnn
from jaxd2l.models.vgg import vgg11 as vgg11
from jaxd2l.models.vgg import vgg13 as vgg13
from jaxd2l.models.vgg import vgg16 as vgg16
from jaxd2l.models.vgg import vgg19 as vgg19
from jaxd2l.models.xception import xception as xception
from jaxd2l.models.zf5 import zf5 as zf5

_PUBLISHED: tuple[Callable[..., Layer], ...] = (
    alexnet,
    bilstm,
    colornet,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
    erfnet,
    googlenet,
    gpt,
    gru_lm,
    highway,
    highway_cnn,
    igc,
    inception_v3,
    lenet,
    linear_regression,
    logistic_regression,
    lstm_lm,
    mlp,
    mobilenet_v1,
    mobilenet_v2,
    nin,
    polynomial_regression,
    resnet101,
    resnet152,
    resnet18,
    resnet34,
    resnet50,
    resnet_v2,
    resnext50_32x4d,
    rnn_lm,
    shufflenet_v1,
    shufflenet_v2,
    softmax_regression,
    squeezenet1_0,
    squeezenet1_1,
    textcnn,
    vgg11,
    vgg13,
    vgg16,
    vgg19,
    wide_resnet50_2,
    xception,
    zf5,
)
_BOOK: tuple[Callable[..., Layer], ...] = (
    d2l.alexnet,
    d2l.densenet,
    d2l.googlenet,
    d2l.nin,
    d2l.resnet18,
    d2l.vgg,
)
_MODELS = {f.__name__: f for f in _PUBLISHED} | {f"d2l.{f.__name__}": f for f in _BOOK}
_INPUTS: dict[str, tuple[int, ...]] = {
    "bilstm": (32,),
    "colornet": (32, 32, 3),
    "d2l.alexnet": (224, 224, 1),
    "d2l.densenet": (96, 96, 1),
    "d2l.googlenet": (96, 96, 1),
    "d2l.nin": (224, 224, 1),
    "d2l.resnet18": (96, 96, 1),
    "d2l.vgg": (224, 224, 1),
    "erfnet": (512, 1024, 3),
    "gpt": (128,),
    "gru_lm": (32,),
    "highway": (28, 28, 1),
    "highway_cnn": (28, 28, 1),
    "igc": (32, 32, 3),
    "inception_v3": (299, 299, 3),
    "lenet": (28, 28, 1),
    "linear_regression": (2,),
    "logistic_regression": (4,),
    "lstm_lm": (32,),
    "mlp": (28, 28, 1),
    "polynomial_regression": (1,),
    "rnn_lm": (32,),
    "softmax_regression": (28, 28, 1),
    "textcnn": (32,),
    "xception": (299, 299, 3),
}
_IMAGENET = (224, 224, 3)


def names() -> tuple[str, ...]:
    """The names that `build` knows, sorted.

    Example:
      >>> "resnet18" in names(), "d2l.resnet18" in names()
      (True, True)
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


def input_shape(name: str) -> tuple[int, ...]:
    """The size of one input that the network was published with, without the batch axis.

    Many take other sizes too. Regressions take any number of features; theirs are small.

    Raises:
      ValueError: there is no network of that name.

    Example:
      >>> input_shape("inception_v3"), input_shape("d2l.resnet18")
      ((299, 299, 3), (96, 96, 1))
    """
    _find(name)
    return _INPUTS.get(name, _IMAGENET)


def description(name: str) -> str:
    """One line about the network: the first of its docstring.

    Example:
      >>> description("logistic_regression")
      'One logit z = x w + b of a flattened input; the probability is sigmoid(z).'
    """
    return (inspect.getdoc(_find(name)) or "").splitlines()[0]


def _find(name: str) -> Callable[..., Layer]:
    if name not in _MODELS:
        near = difflib.get_close_matches(str(name), names(), cutoff=0.7)
        told = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names())}"
        raise ValueError(f"there is no network {name!r}; {told}")
    return _MODELS[name]
