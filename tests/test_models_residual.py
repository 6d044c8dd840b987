"""Residual networks: published counts, the shapes that the book prints, the blocks by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers, models
from jaxd2l.models import blocks, d2l
from jaxd2l.models.resnet import resnet
from jaxd2l.ops.conv import conv


@pytest.mark.parametrize(
    ("net", "shape", "parameters"),
    [
        (models.resnet18(), (224, 224, 3), 11_689_512),
        (models.resnet34(), (224, 224, 3), 21_797_672),
        (models.resnet50(), (224, 224, 3), 25_557_032),
        (models.resnet101(), (224, 224, 3), 44_549_160),
        (models.resnet152(), (224, 224, 3), 60_192_808),
        (models.resnext50_32x4d(), (224, 224, 3), 25_028_904),
        (models.wide_resnet50_2(), (224, 224, 3), 68_883_240),
        (models.resnet_v2(), (224, 224, 3), 25_549_352),
        (models.resnet18(10), (224, 224, 1), 11_689_512 - 990 * 513 - 2 * 49 * 64),
        (d2l.resnet18(), (96, 96, 1), 11_178_378),
    ],
)
def test_parameters(net, shape, parameters):
    assert jaxd2l.summarize(net, shape).parameters == parameters


def test_resnet18_costs_what_is_published():
    assert round(jaxd2l.summarize(models.resnet18(), (224, 224, 3)).macs / 1e9, 2) == 1.81
    assert round(jaxd2l.summarize(models.resnet50(), (224, 224, 3)).macs / 1e9, 2) == 4.09


def test_the_shapes_that_the_book_prints():
    net = d2l.resnet18()
    shape, shapes = (96, 96, 1), []
    for layer in net.layers:
        shape = jaxd2l.output_shape(layer, shape)
        if isinstance(layer, layers.MaxPool | layers.Serial | layers.Dense):
            shapes.append(shape)
    wanted = [(24, 24, 64), (24, 24, 64), (12, 12, 128), (6, 6, 256), (3, 3, 512), (10,)]
    assert shapes == wanted


def test_the_receptive_field_is_the_one_of_strides_that_come_first():
    rows = jaxd2l.summarize(models.resnet50(), (224, 224, 3)).rows
    last = next(row for row in rows if row.path == "stage4/unit3/add")
    assert (last.receptive_field, last.jump) == ((427, 427), (32, 32))


def test_only_eight_and_more_blocks_in_a_row_are_stacked():
    def stacked(net):
        return [
            s.name
            for s in net.layers
            if isinstance(s, layers.Serial)
            and len(s.layers) == 2
            and isinstance(s.layers[1], layers.Repeat)
        ]

    assert stacked(models.resnet50()) == []
    assert stacked(models.resnet101()) == stacked(models.resnet152()) == ["stage3"]
    params, _ = jax.eval_shape(
        lambda key: jaxd2l.init(models.resnet101(), key, (64, 64, 3)), jax.random.key(0)
    )
    assert params["stage3"]["units"]["conv2"]["kernel"].shape == (22, 3, 3, 256, 256)
    assert sorted(params["stage2"]) == ["unit1", "unit2", "unit3", "unit4"]


def test_stacked_units_compute_what_separate_ones_do(key):
    net = resnet((9,), 4, features=2)
    params, state = jaxd2l.init(net, key, (9, 9, 3))
    x = jax.random.normal(key, (2, 9, 9, 3))
    unit = blocks.residual_block("units", 2)
    y, _ = jaxd2l.apply(net, params, state, x)
    stage, rest = params["stage1"], net.layers[5:]
    z, _ = jaxd2l.apply(
        layers.Serial(net.layers[:4]), part(params, "conv1", "bn1"), part(state, "bn1"), x
    )
    z, _ = jaxd2l.apply(
        blocks.residual_block("unit1", 2), part(stage, "unit1"), part(state["stage1"], "unit1"), z
    )
    for i in range(8):
        one = jax.tree.map(lambda a, i=i: a[i], (stage["units"], state["stage1"]["units"]))
        z, _ = jaxd2l.apply(unit, {"units": one[0]}, {"units": one[1]}, z)
    z, _ = jaxd2l.apply(layers.Serial(rest), part(params, "output"), {}, z)
    np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-5)


def part(tree, *names):
    return {name: tree[name] for name in names}


def normed(x, scale, bias):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def filled(net, shape, seed):
    """Parameters with norms that are not the identity."""
    params, state = jaxd2l.init(net, jax.random.key(seed), shape)
    draw = np.random.RandomState(seed)
    params = jax.tree.map(lambda a: jnp.asarray(draw.normal(0.5, 0.5, a.shape), a.dtype), params)
    return params, state


@pytest.mark.parametrize(
    ("width", "stride", "project"), [(None, 1, False), (None, 2, True), (3, 2, True), (3, 1, False)]
)
def test_a_preactivation_block_by_hand(width, stride, project):
    features = 6 if project else 4
    net = blocks.preactivation_block("unit", features, width, stride, project)
    params, state = filled(net, (5, 6, 4), 3)
    x = jnp.asarray(np.random.RandomState(0).normal(size=(2, 5, 6, 4)), jnp.float32)
    p = params["unit"]

    def active(name, x):
        return jax.nn.relu(normed(x, p[name]["scale"], p[name]["bias"]))

    first = active("bn1", x)
    shortcut = conv(first, p["shortcut"]["conv"]["kernel"], stride=stride) if project else x
    if width is None:
        y = conv(first, p["conv1"]["kernel"], stride=stride, padding=1)
        y = conv(active("bn2", y), p["conv2"]["kernel"], padding=1)
    else:
        y = conv(first, p["conv1"]["kernel"])
        y = conv(active("bn2", y), p["conv2"]["kernel"], stride=stride, padding=1)
        y = conv(active("bn3", y), p["conv3"]["kernel"])
    got, _ = jaxd2l.apply(net, params, state, x, train=True)
    np.testing.assert_allclose(got, y + shortcut, rtol=1e-3, atol=1e-3)


def test_a_residual_block_by_hand():
    shortcut = layers.Serial([blocks.conv("conv", 6, 1, 2, bias=True)], name="shortcut")
    net = blocks.residual_block("unit", 6, 2, shortcut, bias=True)
    params, state = filled(net, (5, 6, 4), 4)
    x = jnp.asarray(np.random.RandomState(1).normal(size=(2, 5, 6, 4)), jnp.float32)
    p = params["unit"]
    y = conv(x, p["conv1"]["kernel"], p["conv1"]["bias"], stride=2, padding=1)
    y = jax.nn.relu(normed(y, p["bn1"]["scale"], p["bn1"]["bias"]))
    y = conv(y, p["conv2"]["kernel"], p["conv2"]["bias"], padding=1)
    y = normed(y, p["bn2"]["scale"], p["bn2"]["bias"])
    y = y + conv(x, **p["shortcut"]["conv"], stride=2)
    got, _ = jaxd2l.apply(net, params, state, x, train=True)
    np.testing.assert_allclose(got, jax.nn.relu(y), rtol=1e-3, atol=1e-3)
