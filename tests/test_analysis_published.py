"""The published table of receptive fields, rebuilt from layers and read off the summary.

Its networks are those of TF-Slim, not ours: they are written down here as lists of windows, one
feature wide. Size / effective stride / effective padding, at the end and layer by layer.
Source: Araujo, Norris & Sim, Distill 2019, doi:10.23915/distill.00021.
"""

import pytest

import jaxd2l
from jaxd2l.layers import Conv, Parallel, Serial

#: TensorFlow's "SAME" for a kernel of 3 with stride 2 on an even size.
EVEN = (0, 1)


def conv(name, kernel, stride=1, padding=0):
    """Both axes alike, or a kernel for each with the padding that keeps the size."""
    if isinstance(kernel, tuple):
        return Conv(name, 1, kernel, padding="same")
    return Conv(name, 1, kernel, stride=stride, padding=(padding,) * 2)


def chain(*rows):
    """(name, kernel, stride, padding) of each layer."""
    return Serial([conv(*row) for row in rows])


def published(net, size):
    """{path: (size, effective stride, effective padding)}, equal along both axes."""
    found = {}
    for row in jaxd2l.summarize(net, (size, size, 1)).rows:
        assert row.receptive_field[0] == row.receptive_field[1]
        assert (row.jump[0], row.start[0]) == (row.jump[1], row.start[1])
        found[row.path] = (row.receptive_field[0], row.jump[0], -row.start[0])
    return found


def test_alexnet_v2():
    net = chain(
        ("conv1", 11, 4), ("pool1", 3, 2), ("conv2", 5, 1, 2), ("pool2", 3, 2),
        ("conv3", 3, 1, 1), ("conv4", 3, 1, 1), ("conv5", 3, 1, 1), ("pool5", 3, 2),
    )  # fmt: skip
    assert published(net, 224) == {
        "conv1": (11, 4, 0), "pool1": (19, 8, 0), "conv2": (51, 8, 16), "pool2": (67, 16, 16),
        "conv3": (99, 16, 32), "conv4": (131, 16, 48), "conv5": (163, 16, 64),
        "pool5": (195, 32, 64),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("convs", "expected"), [((1, 1, 2, 2, 2), (150, 32, 59)), ((2, 2, 3, 3, 3), (212, 32, 90))]
)
def test_vgg_a_and_vgg_16(convs, expected):
    rows = []
    for block, count in enumerate(convs, 1):
        rows += [(f"conv{block}_{i}", 3, 1, 1) for i in range(count)] + [(f"pool{block}", 2, 2)]
    assert published(chain(*rows), 224)["pool5"] == expected


def test_mobilenet_v1():
    rows = [("conv", 3, 2, EVEN)]
    for i, stride in enumerate([1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1], 1):
        rows += [(f"depthwise{i}", 3, stride, EVEN if stride == 2 else 1), (f"pointwise{i}", 1)]
    found = published(chain(*rows), 224)
    sizes = [found[f"pointwise{i}"][0] for i in range(1, 14)]
    assert sizes == [7, 11, 19, 27, 43, 59, 91, 123, 155, 187, 219, 251, 315]
    assert found["pointwise13"] == (315, 32, 126)


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ((3, 4, 6, 3), (483, 32, 239)),
        ((3, 4, 23, 3), (1027, 32, 511)),
        ((3, 8, 36, 3), (1507, 32, 751)),
    ],
    ids=["50", "101", "152"],
)
def test_resnet_v1(units, expected):
    """The last unit of a stage has the stride, and the pool pads as "SAME" does."""
    chain_of_units = [conv("stem", 7, 2, 3), conv("pool", 3, 2, EVEN)]
    for stage, count in enumerate(units, 1):
        for i in range(1, count + 1):
            stride = 2 if stage < 4 and i == count else 1
            body = chain(("conv1", 1), ("conv2", 3, stride, 1), ("conv3", 1))
            short = conv("shortcut", 1, stride)
            chain_of_units.append(Parallel([body, short], "add", f"block{stage}_unit{i}"))
    net = Serial(chain_of_units)
    assert published(net, 224)[f"block4_unit{units[-1]}/add"] == expected


def branch(name, *kernels, stride=1):
    """Convolutions that keep the size, the last with the stride and without padding."""
    *front, last = kernels
    inner = [conv(f"{i}", k, 1, 0 if k == 1 else 1) for i, k in enumerate(front)]
    end = conv("last", last, stride, 0 if stride == 2 or last == 1 else 1)
    return Serial([*inner, end], name)


def test_inception_v3():
    """Every branch of every block; 1x7 and 7x1 grow one axis each, in turn."""
    wide, tall, flat, steep = (1, 7), (7, 1), (1, 3), (3, 1)
    five = Conv("five", 1, 5, padding=2)
    a = [
        branch("one", 1), Serial([conv("1", 1), five], "five"), branch("three", 1, 3, 3),
        branch("pool", 3, 1),
    ]  # fmt: skip
    b = [
        branch("three", 3, stride=2),
        branch("double", 1, 3, 3, stride=2),
        branch("pool", 3, stride=2),
    ]
    c = [
        branch("one", 1), Serial([conv("1", 1), conv("2", wide), conv("3", tall)], "seven"),
        Serial([conv(f"{i}", k) for i, k in enumerate([1, tall, wide, tall, wide])], "double"),
        branch("pool", 3, 1),
    ]  # fmt: skip
    d = [
        branch("three", 1, 3, stride=2),
        Serial([conv("1", 1), conv("2", wide), conv("3", tall), conv("4", 3, 2)], "seven"),
        branch("pool", 3, stride=2),
    ]
    halves = Parallel([conv("flat", flat), conv("steep", steep)], "concat", "halves")
    e = [
        branch("one", 1), Serial([conv("1", 1), halves], "three"),
        Serial([conv("1", 1), conv("2", 3, 1, 1), halves], "double"), branch("pool", 3, 1),
    ]  # fmt: skip
    blocks = {
        "5b": a, "5c": a, "5d": a, "6a": b, "6b": c, "6c": c, "6d": c, "6e": c, "7a": d, "7b": e,
        "7c": e,
    }  # fmt: skip
    stem = chain(
        ("1a", 3, 2), ("2a", 3), ("2b", 3, 1, 1), ("3a", 3, 2), ("3b", 1), ("4a", 3), ("5a", 3, 2)
    )
    mixed = [Parallel(branches, "concat", f"Mixed_{name}") for name, branches in blocks.items()]
    rows = jaxd2l.summarize(Serial([stem, *mixed]), (299, 299, 1)).rows
    ends = {row.path: row for row in rows}
    joins = [ends[f"Mixed_{name}/concat"] for name in blocks]
    sizes = [63, 95, 127, 159, 351, 543, 735, 927, 1055, 1183, 1311]
    assert [row.receptive_field for row in joins] == [(size, size) for size in sizes]
    assert [row.jump[0] for row in joins] == [8] * 3 + [16] * 5 + [32] * 3
    assert (joins[-1].jump, joins[-1].start) == ((32, 32), (-618, -618))
    assert [row.output_shape[0] for row in joins] == [35] * 3 + [17] * 5 + [8] * 3
    flat_end, steep_end = (ends[f"Mixed_7c/double/halves/{k}"] for k in ("flat", "steep"))
    assert flat_end.receptive_field == steep_end.receptive_field[::-1] != (1311, 1311)


def test_our_inception_v3_has_the_fields_of_the_table():
    """The last map that is not global; torchvision's windows give what TF-Slim's do."""
    rows = jaxd2l.summarize(jaxd2l.models.inception_v3(), (299, 299, 3)).rows
    last = [row for row in rows if row.receptive_field is not None][-1]
    assert (last.receptive_field, last.jump, last.start) == ((1311,) * 2, (32,) * 2, (-618,) * 2)
