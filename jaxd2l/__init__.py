"""jaxd2l: deep learning as pure functions over parameter pytrees.

A network is data, and everything else is a function of it::

    net = models.lenet()
    params, state = jaxd2l.init(net, key, (28, 28, 1))
    y, state = jaxd2l.apply(net, params, state, x)
    print(jaxd2l.summarize(net, (28, 28, 1)))
"""

from jaxd2l import geometry as geometry
from jaxd2l import layers as layers
from jaxd2l import models as models
from jaxd2l.analysis import summarize as summarize
from jaxd2l.layers.interpreters import apply as apply
from jaxd2l.layers.interpreters import init as init
from jaxd2l.layers.interpreters import output_shape as output_shape

__version__ = "0.1.0"
