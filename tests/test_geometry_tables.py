"""The tables of the notes and of the literature, reproduced figure by figure."""

from fractions import Fraction
from itertools import pairwise

import pytest

from jaxd2l.geometry import (
    ReceptiveField,
    Window,
    bottleneck_ratio,
    conv_macs,
    conv_output_size,
    conv_parameters,
    dense_parameters,
    depthwise_separable_ratio,
    factorised_ratio,
    feature_sizes,
    input_size_rule,
    iterations_per_epoch,
    kernel_stack_ratio,
    ngram_count_limit,
    ngram_table_size,
    pool_output_size,
    queue_times,
    receptive_field,
    receptive_field_top_down,
)

# The notes' own lists of [kernel, stride, padding] (001, appendix B)

ALEXNET = [(11, 4, 0), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2, 0)]
ALEXNET_POOLS = (1, 3, 7)
C, P = (3, 1, 1), (2, 2, 0)
VGG16 = [C, C, P, C, C, P, C, C, C, P, C, C, C, P, C, C, C, P]
ZF5 = [(7, 2, 3), (3, 2, 1), (5, 2, 2), (3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1)]


def windows(rows):
    return [Window(*row) for row in rows]


def fields(stack):
    """The field after each window."""
    return [receptive_field(stack[: i + 1]) for i in range(len(stack))]


def sizes_by_the_script(size, rows):
    """The notes' loop; in Python 2 its division of integers rounds down."""
    sizes, stride = [], 1
    for k, s, p in rows:
        size = (size - k + 2 * p) // s + 1
        stride *= s
        sizes.append((size, stride))
    return sizes


RF_ALEXNET = [11, 19, 51, 67, 99, 131, 163, 195]
RF_VGG16 = [3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212]
RF_ZF5 = [7, 11, 27, 43, 75, 107, 139]


@pytest.mark.parametrize(
    ("rows", "sizes"), [(ALEXNET, RF_ALEXNET), (VGG16, RF_VGG16), (ZF5, RF_ZF5)]
)
def test_receptive_fields_of_the_notes(rows, sizes):
    """CA4, CA5, CA7, F6: bottom-up, top-down and the table agree."""
    stack = windows(rows)
    assert [f.size for f in fields(stack)] == sizes
    assert [receptive_field_top_down(stack[: i + 1]) for i in range(len(stack))] == sizes


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [
        (ALEXNET, 227, [55, 27, 27, 13, 13, 13, 13, 6]),
        (ALEXNET, 224, [54, 26, 26, 12, 12, 12, 12, 5]),
        (VGG16, 224, [224, 224, 112, 112, 112, 56, 56, 56, 56, 28] + [28] * 3 + [14] * 4 + [7]),
        (ZF5, 224, [112, 56, 28, 14, 14, 14, 14]),
    ],
)
def test_sizes_of_the_notes(rows, size, expected):
    """CA6, CA7, F6: `outFromIn`, with the floor that Python 3 no longer gives (E16)."""
    stack = windows(rows)
    assert list(feature_sizes(size, stack)) == expected
    jumps = [f.jump for f in fields(stack)]
    assert sizes_by_the_script(size, rows) == list(zip(expected, jumps, strict=True))


def test_strides_of_the_notes():
    assert [f.jump for f in fields(windows(ZF5))] == [2, 4, 8, 16, 16, 16, 16]
    assert receptive_field(windows(VGG16)).jump == 32


def test_alexnet_pools_that_round_up():
    """E12: at 224, the floor gives 26, 12, 5 after the pools and Caffe's ceiling 27, 13, 6."""

    def run(ceil_mode):
        size, sizes = 224, []
        for i, w in enumerate(windows(ALEXNET)):
            size = w.output_size(size, ceil_mode and i in ALEXNET_POOLS)
            sizes.append(size)
        return sizes

    assert run(True) == [54, 27, 27, 13, 13, 13, 13, 6]
    assert [run(False)[i] for i in ALEXNET_POOLS] == [26, 12, 5]


def test_python_3_division_gives_fractions():
    """E16: AlexNet's first layer does not divide 224; it takes 227, or a padding of 2."""
    assert (224 - 11) / 4 + 1 == 54.25
    assert (54.25 - 3) / 2 + 1 == 26.625
    assert conv_output_size(224, 11, 4) == 54
    assert conv_output_size(227, 11, 4) == (227 - 11) / 4 + 1 == 55
    assert conv_output_size(224, 11, 4, 2) == 55


def test_the_product_of_strides_leaves_out_the_own_stride():
    """E14: with the layer's own stride AlexNet would read 41, 57, 89."""
    size, jump, wrong = 1, 1, []
    for k, s, _ in ALEXNET[:3]:
        jump *= s
        size += (k - 1) * jump
        wrong.append(size)
    assert wrong == [41, 57, 89]
    assert [f.size for f in fields(windows(ALEXNET[:3]))] == [11, 19, 51]


# Published receptive fields: size / effective stride / effective padding


def triple(field):
    return field.size, field.jump, field.padding


def test_alexnet_v2_row_by_row():
    """conv1, pool1, conv2, pool2, conv3, conv4, conv5, pool5; SAME after the first."""
    rows = [triple(f) for f in fields(windows(ALEXNET))]
    assert rows == [
        (11, 4, 0), (19, 8, 0), (51, 8, 16), (67, 16, 16),
        (99, 16, 32), (131, 16, 48), (163, 16, 64), (195, 32, 64),
    ]  # fmt: skip


def test_vgg():
    vgg_a = [C, P, C, P, C, C, P, C, C, P, C, C, P]
    assert triple(receptive_field(windows(vgg_a))) == (150, 32, 59)
    assert triple(receptive_field(windows(VGG16))) == (212, 32, 90)


def test_mobilenet_v1():
    """SAME at stride 2 on an even size pads (0, 1); every depthwise is followed by 1x1."""
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    field = ReceptiveField().then(Window(3, 2, (0, 1)))
    sizes = []
    for s in strides:
        field = field.then(Window(3, s, (0, 1) if s == 2 else 1)).then(Window(1))
        sizes.append(field.size)
    assert sizes == [7, 11, 19, 27, 43, 59, 91, 123, 155, 187, 219, 251, 315]
    assert triple(field) == (315, 32, 126)


def resnet(units, stride_in_last_unit):
    """A bottleneck ResNet with its shortcuts; returns the field of the last map."""
    stem = Window(3, 2, (0, 1) if stride_in_last_unit else 1)
    field = receptive_field([Window(7, 2, 3), stem])
    for stage, count in enumerate(units):
        for unit in range(count):
            if stride_in_last_unit:
                stride = 2 if stage < 3 and unit == count - 1 else 1
            else:
                stride = 2 if stage > 0 and unit == 0 else 1
            main = field.then(Window(1)).then(Window(3, stride, 1)).then(Window(1))
            field = main.union(field.then(Window(1, stride)))
    return field


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ((3, 4, 6, 3), (483, 32, 239)),
        ((3, 4, 23, 3), (1027, 32, 511)),
        ((3, 8, 36, 3), (1507, 32, 751)),
    ],
)
def test_resnet_v1_with_its_shortcuts(units, expected):
    assert triple(resnet(units, stride_in_last_unit=True)) == expected


def test_resnet_50_with_the_stride_first():
    field = resnet((3, 4, 6, 3), stride_in_last_unit=False)
    assert (field.size, field.jump) == (427, 32)


def test_inception_v3_with_all_its_branches():
    """Mixed_5b to Mixed_7c along the width; every branch, joined by their hull."""
    one, three, same, down = Window(1), Window(3), Window(3, 1, 1), Window(3, 2)
    row5, row7 = Window(5, 1, 2), Window(7, 1, 3)

    def mixed(field, *branches):
        joined = None
        for branch in branches:
            end = field
            for window in branch:
                end = end.then(window)
            joined = end if joined is None else joined.union(end)
        return joined

    block_a = [one], [one, row5], [one, same, same], [same, one]
    block_b = [down], [one, same, down], [down]
    # 1x7 spans the width, 7x1 does not; a block has one, then two of them
    block_c = [one], [one, row7, one], [one, one, row7, one, row7], [same, one]
    block_d = [one, down], [one, row7, one, down], [down]
    # 1x3 and 3x1 side by side, at the end of two of the branches
    split = [[one, row3] for row3 in (same, one)], [[one, same, row3] for row3 in (same, one)]
    block_e = [one], *split[0], *split[1], [same, one]

    field = receptive_field([down, three, same, down, one, three, down])
    sizes = []
    for block in [block_a] * 3 + [block_b] + [block_c] * 4 + [block_d] + [block_e] * 2:
        field = mixed(field, *block)
        sizes.append(field.size)
    assert sizes == [63, 95, 127, 159, 351, 543, 735, 927, 1055, 1183, 1311]
    assert triple(field) == (1311, 32, 618)


# Parameter counts and ratios


def test_parameters_of_lenet_alexnet_and_vgg16():
    def convs(channels, kernels):
        pairs = zip(channels, channels[1:], kernels, strict=False)
        return sum(conv_parameters((k, k), a, b) for a, b, k in pairs)

    def denses(*features):
        return sum(dense_parameters(a, b) for a, b in pairwise(features))

    assert convs([1, 6, 16], [5, 5]) + denses(400, 120, 84, 10) == 61_706
    alexnet = convs([3, 64, 192, 384, 256, 256], [11, 5, 3, 3, 3])
    assert alexnet + denses(256 * 36, 4096, 4096, 1000) == 61_100_840
    vgg = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert convs(vgg, [3] * 13) + denses(512 * 49, 4096, 4096, 1000) == 138_357_544


def macs(size, kernel, c_in, c_out, **options):
    return conv_macs((size, size), kernel, c_in, c_out, **options).multiplications


def test_two_small_kernels_for_one_large():
    """C109, CA17, F10: the field of 5x5 with 0.72 of its parameters, at equal channels, no bias."""
    assert receptive_field([Window(3)] * 2).size == receptive_field([Window(5)]).size == 5
    assert kernel_stack_ratio([3, 3]) == Fraction(18, 25) == Fraction(72, 100)
    assert kernel_stack_ratio([3, 3], channels=64) == Fraction(18, 25)
    assert round(float(kernel_stack_ratio([3, 3], channels=64, bias=True)), 4) == 0.7208
    assert kernel_stack_ratio([3, 3, 3]) == Fraction(27, 49)
    assert kernel_stack_ratio([3, 3], axes=1) > 1  # no gain in one dimension

    same = 2 * macs(32, (3, 3), 8, 8, padding=1), macs(32, (5, 5), 8, 8, padding=2)
    assert Fraction(*same) == Fraction(18, 25)
    valid = macs(32, (3, 3), 8, 8) + macs(30, (3, 3), 8, 8), macs(32, (5, 5), 8, 8)
    assert round(valid[0] / valid[1], 3) == 0.773


@pytest.mark.parametrize(("k", "c_in", "c_out"), [(3, 32, 256), (5, 6, 4), (1, 3, 3)])
def test_cheap_convolutions_against_their_counts(k, c_in, c_out):
    """F11: the ratios are those of the multiplications counted."""
    n, p = 12, (k - 1) // 2
    full = macs(n, (k, k), c_in, c_out, padding=p)
    depthwise = macs(n, (k, k), c_in, c_in, padding=p, groups=c_in)
    assert depthwise_separable_ratio((k, k), c_out) == Fraction(
        depthwise + macs(n, (1, 1), c_in, c_out), full
    )
    rows = macs(n, (1, k), c_in, c_in, padding=(0, p)) + macs(n, (k, 1), c_in, c_in, padding=(p, 0))
    assert factorised_ratio(k) == Fraction(rows, macs(n, (k, k), c_in, c_in, padding=p))
    via = macs(n, (1, 1), c_in, 2) + macs(n, (k, k), 2, c_out, padding=p)
    assert bottleneck_ratio((k, k), c_in, 2, c_out) == Fraction(via, full)
    grouped = macs(n, (k, k), 8, 8, padding=p, groups=4)
    assert Fraction(grouped, macs(n, (k, k), 8, 8, padding=p)) == Fraction(1, 4)


def test_cheap_convolutions_of_the_notes():
    assert round(float(depthwise_separable_ratio((3, 3), 256)), 3) == 0.115
    direct = macs(28, (5, 5), 192, 32, padding=2)
    via = macs(28, (1, 1), 192, 16) + macs(28, (5, 5), 16, 32, padding=2)
    assert round(direct / via, 2) == 9.68
    assert factorised_ratio(7) == Fraction(2, 7)


# Other figures of the notes


def test_seven_times_two_to_the_n():
    """CA16, F55, E10, E11: 112, 224 and 448, not 228, for factors 1/2^4, 1/2^5 and 1/2^6."""
    assert [input_size_rule(n) for n in (4, 5, 6)] == [112, 224, 448]
    assert abs(300 - 228) < abs(300 - 224)  # with 228 the argument for 224 would fail
    for n in (4, 5, 6):
        assert feature_sizes(input_size_rule(n), [Window(2, 2)] * n)[-1] == 7
    assert input_size_rule(3, final=5) == 40


def test_ngram_tables():
    """CA12, E83: powers of a vocabulary of 10^5, but a text of 10^5 words holds far fewer."""
    assert [ngram_table_size(10**5, n) for n in (1, 2)] == [10**5, 10**5 + 10**10]
    assert ngram_table_size(10**5, 4) == 100_001_000_010_000_100_000
    assert ngram_count_limit(10**5, 4) == 4 * 10**5 - 6 == 399_994
    text = range(50)  # all words distinct: the limit is reached
    distinct = {tuple(text[i : i + n]) for n in (1, 2, 3, 4) for i in range(51 - n)}
    assert ngram_count_limit(50, 4) == len(distinct)
    assert ngram_count_limit(2, 4) == 3


def test_iterations_of_the_notes():
    """CA14, E72."""
    assert iterations_per_epoch(2000, 500) == 4
    assert iterations_per_epoch(60_000, 256) == 235
    assert 235 * 256 != 60_000


def test_a_thousand_asynchronous_tasks():
    """CA13, F44: t1 + 1000*t2 + t3 where computing is the slower part, else up to t1 more."""
    assert queue_times(1000, 2, 5, 3) == (10_000, 2 + 5000 + 3)
    t1, t2, t3 = 1000, 1000 - Fraction(1, 2), 7  # 1000*t2 > 999*t1, and yet t2 < t1
    assert 1000 * t2 > 999 * t1
    assert queue_times(1000, t1, t2, t3).asynchronous == 1000 * t1 + t2 + t3
    assert queue_times(1000, t1, t2, t3).asynchronous > t1 + 1000 * t2 + t3


def test_pools_of_the_notes_pad_and_round_down():
    """E12: ZF-5's pools are 3/2 with padding 1, rounded down."""
    assert pool_output_size(112, 3, 2, 1) == 56
    assert (112 + 2 - 3) / 2 + 1 == 56.5
