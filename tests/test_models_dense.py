"""DenseNet, published and the book's: counts, channels, what a block computes, what it costs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers
from jaxd2l.models.blocks import (
    dense_block,
    dense_layer,
    dense_stages,
    plain_dense_layer,
    transition,
)
from jaxd2l.models.d2l import densenet as book_densenet
from jaxd2l.models.densenet import (
    densenet,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
)
from jaxd2l.models.resnet import resnet18, resnet50
from jaxd2l.ops.conv import conv

FAST = {"xla_backend_optimization_level": 0}  # to compile: every program runs once
IMAGE = (224, 224, 3)


def counts(net, shape):
    """Parameters and multiply-adds, from what the layers declare."""
    steps = list(layers.walk(net, shape))
    declared = [p for s in steps for p in s.layer.parameters(s.input_shape).values()]
    macs = sum(s.layer.macs(s.input_shape) for s in steps)
    return sum(math.prod(p.shape) for p in declared), macs


def drawn(net, shape, seed=0):
    """Parameters and statistics that are nowhere 0 or 1; variances stay positive."""
    rng = np.random.RandomState(seed)
    tree = jax.eval_shape(lambda key: jaxd2l.init(net, key, shape), jax.random.key(0))
    return jax.tree.map(lambda a: rng.uniform(0.2, 1.5, a.shape).astype(np.float32), tree)


def draw(*shape):
    return np.random.RandomState(9).randn(*shape).astype(np.float32)


def run(net, *arrays):
    call = jax.jit(lambda *arrays: jaxd2l.apply(net, *arrays)[0], compiler_options=FAST)
    return np.asarray(call(*arrays))


def normed(x, params, state):
    """Batch norm in evaluation and ReLU, by its formula."""
    y = (x - state["mean"]) / np.sqrt(state["var"] + 1e-5) * params["scale"] + params["bias"]
    return np.maximum(y, 0)


# M15: the networks


@pytest.mark.parametrize(
    ("make", "depth", "parameters", "macs"),
    [
        (densenet121, 121, 7_978_856, 2.834),
        (densenet161, 161, 28_681_000, 7.728),
        (densenet169, 169, 14_149_480, 3.360),
        (densenet201, 201, 20_013_928, 4.291),
    ],
)
def test_counts_are_those_of_torchvision(make, depth, parameters, macs):
    """Its documented parameters and billions of multiply-adds."""
    net = make()
    count, products = counts(net, IMAGE)
    assert count == parameters
    assert round(products / 1e9, 3) == macs
    weighted = [s for s in layers.walk(net, IMAGE) if "kernel" in s.layer.parameters(s.input_shape)]
    assert len(weighted) == depth
    assert jaxd2l.output_shape(net, IMAGE) == (1000,)


def test_sizes_of_densenet121():
    """Table 1 of the paper."""
    sizes = {s.path: s.output_shape for s in layers.walk(densenet121(), IMAGE)}
    assert sizes["conv0"] == (112, 112, 64)
    assert sizes["max_pool"] == (56, 56, 64)
    assert sizes["denseblock1/denselayer6/conv1"] == (56, 56, 128)
    assert sizes["transition1/avg_pool"] == (28, 28, 128)
    assert sizes["transition2/avg_pool"] == (14, 14, 256)
    assert sizes["transition3/avg_pool"] == (7, 7, 512)
    assert sizes["denseblock4/denselayer16/conv2"] == (7, 7, 32)
    assert sizes["bn5"] == (7, 7, 1024)


def test_the_books_network():
    """758,226 parameters; channels 64, 192 -> 96, 224 -> 112, 240 -> 120, 248."""
    net = book_densenet()
    assert counts(net, (96, 96, 1))[0] == 758_226
    seen = {s.path: s.output_shape for s in layers.walk(net, (96, 96, 1))}
    assert seen["max_pool"] == (24, 24, 64)
    assert [seen[f"transition{i}/bn"] for i in (1, 2, 3)] == [
        (24, 24, 192),
        (12, 12, 224),
        (6, 6, 240),
    ]
    assert [seen[f"transition{i}/avg_pool"] for i in (1, 2, 3)] == [
        (12, 12, 96),
        (6, 6, 112),
        (3, 3, 120),
    ]
    assert seen["bn5"] == (3, 3, 248)
    assert seen["output"] == (10,)


def test_the_shapes_that_the_book_prints():
    block = dense_block("block", [plain_dense_layer(f"denselayer{i}", 10) for i in (1, 2)])
    assert jaxd2l.output_shape(block, (8, 8, 3)) == (8, 8, 23)
    assert jaxd2l.output_shape(transition("transition", 10), (8, 8, 23)) == (4, 4, 10)
    assert jaxd2l.output_shape(transition("transition", 10), (5, 7, 23)) == (2, 3, 10)


def test_input_channels_and_classes_follow_from_the_arguments():
    net = densenet((2, 3), 7, growth=4, features=6)
    kernel = counts(net, (32, 32, 3))[0] - counts(net, (32, 32, 1))[0]
    assert kernel == 49 * 2 * 6
    shapes = jax.eval_shape(lambda key: jaxd2l.init(net, key, (32, 32, 1))[0], jax.random.key(0))
    # 6 + 2*4 = 14, halved 7, + 3*4 = 19
    assert shapes["transition1"]["conv"]["kernel"].shape == (1, 1, 14, 7)
    assert shapes["output"]["kernel"].shape == (19, 7)
    layer = shapes["denseblock2"]["denselayer3"]
    assert layer["conv1"]["kernel"].shape == (1, 1, 15, 16)
    assert layer["conv2"]["kernel"].shape == (3, 3, 16, 4)
    assert set(layer) == {"bn1", "conv1", "bn2", "conv2"}
    assert set(layer["conv1"]) == {"kernel"}


# F48


@pytest.mark.parametrize("layer", [dense_layer, plain_dense_layer])
@pytest.mark.parametrize(("start", "growth", "count"), [(3, 10, 2), (5, 1, 7), (64, 32, 4)])
def test_channels_grow_by_growth_times_layers(layer, start, growth, count):
    """F48: c0 + k L."""
    block = dense_block("block", [layer(f"denselayer{i}", growth) for i in range(count)])
    shape = jaxd2l.output_shape(block, (6, 5, start))
    assert shape == (6, 5, start + growth * count)


def test_a_transition_halves_the_channels_and_the_size():
    """F48; an odd number of channels is rounded down."""
    stages = dense_stages(9, (2, 1, 3), 4, plain_dense_layer)
    shape, sizes = (12, 12, 9), []
    for stage in stages:
        shape = jaxd2l.output_shape(stage, shape)
        sizes.append(shape)
    assert sizes == [(12, 12, 17), (6, 6, 8), (6, 6, 12), (3, 3, 6), (3, 3, 18)]


# What the blocks compute


def test_a_block_puts_each_output_behind_its_input():
    net = dense_block("block", [plain_dense_layer(name, 2) for name in ("a", "b")])
    params, state = drawn(net, (5, 4, 3))
    x = draw(2, 5, 4, 3)
    y = run(net, params, state, x)
    assert y.shape == (2, 5, 4, 7)
    np.testing.assert_array_equal(y[..., :3], x)
    for name, channels in (("a", 3), ("b", 5)):
        own, statistics = params["block"][name], state["block"][name]
        before = normed(y[..., :channels], own["bn"], statistics["bn"])
        after = conv(before, own["conv"]["kernel"], own["conv"]["bias"], padding=1)
        np.testing.assert_allclose(y[..., channels : channels + 2], after, rtol=1e-4, atol=1e-4)


def test_a_bottleneck_goes_through_a_1x1():
    net = dense_layer("layer", 3, width=2)
    params, state = drawn(net, (4, 4, 5))
    x = draw(2, 4, 4, 5)
    y = run(net, params, state, x)
    own, statistics = params["layer"], state["layer"]
    inner = conv(normed(x, own["bn1"], statistics["bn1"]), own["conv1"]["kernel"])
    assert inner.shape[-1] == 6
    want = conv(normed(inner, own["bn2"], statistics["bn2"]), own["conv2"]["kernel"], padding=1)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)


def test_a_transition_is_a_1x1_and_means_of_four():
    net = transition("transition", 2)
    params, state = drawn(net, (4, 6, 3))
    x = draw(2, 4, 6, 3)
    y = run(net, params, state, x)
    own = params["transition"]
    z = conv(normed(x, own["bn"], state["transition"]["bn"]), own["conv"]["kernel"])
    want = np.asarray(z).reshape(2, 2, 2, 3, 2, 2).mean((2, 4))
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


# C128


def test_densenet_has_fewer_parameters_than_resnet_but_not_less_to_remember():
    """C128: 7.98 million parameters to 11.69 and 25.56, but more activations than either: what
    norms, convolutions, pools and joins put out for one image, in float32."""
    nets = (densenet121(), resnet18(), resnet50())
    dense, small, large = (jaxd2l.summarize(net, IMAGE) for net in nets)
    assert [table.parameters for table in (dense, small, large)] == [
        7_978_856,
        11_689_512,
        25_557_032,
    ]

    def mebibytes(table):
        kept = [row.output_shape for row in table.rows if row.kind != "Activation"]
        return sum(map(math.prod, kept)) * 4 / 2**20

    assert [round(mebibytes(table)) for table in (dense, small, large)] == [161, 25, 122]


def test_the_joins_of_a_block_grow_with_the_square_of_its_layers():
    """Each join copies what is there: c0 L + k L (L + 1) / 2 numbers a pixel, as in PyTorch."""

    def joined(count):
        block = dense_block("block", [plain_dense_layer(f"layer{i}", 3) for i in range(count)])
        rows = jaxd2l.summarize(block, (2, 2, 5)).rows
        return sum(row.output_shape[-1] for row in rows if row.path.endswith("concat"))

    for count in (1, 4, 9):
        assert joined(count) == 5 * count + 3 * count * (count + 1) // 2


@pytest.mark.slow
def test_memory_of_a_training_step_of_the_books_network():
    """At batch 8 the compiled step needs less than all activations together: nothing is kept
    twice."""
    net, shape, batch = book_densenet(), (96, 96, 1), 8

    def step(params, state, x):
        def loss(params):
            y, new = jaxd2l.apply(net, params, state, x, train=True)
            return (y**2).mean(), new

        grads, new = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), new

    trees = jax.eval_shape(lambda key: jaxd2l.init(net, key, shape), jax.random.key(0))
    x = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    memory = jax.jit(step).lower(*trees, x).compile().memory_analysis()
    table = jaxd2l.summarize(net, shape)
    activations = 4 * batch * sum(math.prod(row.output_shape) for row in table.rows)
    assert activations / 2**20 == pytest.approx(78.1, abs=0.1)
    assert 0.3 < memory.temp_size_in_bytes / activations < 1
