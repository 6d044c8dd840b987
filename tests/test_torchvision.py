"""Our networks are torchvision's: the same keys and shapes, outputs and running statistics.

The golden file holds what torchvision's networks gave in float64; weights and images are drawn here
again (see golden/make_torchvision.py). Dropout is off on both sides.
"""

import dataclasses
import functools
import itertools
import math
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import layers, summarize
from jaxd2l.interop import torch as bridge
from jaxd2l.models import auxiliary
from jaxd2l.models.alexnet import alexnet
from jaxd2l.models.densenet import densenet, densenet121, densenet161, densenet169, densenet201
from jaxd2l.models.googlenet import googlenet, googlenet_auxiliary
from jaxd2l.models.inception import inception_v3, inception_v3_auxiliary
from jaxd2l.models.mobilenet import mobilenet_v2
from jaxd2l.models.resnet import (
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    wide_resnet50_2,
)
from jaxd2l.models.shufflenet import shufflenet_v2
from jaxd2l.models.squeezenet import squeezenet1_0, squeezenet1_1
from jaxd2l.models.vgg import vgg, vgg11, vgg13, vgg16, vgg19
from jaxd2l.records import is_record

GOLDEN = Path(__file__).parent / "golden"
MAKE = runpy.run_path(str(GOLDEN / "make_torchvision.py"))
CASES = MAKE["CASES"]
WIDTHS = {f"shufflenet_v2_x{width}".replace(".", "_"): width for width in (0.5, 1.0, 1.5, 2.0)}

#: Functions of the number of classes.
OURS = {
    "alexnet": alexnet,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "alexnet narrow": functools.partial(alexnet, hidden=32),
    "vgg11 narrow": functools.partial(vgg, (1, 1, 2, 2, 2), hidden=32),
    "vgg13 narrow": functools.partial(vgg, (2, 2, 2, 2, 2), hidden=32),
    "vgg16 narrow": functools.partial(vgg, (2, 2, 3, 3, 3), hidden=32),
    "vgg19 narrow": functools.partial(vgg, (2, 2, 4, 4, 4), hidden=32),
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "resnext50_32x4d": resnext50_32x4d,
    "wide_resnet50_2": wide_resnet50_2,
    "densenet small": functools.partial(densenet, (2, 3), growth=8, features=16),
    "densenet121": densenet121,
    "densenet161": densenet161,
    "densenet169": densenet169,
    "densenet201": densenet201,
    "googlenet": googlenet,
    "googlenet heads": googlenet_auxiliary,
    "inception_v3": inception_v3,
    "inception_v3 heads": inception_v3_auxiliary,
    "mobilenet_v2 small": functools.partial(mobilenet_v2, blocks=MAKE["BLOCKS"]),
    "mobilenet_v2": mobilenet_v2,
    **{name: functools.partial(shufflenet_v2, width=width) for name, width in WIDTHS.items()},
    "squeezenet1_0": squeezenet1_0,
    "squeezenet1_1": squeezenet1_1,
}
#: With 3 input channels and 1000 classes, as torchvision states them.
COUNTS = {
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "googlenet": 6_624_904,
    "inception_v3": 23_834_568,
    "mobilenet_v2": 3_504_872,
    "shufflenet_v2_x0_5": 1_366_792,
    "shufflenet_v2_x1_0": 2_278_604,
    "shufflenet_v2_x1_5": 3_503_624,
    "shufflenet_v2_x2_0": 7_393_996,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
}
#: Relative errors: of the outputs to the largest, of a statistic to the mean size of its channels.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
#: One of each family; torchvision's GoogLeNet and Inception cannot be made smaller.
SMALL = [
    *("alexnet narrow", "vgg11 narrow", "resnet18", "densenet small"),
    *("mobilenet_v2 small", "shufflenet_v2_x0_5", "squeezenet1_1"),
]
QUICK = [
    *itertools.product(SMALL, TOLERANCE),
    *(("googlenet", "float64"), ("inception_v3", "float32")),
]
#: Rounding errors grow with the depth: in float32 only a deep one of a family beside the quick.
DEEP = [
    *("alexnet", "vgg19 narrow", "resnet152", "densenet121", "inception_v3 heads"),
    *("mobilenet_v2", "shufflenet_v2_x2_0", "squeezenet1_0"),
]
RUNS = [*QUICK, *itertools.product(DEEP, TOLERANCE)]
RUNS += [
    (name, "float64")
    for name in CASES
    if (name, "float64") not in RUNS and name != "inception_v3"  # it is inside the one with heads
]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "torchvision.npz") as file:
        return dict(file)


def shape_of(name):
    return CASES[name].size, CASES[name].size, 3


def without_dropout(value):
    """The same network with every rate 0."""
    if isinstance(value, layers.Dropout):
        return dataclasses.replace(value, rate=0.0)
    if isinstance(value, tuple):
        return tuple(map(without_dropout, value))
    if not is_record(value):
        return value
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **{k: without_dropout(v) for k, v in fields.items()})


@pytest.mark.parametrize("name", CASES)
def test_keys_and_shapes_are_torchvisions(name, golden):
    count, digest = golden[f"{name} keys"]
    found = bridge.shapes(OURS[name.removesuffix(" narrow")](1000), shape_of(name))
    assert len(found) == int(count)
    assert MAKE["digest"](found) == digest


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in SMALL else pytest.mark.slow) for n in CASES]
)
def test_weights_come_back_bit_for_bit(name):
    """Any bits at all, NaNs included."""
    net, random = OURS[name](10), np.random.RandomState(0)
    given = {
        key: np.frombuffer(random.bytes(2 * math.prod(shape)), np.float16).reshape(shape)
        for key, shape in bridge.shapes(net, shape_of(name)).items()
        if shape
    }
    back = bridge.export(net, *bridge.load(net, given))
    assert {key for key in back if not key.endswith("num_batches_tracked")} == given.keys()
    assert all(back[key].tobytes() == given[key].tobytes() for key in given)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_counted_as_torchvision_states_them(name):
    size = 299 if name == "inception_v3" else 224
    assert summarize(OURS[name](), (size, size, 3)).parameters == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [pytest.param(*run, marks=() if run in QUICK else pytest.mark.slow) for run in RUNS],
)
def test_outputs_and_statistics_are_torchvisions(name, dtype, golden):
    """One training pass, then one in evaluation with the statistics that it left."""
    case, tolerance, shape = CASES[name], TOLERANCE[dtype], shape_of(name)
    net = without_dropout(OURS[name](MAKE["CLASSES"]))
    apply = auxiliary.apply if case.heads else layers.apply
    given = {
        key: value.astype(dtype) if value.ndim else value
        for key, value in MAKE["weights"](bridge.shapes(net, shape)).items()
    }

    def passes(params, state, x):
        trained, state = apply(net, params, state, x, train=True)
        y = apply(net, params, state, x)[0]
        return jnp.stack(trained) if case.heads else trained[None], y[0] if case.heads else y, state

    # Without optimisation XLA compiles these in half the time; they run only once.
    quickly = {"xla_backend_optimization_level": 0}
    with jax.enable_x64(dtype == "float64"):
        params, state = bridge.load(net, given, shape)
        x = jnp.asarray(MAKE["images"](case), dtype)
        trained, y, state = jax.jit(passes, compiler_options=quickly)(params, state, x)
        new = bridge.export(net, params, state, shape)
    for got, what in ((trained, "train"), (y, "eval")):
        wanted = golden[f"{name} {what}"]
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    statistics = {k: new[k].astype(np.float64) for k in sorted(new) if MAKE["is_statistic"](k)}
    sizes = np.array([np.sqrt(np.mean(value**2)) for value in statistics.values()])
    found, wanted = MAKE["projections"](statistics), golden[f"{name} statistics"]
    assert found.shape == wanted.shape
    assert np.all(np.abs(found - wanted) <= tolerance * sizes)
