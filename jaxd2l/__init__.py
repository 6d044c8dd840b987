"""jaxd2l: deep learning as pure functions over parameter pytrees.

A network is data, and everything else is a function of it::

    net = models.lenet()
    params, state = jaxd2l.init(net, key, (28, 28, 1))
    y, state = jaxd2l.apply(net, params, state, x)
    print(jaxd2l.summarize(net, (28, 28, 1)))
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from jaxd2l import geometry as geometry
from jaxd2l import layers as layers
from jaxd2l import models as models
from jaxd2l import ops as ops
from jaxd2l.analysis import summarize as summarize
from jaxd2l.layers import apply as apply
from jaxd2l.layers import init as init
from jaxd2l.layers import output_shape as output_shape

if TYPE_CHECKING:
    from jaxd2l import checkpoint as checkpoint
    from jaxd2l import data as data
    from jaxd2l import interop as interop
    from jaxd2l import optim as optim
    from jaxd2l import plot as plot
    from jaxd2l import testing as testing
    from jaxd2l import train as train

__version__ = "0.1.0"

# Imported when first used, so that `import jaxd2l` costs little more than `import jax`.
_LATER = ("checkpoint", "data", "interop", "optim", "plot", "testing", "train")


def __getattr__(name: str) -> ModuleType:
    if name in _LATER:
        return importlib.import_module(f"jaxd2l.{name}")
    raise AttributeError(f"module 'jaxd2l' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
