"""The summary table: published numbers, joins, ties, repetitions, real gradient supports."""

import json
from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers, models


def table(net, shape, **options):
    return jaxd2l.summarize(net, shape, **options)


def column(net, shape, field):
    return {row.path: getattr(row, field) for row in table(net, shape).rows}


@pytest.mark.smoke
def test_lenet_exactly():
    lenet = table(models.lenet(), (28, 28, 1))
    got = [
        (r.path, r.output_shape, r.parameters, r.macs, r.receptive_field, r.jump, r.start)
        for r in lenet.rows
    ]
    assert got == [
        ("conv1", (28, 28, 6), 156, 117_600, (5, 5), (1, 1), (-2, -2)),
        ("relu", (28, 28, 6), 0, 0, (5, 5), (1, 1), (-2, -2)),
        ("max_pool", (14, 14, 6), 0, 0, (6, 6), (2, 2), (-2, -2)),
        ("conv2", (10, 10, 16), 2_416, 240_000, (14, 14), (2, 2), (-2, -2)),
        ("relu", (10, 10, 16), 0, 0, (14, 14), (2, 2), (-2, -2)),
        ("max_pool", (5, 5, 16), 0, 0, (16, 16), (4, 4), (-2, -2)),
        ("flatten", (400,), 0, 0, (16, 16), (4, 4), (-2, -2)),
        ("dense1", (120,), 48_120, 48_000, None, None, None),
        ("relu", (120,), 0, 0, None, None, None),
        ("dense2", (84,), 10_164, 10_080, None, None, None),
        ("relu", (84,), 0, 0, None, None, None),
        ("output", (10,), 850, 840, None, None, None),
    ]
    assert (lenet.parameters, lenet.macs) == (61_706, 416_520)
    assert (lenet.statistics, lenet.parameter_bytes) == (0, 246_824)
    assert lenet.input_shape == (28, 28, 1)


@pytest.mark.smoke
def test_text_and_markdown_show_every_row_and_totals_with_separators():
    lenet = table(models.lenet(), (28, 28, 1))
    text = str(lenet).splitlines()
    assert text[0].split() == (
        ["layer", "output", "receptive", "field", "stride", "start", "parameters", "MACs"]
    )
    assert text[2].split() == ["input", "28x28x1"]
    assert text[3].split() == ["conv1", "28x28x6", "5", "1", "-2", "156", "117,600"]
    assert text[10].split() == ["dense1", "120", "whole", "-", "-", "48,120", "48,000"]
    assert text[-3:] == [
        "parameters 61,706 (246,824 bytes)",
        "MACs per example 416,520 (833,040 FLOPs)",
        "activations per example 61,544 bytes in training, 37,632 in inference",
    ]
    assert len({len(line) for line in text[3:-4]}) == 1  # right-aligned
    markdown = lenet.to_markdown().splitlines()
    assert {line.count("|") for line in markdown[: len(lenet.rows) + 3]} == {8}
    assert markdown[1] == "| :-- | --: | --: | --: | --: | --: | --: |"
    assert markdown[3] == "| conv1 | 28x28x6 | 5 | 1 | -2 | 156 | 117,600 |"
    assert markdown[-2] == "- MACs per example 416,520 (833,040 FLOPs)"


def test_statistics_and_bytes_by_dtype():
    net = models.lenet(batch_norm=True)
    full = table(net, (28, 28, 1))
    assert full.statistics == 2 * (6 + 16 + 120 + 84)
    assert full.parameter_bytes == 4 * (full.parameters + full.statistics)
    assert "running statistics" in str(full)
    half = table(net, (28, 28, 1), dtype=jnp.bfloat16)
    assert half.parameter_bytes * 2 == full.parameter_bytes


def test_json_parses_and_writes_fractions_as_strings():
    net = layers.Serial([layers.ConvTranspose("up", 1, 4, stride=2, padding=1), layers.Flatten()])
    data = json.loads(table(net, (3, 5, 1)).to_json())
    assert data["rows"][0]["jump"] == ["1/2", "1/2"]
    assert data["rows"][0]["output_shape"] == [6, 10, 1]
    assert data["parameters"] == 17
    assert set(data) == {
        "rows", "input_shape", "parameters", "macs", "flops", "statistics", "parameter_bytes",
        "activation_bytes_training", "activation_bytes_inference",
    }  # fmt: skip
    assert set(data["rows"][0]) == {
        "path", "kind", "output_shape", "parameters", "macs", "flops", "receptive_field", "jump",
        "start", "exceeds_input", "activation_bytes",
    }  # fmt: skip
    products = (3 * 4 - 2) * (5 * 4 - 2)  # of taps that the padding does not crop
    assert data["flops"] == data["rows"][0]["flops"] == 2 * products
    assert data["rows"][0]["activation_bytes"] == 4 * 60
    assert json.loads(table(layers.Dense("d", 2), (3,)).to_json())["rows"][0]["jump"] is None


def test_a_transposed_convolution_has_a_fractional_jump_that_a_stride_undoes():
    up = layers.ConvTranspose("up", 1, (4,), stride=2, padding=1)
    down = layers.Conv("down", 1, (2,), stride=2)
    rows = table(layers.Serial([up, down]), (8, 1)).rows
    assert rows[0].jump == (Fraction(1, 2),)
    assert rows[0].receptive_field == (2,)
    assert rows[1].jump == (1,)


def test_branches_join_in_a_row_with_the_union_of_their_fields():
    net = layers.Serial(
        [
            layers.Conv("stem", 4, 3, padding=1),
            layers.Parallel(
                [
                    layers.Conv("a", 2, 5, padding=2),
                    layers.Serial(
                        [layers.Conv("b", 3, 1), layers.Conv("c", 3, (1, 7), padding="same")]
                    ),
                    layers.Identity(),
                ],
                "concat",
                name="block",
            ),
        ]
    )
    summary = table(net, (12, 12, 1))
    last = summary.rows[-1]
    assert [row.path for row in summary.rows] == [
        "stem", "block/a", "block/b", "block/c", "block/identity", "block/concat",
    ]  # fmt: skip
    assert (last.kind, last.output_shape) == ("Parallel", (12, 12, 9))
    assert (last.parameters, last.macs) == (0, 0)
    assert last.receptive_field == (7, 9)
    assert last.start == (-3, -4)
    assert last.jump == (1, 1)
    assert summary.parameters == 40 + (100 * 2 + 2) + (4 * 3 + 3) + (7 * 9 + 3)


def test_a_residual_block():
    def block(name, stride):
        body = layers.Serial(
            [
                layers.Conv("conv1", 4, 3, stride=stride, padding=1),
                layers.Activation("relu"),
                layers.Conv("conv2", 4, 3, padding=1),
            ]
        )
        short = layers.Identity() if stride == 1 else layers.Conv("short", 4, 1, stride=stride)
        return layers.Parallel([body, short], "add", name=name)

    rows = column(layers.Serial([block("one", 1), block("two", 2)]), (16, 16, 4), "receptive_field")
    assert rows["one/identity"] == (1, 1)
    assert rows["one/add"] == (5, 5)
    assert rows["two/short"] == (5, 5)
    assert rows["two/add"] == (5 + 2 + 2 * 2,) * 2
    jumps = column(layers.Serial([block("one", 1), block("two", 2)]), (16, 16, 4), "jump")
    assert jumps["two/add"] == (2, 2)


def test_joins_of_split_and_unnamed_composites_and_whole_input():
    split = layers.Split([layers.Conv("a", 2, 3, padding=1), layers.Identity()], "concat")
    rows = table(split, (6, 6, 4)).rows
    assert [row.path for row in rows] == ["a", "identity", "concat"]
    assert rows[-1].kind == "Split"
    assert rows[0].parameters == 9 * 2 * 2 + 2  # half of the features
    gate = layers.Parallel([layers.GlobalAvgPool(), layers.GlobalMaxPool()], "multiply", "se")
    last = table(gate, (6, 6, 4)).rows[-1]
    assert (last.path, last.receptive_field, last.jump, last.start) == ("se/multiply", *[None] * 3)


def test_branches_of_different_strides_are_compared_unit_by_unit():
    net = layers.Parallel(
        [layers.Conv("a", 1, 1, stride=2), layers.Conv("b", 1, (5, 2))], "add", "block"
    )
    row = table(net, (8, 3, 1)).rows[-1]
    # rows 0 and 0-4, 2 and 1-5, 4 and 2-6, 6 and 3-7; the last column 2 and 1-2
    assert (row.path, row.receptive_field) == ("block/add", (5, 2))
    assert (row.jump, row.start) == ((None, None), (0, 0))
    assert str(table(net, (8, 3, 1))).splitlines()[5].split() == [
        "block/add", "4x2x1", "5x2", "-", "0", "0", "0",
    ]  # fmt: skip


def test_branches_of_different_shape_are_refused():
    net = layers.Parallel([layers.Conv("a", 1, 2), layers.Conv("b", 1, 3)], "add", "block")
    with pytest.raises(ValueError, match="branches at 'block' cannot be combined by 'add'"):
        table(net, (4, 4, 1))


def test_tied_layers_are_counted_once_but_computed_twice():
    hidden = layers.Conv("hidden", 2, 3, padding=1)
    net = layers.Serial([hidden, layers.Tied("again", hidden, to="hidden")])
    summary = table(net, (5, 5, 2))
    assert [row.path for row in summary.rows] == ["hidden", "again/hidden"]
    assert [row.parameters for row in summary.rows] == [38, 0]
    assert [row.macs for row in summary.rows] == [25 * 36] * 2
    assert summary.parameters == 38
    assert summary.parameter_bytes == 4 * 38
    assert summary.rows[1].receptive_field == (5, 5)


def test_repetitions_have_a_row_each():
    net = layers.Repeat(
        layers.Serial([layers.Conv("conv", 2, 3, padding=1), layers.BatchNorm("bn")]), 3, "blocks"
    )
    summary = table(net, (9, 9, 2))
    assert [row.path for row in summary.rows][:3] == [
        "blocks[0]/conv",
        "blocks[0]/bn",
        "blocks[1]/conv",
    ]
    assert summary.rows[-1].receptive_field == (7, 7)
    assert summary.parameters == 3 * (38 + 4)
    assert summary.statistics == 3 * 4


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense("d", 3),
        layers.LayerNorm("ln"),
        layers.Activation("softmax"),
        layers.CosineDense("d", 3),
        layers.Maxout("d", 3),
        layers.RBF("d", 3),
        layers.LocalResponseNorm(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_that_mixes_features_sees_the_whole_input_once_it_is_flat(layer):
    conv = layers.Conv("c", 2, 3)
    deep = table(layers.Serial([conv, layer]), (8, 8, 1)).rows[-1]
    assert deep.receptive_field == (3, 3)
    flat = table(layers.Serial([conv, layers.Flatten(), layer]), (8, 8, 1)).rows[-1]
    assert flat.receptive_field is None
    text = str(table(layers.Serial([conv, layers.Flatten(), layer]), (8, 8, 1)))
    assert "whole" in text


@pytest.mark.parametrize(
    "layer",
    [
        layers.GlobalAvgPool(),
        layers.GroupNorm("gn", 1),
        layers.InstanceNorm("in"),
        layers.LayerNorm("ln", axes=3),
        layers.Reshape((4, 4, 4)),
        layers.Function(lambda x: x.mean((1, 2))),
        layers.FlaxModule("f", nn.GroupNorm(2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_that_may_see_everything_is_reported_so_and_so_is_all_after_it(layer):
    net = layers.Serial([layer, layers.Activation("relu"), layers.Flatten()])
    assert {row.receptive_field for row in table(net, (4, 4, 4)).rows} == {None}


def test_an_embedding_opens_a_time_axis():
    net = layers.Serial([layers.Embedding("words", 9, 4), layers.Conv("conv", 2, (3,))])
    rows = table(net, (7,)).rows
    assert (rows[0].output_shape, rows[0].receptive_field) == ((7, 4), (1,))
    assert (rows[1].output_shape, rows[1].receptive_field) == ((5, 2), (3,))


def test_unlike_axes_are_shown_apart():
    net = layers.Conv("c", 1, (3, 5), stride=(1, 2))
    assert str(table(net, (9, 9, 1))).splitlines()[3].split()[:5] == [
        "c", "7x3x1", "3x5", "1x2", "0",
    ]  # fmt: skip


def test_macs_of_shared_and_unshared_kernels_agree_and_parameters_do_not():
    kinds = {
        kind: table(layer, (8, 8, 2))
        for kind, layer in {
            "conv": layers.Conv("l", 4, 3, bias=False),
            "local": layers.LocallyConnected("l", 4, 3, bias=False),
            "tiled": layers.TiledConv("l", 4, 3, tiles=2, bias=False),
        }.items()
    }
    assert {summary.macs for summary in kinds.values()} == {36 * 18 * 4}
    assert {kind: summary.parameters for kind, summary in kinds.items()} == {
        "conv": 72,
        "local": 36 * 72,
        "tiled": 4 * 72,
    }


# --- the receptive field is the support of the gradient (C107) ----------------------------------

SUPPORT = [
    layers.Serial(
        [
            layers.Conv("a", 1, 3, padding=1),
            layers.AvgPool(2),
            layers.Conv("b", 1, 3, dilation=2),
            layers.Conv("c", 1, 3, stride=2, padding=1),
        ]
    ),
    layers.Serial(
        [
            layers.Parallel(
                [layers.Conv("a", 1, (5, 1), padding="same"), layers.Identity()], "add"
            ),
            layers.Conv("b", 1, (1, 3), stride=(1, 2)),
            layers.LocallyConnected("l", 1, 2),
        ]
    ),
    layers.Serial(
        [
            layers.Conv("a", 1, 3, stride=2, padding=1),
            layers.ConvTranspose("up", 1, 4, stride=2, padding=1),
            layers.TiledConv("t", 1, 3, tiles=2),
        ]
    ),
]


@pytest.mark.parametrize("net", SUPPORT, ids=["pool-dilation", "branches", "transposed"])
def test_the_receptive_field_is_the_support_of_the_gradient(net, x64):
    shape = (24, 24, 1)
    ones = {"*/kernel": lambda key, shape, dtype, fan: jnp.ones(shape, dtype)}
    params, state = jaxd2l.init(net, jax.random.key(0), shape, dtype=jnp.float64, initializers=ones)
    row = table(net, shape).rows[-1]
    h, w, _ = row.output_shape

    def support(i, j):
        grad = jax.grad(lambda x: jaxd2l.apply(net, params, state, x[None])[0][0, i, j, 0])
        return np.nonzero(np.asarray(jax.jit(grad)(jnp.ones(shape)))[..., 0])

    # Units near the middle, where no border cuts the field; some, for phases of transposed ones.
    sizes = []
    for k in range(2):
        seen = support(h // 2 + k, w // 2 + k)
        sizes.append([int(axis.max() - axis.min() + 1) for axis in seen])
        if all(isinstance(jump, int) for jump in row.jump) and "up" not in repr(net):
            firsts = [int(axis.min()) for axis in seen]
            want = [
                s + u * d
                for s, u, d in zip(row.start, (h // 2 + k, w // 2 + k), row.jump, strict=True)
            ]
            assert firsts == want
    assert tuple(np.max(sizes, axis=0)) == row.receptive_field
