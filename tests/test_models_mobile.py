"""Mobile networks: counts, what their blocks compute, what separable and grouped forms save."""

import dataclasses
import math
import zlib
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers
from jaxd2l.models.blocks import (
    fire,
    inverted_residual,
    make_divisible,
    separable,
    separable_norm,
    shuffle_unit,
    shuffle_unit_v2,
)
from jaxd2l.models.mobilenet import mobilenet_v1, mobilenet_v2
from jaxd2l.models.shufflenet import V1, shufflenet_v1, shufflenet_v2
from jaxd2l.models.squeezenet import squeezenet1_0, squeezenet1_1
from jaxd2l.models.xception import xception

FAST = {"xla_backend_optimization_level": 0}  # to compile: every program runs once
GOLDEN = Path(__file__).parent / "golden" / "keras.npz"
IMAGE = (224, 224, 3)


def counts(net, shape=IMAGE):
    """Parameters, statistics and multiply-adds, from what the layers declare."""
    params = stats = macs = 0
    for _, layer, size, _ in layers.walk(net, shape):
        params += sum(math.prod(p.shape) for p in layer.parameters(size).values())
        stats += sum(math.prod(p.shape) for p in layer.statistics(size).values())
        macs += layer.macs(size)
    return params, stats, macs


def sizes(net, shape=IMAGE):
    return {step.path: step.output_shape for step in layers.walk(net, shape)}


def millions(number):
    return round(number / 1e6)


# M17, M18: counts against torchvision, Keras and the papers


def test_mobilenet_v1_at_every_width():
    """Howard et al. 2017, table 6 (millions); Keras counts 4,231,976 trained parameters, and
    21,888 statistics of its norms."""
    table = {1.0: (4.2, 569), 0.75: (2.6, 325), 0.5: (1.3, 149), 0.25: (0.5, 41)}
    for width, (parameters, macs) in table.items():
        count, _, products = counts(mobilenet_v1(width=width))
        assert (round(count / 1e6, 1), millions(products)) == (parameters, macs)
    assert counts(mobilenet_v1())[:2] == (4_231_976, 21_888)


def test_mobilenet_v2():
    """torchvision: 3,504,872 and 0.301 billion; Sandler et al. 2018, table 4: 3.4M and 300M."""
    count, _, products = counts(mobilenet_v2())
    assert count == 3_504_872
    assert round(products / 1e9, 3) == 0.301
    seen = sizes(mobilenet_v2())
    assert seen["block1/project/bn"] == (112, 112, 16)
    assert seen["block17/project/bn"] == (7, 7, 320)
    assert seen["head/conv"] == (7, 7, 1280)
    # Widths above 1 widen the end as well; below 1 they do not narrow it.
    assert sizes(mobilenet_v2(width=0.35))["head/conv"] == (7, 7, 1280)
    assert sizes(mobilenet_v2(width=1.4))["head/conv"] == (7, 7, 1792)


def test_xception():
    """Keras: 22,855,952 trained parameters, 54,528 statistics; 8.4 billion multiply-adds in table
    2 of Tan and Le 2019 (arXiv:1905.11946)."""
    net, shape = xception(), (299, 299, 3)
    count, statistics, products = counts(net, shape)
    assert (count, statistics) == (22_855_952, 54_528)
    assert round(products / 1e9, 1) == 8.4
    seen = sizes(net, shape)
    assert [seen[f"entry{i}/max_pool"] for i in (1, 2, 3)] == [
        (74, 74, 128),
        (37, 37, 256),
        (19, 19, 728),
    ]
    assert seen["middle[7]/bn3"] == (19, 19, 728)
    assert seen["exit/max_pool"] == (10, 10, 1024)
    assert seen["bn2"] == (10, 10, 2048)
    weighted = [p for p in seen if p.endswith(("conv", "pointwise")) and "shortcut" not in p]
    assert len(weighted) == 36
    shapes = jax.eval_shape(lambda key: jaxd2l.init(net, key, shape)[0], jax.random.key(0))
    assert shapes["middle"]["separable1"]["depthwise"]["kernel"].shape == (8, 3, 3, 1, 728)


@pytest.mark.parametrize(("groups", "macs"), [(1, 143), (2, 140), (3, 137), (4, 133), (8, 137)])
def test_shufflenet_v1(groups, macs):
    """Zhang et al. 2018, table 1: millions of multiply-adds, the last layer left out."""
    net = shufflenet_v1(groups=groups)
    last = 4 * V1[groups] * 1000
    assert millions(counts(net)[2] - last) == macs
    seen = sizes(net)
    assert [seen[f"stage{i}/unit1/relu"][0] for i in (2, 3, 4)] == [28, 14, 7]
    assert [s for s in seen if s.endswith("unit8/relu")] == ["stage3/unit8/relu"]


def test_parameters_of_shufflenet_v1():
    """The authors' code says 1.9 million with 3 groups and 2.4 with 8, with no bias at the end."""
    assert counts(shufflenet_v1())[0] == 1_865_728
    assert counts(shufflenet_v1(groups=8))[0] == 2_434_768


@pytest.mark.parametrize(
    ("width", "parameters", "macs", "paper"),
    [
        (0.5, 1_366_792, 0.040, 41),
        (1.0, 2_278_604, 0.145, 146),
        (1.5, 3_503_624, 0.296, 299),
        (2.0, 7_393_996, 0.583, 591),
    ],
)
def test_shufflenet_v2(width, parameters, macs, paper):
    """torchvision's parameters and billions of multiply-adds; Ma et al. 2018 count about 1 % more
    of them."""
    count, _, products = counts(shufflenet_v2(width=width))
    assert count == parameters
    assert round(products / 1e9, 3) == macs
    assert products / 1e6 == pytest.approx(paper, rel=0.015)


def test_squeezenet():
    """torchvision's parameters and billions of multiply-adds; its pools round 54 up to 27."""
    old, new = squeezenet1_0(), squeezenet1_1()
    assert counts(old)[0] == 1_248_424
    assert counts(new)[0] == 1_235_496
    assert [round(counts(net)[2] / 1e9, 3) for net in (old, new)] == [0.819, 0.349]
    assert [sizes(old)[p][0] for p in ("conv1", "fire2/squeeze", "fire5/squeeze", "output")] == [
        109,
        54,
        27,
        13,
    ]
    assert [sizes(new)[p][0] for p in ("conv1", "fire2/squeeze", "fire4/squeeze", "output")] == [
        111,
        55,
        27,
        13,
    ]
    assert jaxd2l.output_shape(old, IMAGE) == (1000,)


def test_every_network_takes_the_classes_and_ends_in_output():
    makers = (
        mobilenet_v1,
        mobilenet_v2,
        shufflenet_v1,
        shufflenet_v2,
        squeezenet1_0,
        squeezenet1_1,
        xception,
    )
    for make in makers:
        steps = [s for s in layers.walk(make(7), (96, 96, 1)) if s.layer.parameters(s.input_shape)]
        assert steps[-1].path == "output"
        assert steps[-1].output_shape[-1] == 7
        assert steps[0].input_shape == (96, 96, 1)


def test_where_units_are_dropped():
    rates = {
        "mobilenet_v1": (mobilenet_v1(), 0.001),
        "mobilenet_v2": (mobilenet_v2(), 0.2),
        "squeezenet1_0": (squeezenet1_0(), 0.5),
        "xception": (xception(), 0.5),
    }
    for net, rate in rates.values():
        found = [layer for layer in net.layers if isinstance(layer, layers.Dropout)]
        assert [layer.rate for layer in found] == [rate]
        after = net.layers[net.layers.index(found[0]) + 1]
        assert after.name == "output"


def test_what_the_builders_refuse():
    with pytest.raises(ValueError, match=r"groups must be one of \[1, 2, 3, 4, 8\], got 5"):
        shufflenet_v1(groups=5)
    with pytest.raises(ValueError, match=r"width must be one of .*, got 3"):
        shufflenet_v2(width=3)
    for unit in (
        lambda c, f, s: shuffle_unit("u", c, f, 2, s),
        lambda c, f, s: shuffle_unit_v2("u", c, f, s),
    ):
        with pytest.raises(ValueError, match="stride must be 1 or 2, got 3"):
            unit(8, 8, 3)
        with pytest.raises(ValueError, match="the features must be the 8 channels, got 16"):
            unit(8, 16, 1)
    with pytest.raises(ValueError, match="features must be a multiple of 4, with stride 2 above"):
        shuffle_unit("u", 8, 8, 2, 2)
    with pytest.raises(ValueError, match="features must be even, got 7"):
        shuffle_unit_v2("u", 7, 7)


def test_make_divisible_is_near_and_never_far_below():
    for value in np.linspace(0.1, 300, 500):
        for divisor in (1, 4, 8):
            made = make_divisible(value, divisor)
            assert made % divisor == 0
            assert made >= max(divisor, 0.9 * value)
            multiples = divisor * np.arange(1, 400)
            enough = multiples[multiples >= 0.9 * value]
            assert made == enough[np.argmin(np.abs(enough - value) - 1e-6 * enough)]


# F11, C134: what the cheap forms save


@pytest.mark.parametrize(("kernel", "features"), [(3, 256), (3, 7), (5, 16), (1, 4)])
def test_a_separable_convolution_costs_1_over_features_plus_1_over_the_area(kernel, features):
    """F11, C134: from the summaries of both, for parameters as for multiplications."""
    shape = (9, 9, 12)
    cheap = jaxd2l.summarize(separable("cheap", 12, features, kernel), shape)
    full = jaxd2l.summarize(
        layers.Conv("full", features, kernel, padding="same", bias=False), shape
    )
    want = Fraction(1, features) + Fraction(1, kernel**2)
    assert Fraction(cheap.macs, full.macs) == want
    assert Fraction(cheap.parameters, full.parameters) == want
    if (kernel, features) == (3, 256):
        assert round(float(want), 3) == 0.115


def test_mobilenets_convolutions_cost_what_the_ratio_says():
    """C134: all of its 13 pairs together are between an eighth and a ninth of full ones."""
    cheap = full = 0
    for step in layers.walk(mobilenet_v1(), IMAGE):
        if "depthwise/conv" in step.path:
            channels, out = step.input_shape[-1], step.output_shape
            cheap += step.layer.macs(step.input_shape)
        elif "pointwise/conv" in step.path:
            cheap += step.layer.macs(step.input_shape)
            full += math.prod(out[:2]) * 9 * channels * step.output_shape[-1]
    assert Fraction(1, 9) < Fraction(cheap, full) < Fraction(1, 8)


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_a_convolution_in_groups_costs_1_over_the_groups(groups):
    """F11, L19."""
    costs = [
        jaxd2l.summarize(layers.Conv("conv", 18, 3, groups=g, bias=False), (8, 8, 12))
        for g in (groups, 1)
    ]
    assert Fraction(costs[0].macs, costs[1].macs) == Fraction(1, groups)
    assert Fraction(costs[0].parameters, costs[1].parameters) == Fraction(1, groups)


# What the blocks compute, against NumPy


def np_conv(x, kernel, stride=1, groups=1):
    """Convolution with half padding by its definition: windows times kernels, summed."""
    kh, kw, inner, features = kernel.shape
    pad = kh // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), (1, 2))
    windows = windows[:, ::stride, ::stride]  # (n, h, w, c, kh, kw)
    windows = windows.reshape(*windows.shape[:3], groups, inner, kh, kw)
    kernel = kernel.reshape(kh, kw, inner, groups, features // groups)
    return np.einsum("nhwgcij,ijcgo->nhwgo", windows, kernel).reshape(*windows.shape[:3], features)


def drawn(net, shape):
    """Parameters and statistics that are nowhere 0 or 1; kernels of both signs."""
    rng = np.random.RandomState(1)
    tree = jax.eval_shape(lambda key: jaxd2l.init(net, key, shape), jax.random.key(0))

    def one(a):
        return rng.randn(*a.shape) if len(a.shape) > 1 else rng.uniform(0.3, 1.3, a.shape)

    return jax.tree.map(one, tree)


def run(net, trees, x):
    cast = jax.tree.map(lambda a: np.asarray(a, np.float32), (*trees, x))
    call = jax.jit(lambda *arrays: jaxd2l.apply(net, *arrays)[0], compiler_options=FAST)
    return np.asarray(call(*cast))


class ByHand:
    """The same block from NumPy: `conv_norm` of a part by name, in evaluation."""

    def __init__(self, trees, name):
        self.params, self.state = trees[0][name], trees[1].get(name, {})

    def __call__(self, part, x, bend=None, stride=1, groups=1):
        params, state = self.params, self.state
        for key in part.split("/"):
            params, state = params[key], state[key]
        y = np_conv(x, params["conv"]["kernel"], stride, groups)
        y = (y - state["bn"]["mean"]) / np.sqrt(state["bn"]["var"] + 1e-5)
        y = y * params["bn"]["scale"] + params["bn"]["bias"]
        return {"relu": lambda: y.clip(0), "relu6": lambda: y.clip(0, 6), None: lambda: y}[bend]()


def close(y, want):
    assert y.shape == want.shape
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


X = np.random.RandomState(2).randn(2, 5, 6, 4)


def test_fire():
    net = fire("fire", 3, 2)
    trees = drawn(net, X.shape[1:])
    p = trees[0]["fire"]

    def affine(x, name):
        return (np_conv(x, p[name]["kernel"]) + p[name]["bias"]).clip(0)

    inner = affine(X, "squeeze")
    both = [affine(inner, "expand1x1"), affine(inner, "expand3x3")]
    close(run(net, trees, X), np.concatenate(both, -1))


@pytest.mark.parametrize("stride", [1, 2])
def test_separable_convolutions(stride):
    net = separable("block", 4, 3, 5, stride)
    trees = drawn(net, X.shape[1:])
    p = trees[0]["block"]
    inner = np_conv(X, p["depthwise"]["kernel"], stride, 4)
    close(run(net, trees, X), np_conv(inner, p["pointwise"]["kernel"]))

    net = separable_norm("block", 4, 3, stride)
    trees = drawn(net, X.shape[1:])
    by_hand = ByHand(trees, "block")
    inner = by_hand("depthwise", X, "relu6", stride, 4)
    close(run(net, trees, X), by_hand("pointwise", inner, "relu6"))


@pytest.mark.parametrize(("features", "stride", "expansion"), [(4, 1, 2), (4, 2, 1), (3, 1, 1)])
def test_inverted_residual(features, stride, expansion):
    net = inverted_residual("block", 4, features, stride, expansion)
    trees = drawn(net, X.shape[1:])
    by_hand = ByHand(trees, "block")
    inner = by_hand("expand", X, "relu6") if expansion > 1 else X
    inner = by_hand("depthwise", inner, "relu6", stride, 4 * expansion)
    want = by_hand("project", inner)
    assert want.min() < 0  # no activation at the narrow end
    close(run(net, trees, X), want + X if (features, stride) == (4, 1) else want)


def shuffled(x, groups):
    *rest, c = x.shape
    return x.reshape(*rest, groups, c // groups).swapaxes(-1, -2).reshape(x.shape)


@pytest.mark.parametrize(("stride", "features", "first"), [(1, 8, 0), (2, 24, 1)])
def test_shuffle_unit(stride, features, first):
    x = np.random.RandomState(3).randn(2, 6, 6, 8)
    net = shuffle_unit("unit", 8, features, 2, stride, first)
    trees = drawn(net, x.shape[1:])
    by_hand = ByHand(trees, "unit")
    inner = shuffled(by_hand("compress", x, "relu", groups=first or 2), 2)
    inner = by_hand("depthwise", inner, None, stride, features // 4)
    branch = by_hand("expand", inner, groups=2)
    if stride == 1:
        want = x + branch
    else:
        ones = np.zeros((3, 3, 1, 8)) + 1 / 9
        want = np.concatenate([np_conv(x, ones, 2, 8), branch], -1)
    close(run(net, trees, x), want.clip(0))


@pytest.mark.parametrize("stride", [1, 2])
def test_shuffle_unit_v2(stride):
    net = shuffle_unit_v2("unit", 4, 4 * stride, stride)
    trees = drawn(net, X.shape[1:])
    by_hand = ByHand(trees, "unit")
    if stride == 1:
        passed, inner = X[..., :2], X[..., 2:]
    else:
        other = by_hand("branch1/depthwise", X, None, 2, 4)
        passed, inner = by_hand("branch1/pointwise", other, "relu"), X
    inner = by_hand("branch2/pointwise1", inner, "relu")
    inner = by_hand("branch2/depthwise", inner, None, stride, 2 * stride)
    inner = by_hand("branch2/pointwise2", inner, "relu")
    want = shuffled(np.concatenate([passed, inner], -1), 2)
    y = run(net, trees, X)
    close(y, want)
    np.testing.assert_allclose(y[..., ::2], passed, rtol=1e-4, atol=1e-5)


# Whole networks against Keras


def from_checksums(net, shape):
    """The arrays that make_keras.py draws: each from the checksum of its path."""

    def draw(path, shape):
        rng, leaf = np.random.RandomState(zlib.crc32(path.encode())), path.rsplit("/")[-1]
        if leaf == "var":
            return rng.uniform(0.5, 1.5, shape)
        if leaf == "kernel":
            return rng.randn(*shape) * np.sqrt(1 / np.prod(shape[:-1]))
        return rng.randn(*shape) * 0.1 + (leaf == "scale")

    def fill(path, a):
        path = jax.tree_util.keystr(path, simple=True, separator="/")
        if path.startswith("middle/"):
            each = (path.replace("middle", f"middle[{i}]") for i in range(a.shape[0]))
            return jnp.asarray(np.stack([draw(p, a.shape[1:]) for p in each]), jnp.float32)
        return jnp.asarray(draw(path, a.shape), jnp.float32)

    trees = jax.eval_shape(lambda key: jaxd2l.init(net, key, shape), jax.random.key(0))
    return [jax.tree_util.tree_map_with_path(fill, tree) for tree in trees]


def at_the_end(layer):
    """The network with the padding of 3x3 convolutions of stride 2 at the end only, as Keras."""
    if isinstance(layer, layers.Conv) and layer.kernel == (3, 3) and layer.stride == (2, 2):
        return dataclasses.replace(layer, padding=((0, 1), (0, 1)))
    if isinstance(layer, layers.Serial):
        return dataclasses.replace(layer, layers=[at_the_end(child) for child in layer.layers])
    return layer


@pytest.mark.parametrize(
    ("name", "net", "size"),
    [
        ("mobilenet_v1", at_the_end(mobilenet_v1(10, 0.25)), 64),
        ("xception", xception(10), 71),  # of 71 all that is padded is odd
    ],
)
def test_outputs_equal_those_of_keras(name, net, size):
    shape = (size, size, 3)
    x = jnp.asarray(np.random.RandomState(0).randn(2, *shape), jnp.float32)
    trees = from_checksums(net, shape)
    close(run(net, trees, x), np.load(GOLDEN)[name])
