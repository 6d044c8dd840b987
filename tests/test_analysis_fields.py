"""Receptive fields of the summary: of every kind of layer and join against the support of the
gradient, of whole networks against the pixels that change the centre; layers that exceed the input.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers, models
from jaxd2l.layers import AvgPool, Conv, ConvTranspose, GlobalAvgPool, Identity, Parallel, Serial
from jaxd2l.models.densenet import densenet
from jaxd2l.models.googlenet import googlenet
from jaxd2l.models.resnet import resnet


def ones(net, shape):
    """Arrays of ones, where nothing cancels: a path to the input is a positive gradient."""
    declared = layers.declared(net, shape)
    return jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), declared)


def seen(net, shape):
    """For each axis (first, last) pixel seen by each unit, by the Jacobian; (-1, -1): none."""
    params, state = ones(net, shape)
    run = jax.jit(jax.jacrev(lambda x: jaxd2l.apply(net, params, state, x[None])[0][0]))
    jacobian = np.asarray(run(jnp.ones(shape))) != 0
    axes, spatial = jacobian.ndim - len(shape), len(shape) - 1
    found = []
    for axis in range(spatial):
        others = tuple(i for i in range(jacobian.ndim) if i not in (axis, axes + axis))
        along = jacobian.any(axis=others)  # (units, pixels)
        ends = [np.flatnonzero(row)[[0, -1]].tolist() if row.any() else [-1, -1] for row in along]
        found.append([tuple(end) for end in ends])
    return found


def conv(name, kernel, features=2, **options):
    return Conv(name, features, kernel, **options)


def body(*kernels):
    return Serial([conv(f"k{k}_{i}", (k,), padding="same") for i, k in enumerate(kernels)])


# network, shape of the input, and by hand (size, jump, start) along each axis
CASES = {
    "add": (Parallel([body(3, 3), body(7)], "add"), (20, 2), [(7, 1, -3)]),
    "concat": (
        Parallel(
            [Serial([body(3, 5)], name="a"), conv("b", (3,), dilation=2, padding=2)], "concat"
        ),
        (20, 2),
        [(7, 1, -3)],
    ),
    "multiply": (
        Parallel(
            [conv("a", (4,), padding=((0, 3),)), conv("b", (4,), padding=((3, 0),))], "multiply"
        ),
        (15, 2),
        [(7, 1, -3)],
    ),
    "skips": (
        Serial(
            [
                Parallel([body(3, 3), Identity()], "add", "unit1"),
                Parallel(
                    [
                        Serial([conv("1", (3,), stride=2, padding=1), conv("2", (3,), padding=1)]),
                        conv("short", (1,), stride=2),
                    ],
                    "add",
                    "unit2",
                ),
                Parallel([body(3, 3), Identity()], "add", "unit3"),
            ]
        ),
        (40, 2),
        [(5 + 2 + 4 + 8, 2, -2 - 1 - 2 - 4)],
    ),
    "split": (
        Serial([layers.Split([conv("a", (3,), padding=1), Identity()]), layers.ChannelShuffle(2)]),
        (9, 4),
        [(3, 1, -1)],
    ),
    "dilation": (
        Serial([conv(f"{d}", (3,), dilation=d, padding=((2 * d, 0),)) for d in (1, 2, 4)]),
        (30, 2),
        [(15, 1, -14)],
    ),
    "groups": (conv("conv", 3, features=4, groups=2, stride=2), (9, 8, 4), [(3, 2, 0)] * 2),
    "two axes": (
        Serial([conv("a", (1, 5), padding=(0, 1)), AvgPool((3, 2), stride=(2, 1))]),
        (9, 10, 2),
        [(3, 2, 0), (6, 1, -1)],
    ),
    "3-D": (
        Serial([conv("a", (1, 3, 2), padding=(0, 1, 0)), AvgPool((2, 2, 1))]),
        (4, 5, 3, 1),
        [(2, 2, 0), (4, 2, -1), (2, 1, 0)],
    ),
    "repeat": (
        layers.Repeat(Serial([conv("a", (3,), padding=1)], "unit"), 4),
        (20, 2),
        [(9, 1, -4)],
    ),
    "tied": (
        Serial([conv("a", (3,)), layers.Tied("b", conv("a", (3,)), to="a")]),
        (9, 2),
        [(5, 1, 0)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fields_by_hand_and_by_the_gradient(case):
    net, shape, expected = CASES[case]
    row = jaxd2l.summarize(net, shape).rows[-1]
    assert list(zip(row.receptive_field, row.jump, row.start, strict=True)) == expected
    for units, n, (size, jump, start) in zip(seen(net, shape), shape, expected, strict=False):
        firsts = [start + jump * unit for unit in range(len(units))]
        assert units == [(max(i, 0), min(i + size, n) - 1) for i in firsts]


@pytest.mark.parametrize(
    ("net", "n", "size", "jump"),
    [
        (ConvTranspose("up", 2, (4,), stride=2, padding=1), 8, 2, "1/2"),
        (ConvTranspose("up", 2, (5,), stride=3, padding=1, output_padding=1), 8, 2, "1/3"),
        (ConvTranspose("up", 2, (3,), stride=2, dilation=2), 8, 3, "1/2"),
        (
            Serial([conv("down", (3,), stride=2), ConvTranspose("up", 2, (6,), stride=2)]),
            21,
            7,
            "1",
        ),
        (
            Parallel(
                [
                    Serial([conv("down", (2,), stride=2), ConvTranspose("up", 2, (2,), stride=2)]),
                    Identity(),
                ],
                "concat",
            ),
            8,
            2,
            "1",
        ),
    ],
)
def test_transposed_convolutions(net, n, size, jump):
    """The largest of units that see different amounts, as in a U-Net's decoder."""
    row = jaxd2l.summarize(net, (n, 2)).rows[-1]
    assert (row.receptive_field, [str(j) for j in row.jump]) == ((size,), [jump])
    (units,) = seen(net, (n, 2))
    sizes = [last - first + 1 if first >= 0 else 0 for first, last in units]
    assert max(sizes) == size
    assert units[0][0] == max(row.start[0], 0)


SQUEEZED = Serial([GlobalAvgPool(), layers.Reshape((1, 2)), ConvTranspose("up", 2, (6,))])


@pytest.mark.parametrize(
    "net",
    [
        Parallel([Identity(), SQUEEZED], "multiply"),  # each position times a mean of all
        Serial([Parallel([Identity(), SQUEEZED], "multiply"), conv("c", (3,))]),
        Serial([layers.Flatten(), layers.Dense("d", 3)]),
    ],
    ids=["gate", "behind", "dense"],
)
def test_global_layers_see_the_whole_input(net):
    row = jaxd2l.summarize(net, (6, 2)).rows[-1]
    assert (row.receptive_field, row.jump, row.start) == (None, None, None)
    params, state = ones(net, (6, 2))
    jacobian = jax.jit(jax.jacrev(lambda x: jaxd2l.apply(net, params, state, x[None])[0][0]))
    assert (np.asarray(jacobian(jnp.ones((6, 2)))).sum(axis=-1) > 0).all()
    assert not any(row.exceeds_input for row in jaxd2l.summarize(net, (6, 2)).rows)


# Whole networks: NaN in one pixel reaches the centre where, and only where, the centre sees it.
# Unlike the gradient it passes through every input of a maximum. (C107)


def prefix(net, shape):
    """The longest front part of a network whose middle unit sees no border; its last row."""
    chain = net.layers
    while isinstance(chain[0], Serial) and chain[0].name is None:
        chain = (*chain[0].layers, *chain[1:])
    for length in range(len(chain), 0, -1):
        part = Serial(chain[:length])
        row = jaxd2l.summarize(part, shape).rows[-1]
        if row.receptive_field is None or len(row.output_shape) < len(shape):
            continue
        places = zip(
            row.start, row.jump, row.receptive_field, row.output_shape, shape, strict=False
        )
        ends = [(start + n // 2 * jump, size, pixels) for start, jump, size, n, pixels in places]
        if all(first > 0 and first + size < pixels for first, size, pixels in ends):
            return part, row, [(int(first), int(first) + size - 1) for first, size, _ in ends]
    raise AssertionError("no part of the network fits")


STAGES = (((2, (2, 3), (2, 2), 2),), ((2, (2, 2), (2, 2), 2),), ((3, (2, 2), (2, 2), 2),))


@pytest.mark.parametrize(
    ("net", "shape", "size"),
    [
        (models.lenet(), (28, 28, 1), (16, 16)),
        (models.alexnet(5, features=(2, 2, 2, 2, 2)), (227, 227, 1), (195, 195)),
        (resnet((2, 1), 5, features=2), (64, 64, 1), (43, 43)),
        (googlenet(5, stem=(2, 2, 4), stages=STAGES), (128, 96, 1), (59, 59)),
        (densenet((2, 2), 5, growth=2, features=2), (64, 64, 1), (31, 31)),
    ],
    ids=["lenet", "alexnet", "resnet", "googlenet", "densenet"],
)
def test_the_centre_sees_the_pixels_of_its_field_and_no_others(net, shape, size):
    part, row, ends = prefix(net, shape)
    params, state = jaxd2l.init(part, jax.random.key(0), shape)
    assert row.receptive_field == size
    middle = [(first + last) // 2 for first, last in ends]
    images, expected = [], []
    for axis, (first, last) in enumerate(ends):
        for pixel in (first - 1, first, last, last + 1):
            image = np.ones(shape, np.float32)
            place = list(middle)
            place[axis] = pixel
            image[tuple(place)] = np.nan
            images.append(image)
            expected.append(first <= pixel <= last)
    y, _ = jax.jit(lambda x: jaxd2l.apply(part, params, state, x))(np.stack(images))
    centre = y[(slice(None), *(n // 2 for n in row.output_shape[:-1]))]
    assert np.isnan(np.asarray(centre)).any(axis=-1).tolist() == expected


# Layers that add depth, not context: r of the input > n (Richter et al. 2021)


def flagged(net, shape):
    return [row.path for row in jaxd2l.summarize(net, shape).rows if row.exceeds_input]


def chain(count, **options):
    return [conv(f"{i}", (3,), features=1, padding=1, **options) for i in range(count)]


def test_the_first_layer_flagged_reads_units_that_see_more_than_the_input():
    net = Serial(chain(5))  # fields 3, 5, 7, 9, 11
    assert flagged(net, (5, 1)) == ["3", "4"]  # "2" reads units that see just 5
    assert flagged(net, (6, 1)) == ["3", "4"]
    assert flagged(net, (7, 1)) == ["4"]
    assert flagged(net, (9, 1)) == []


def test_what_combines_no_units_is_not_flagged():
    pointwise = [conv("point", (1,)), layers.Activation("relu"), conv("far", (1,), stride=2)]
    up = ConvTranspose("up", 1, (2,), stride=2)  # each output reads one unit
    wide = ConvTranspose("wide", 1, (3,), stride=2, padding=1)  # every second one reads two
    net = Serial([*chain(3), *pointwise, up, wide])
    assert flagged(net, (5, 1)) == ["wide"]


def test_every_axis_must_be_exceeded():
    net = Serial([conv(f"{i}", 3, padding=1) for i in range(4)])
    assert flagged(net, (5, 5, 1)) == ["3"]
    assert flagged(net, (5, 7, 1)) == flagged(net, (7, 5, 1)) == []


def test_the_largest_field_of_a_join_counts():
    far, near = Serial(chain(3), "far"), Identity()
    assert flagged(Serial([Parallel([far, near], "add"), conv("c", (3,))]), (5, 1)) == ["c"]
    assert flagged(Serial([Parallel([near, near], "add"), conv("c", (3,))]), (5, 1)) == []


def test_an_embedding_opens_an_axis_as_long_as_the_sentence():
    net = Serial([layers.Embedding("words", 9, 4), *chain(4)])
    assert flagged(net, (5,)) == ["3"]
    assert "already see more than the input (5): it adds" in str(jaxd2l.summarize(net, (5,)))


def test_vgg16_on_cifar():
    """By the notes' table (F6): 40 after block 3 is the first above 32."""
    found = flagged(models.vgg16(), (32, 32, 3))
    blocks = [f"block4/conv{i}" for i in (1, 2, 3)], [f"block5/conv{i}" for i in (1, 2, 3)]
    assert found == [
        "block3/max_pool", *blocks[0], "block4/max_pool", *blocks[1], "block5/max_pool"
    ]  # fmt: skip


def test_the_table_shows_the_flag():
    table = jaxd2l.summarize(Serial(chain(5)), (7, 1))
    text = str(table).splitlines()
    assert [line.split()[2] for line in text[3:8]] == ["3", "5", "7", "9", "11*"]
    assert text[-1] == (
        "* 1 layer reads units that already see more than the input (7): it adds depth, not context"
    )
    wide = jaxd2l.summarize(models.vgg16(), (32, 40, 3))
    assert "\n* 8 layers read units that already see more than the input (32x40): they" in str(wide)
    markdown = table.to_markdown().splitlines()
    assert markdown[7].split(" | ")[2] == r"11\*"
    assert markdown[-1].startswith(r"- \* 1 layer reads units")
    rows = json.loads(table.to_json())["rows"]
    assert [row["exceeds_input"] for row in rows] == [False] * 4 + [True]
    assert "depth" not in str(jaxd2l.summarize(Serial(chain(5)), (9, 1)))
