"""The library's own networks: the fields of the jaxpr are those of the summary."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import jaxd2l
from jaxd2l import models
from jaxd2l.analysis import receptive_field
from jaxd2l.layers import Serial

FAMILIES = [
    "alexnet", "d2l.alexnet", "d2l.densenet", "d2l.googlenet", "d2l.nin",
    "d2l.resnet18", "d2l.vgg", "erfnet", "googlenet", "highway_cnn", "igc", "lenet",
    "mobilenet_v1", "resnet18", "resnext50_32x4d", "shufflenet_v1", "shufflenet_v2",
    "squeezenet1_1", "vgg11", "xception", "zf5",
]  # fmt: skip
LARGEST = ["resnet152", "densenet201", "inception_v3"]


def last_map(name: str) -> Any:
    """The network up to the last feature map whose units do not all see everything."""
    net, shape = models.build(name), models.input_shape(name)
    children = list(net.layers)
    while children:
        row = jaxd2l.summarize(Serial(children), shape).rows[-1]
        if row.receptive_field is not None and len(row.output_shape) == len(shape):
            return Serial(children), shape, row
        children.pop()
    raise AssertionError(f"{name} has no feature map")


def as_function(net: Any, shape: tuple[int, ...]) -> Callable[[jax.Array], jax.Array]:
    """The network as a function of a batch; zeros for parameters, that take no memory."""
    made = jax.eval_shape(lambda key: jaxd2l.init(net, key, shape), jax.random.key(0))
    params, state = jax.tree.map(lambda a: np.broadcast_to(np.float32(0), a.shape), made)
    return lambda x: jaxd2l.apply(net, params, state, x)[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_jaxpr_sees_what_the_summary_says(name: str) -> None:
    net, shape, row = last_map(name)
    fields = receptive_field(as_function(net, shape), (1, *shape))
    assert tuple(field.size for field in fields) == row.receptive_field
    assert tuple(field.jump for field in fields) == row.jump
    assert tuple(field.start for field in fields) == row.start


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_take_under_two_seconds(name: str) -> None:
    net, shape, row = last_map(name)
    f = as_function(net, shape)
    begin = time.process_time()
    fields = receptive_field(f, (1, *shape))
    took = time.process_time() - begin
    assert tuple(field.size for field in fields) == row.receptive_field
    assert tuple(field.jump for field in fields) == row.jump
    assert tuple(field.start for field in fields) == row.start
    assert took < 2


@pytest.mark.parametrize("name", ["lenet", "resnet18", "mlp", "d2l.googlenet"])
def test_a_whole_network_sees_the_whole_image(name: str) -> None:
    net, shape = models.build(name), models.input_shape(name)
    fields = receptive_field(as_function(net, shape), (1, *shape))
    assert [(f.size, f.jump, f.start) for f in fields] == [(n, 0, 0) for n in shape[:-1]]
