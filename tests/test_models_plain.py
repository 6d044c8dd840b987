"""AlexNet, ZF-5, VGG and network in network: counts, sizes, and what the notes say of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import apply, init, layers, models, output_shape, summarize
from jaxd2l.geometry import conv_macs, input_size_rule, kernel_stack_ratio
from jaxd2l.layers import Conv, Dense, Dropout, MaxPool, Serial, walk
from jaxd2l.models import blocks, d2l
from jaxd2l.models.vgg import vgg, vgg_body

IMAGENET, FASHION = (224, 224, 3), (224, 224, 1)
VGGS = {11: models.vgg11, 13: models.vgg13, 16: models.vgg16, 19: models.vgg19}


def steps(net, shape, kind):
    return [step for step in walk(net, shape) if isinstance(step.layer, kind)]


def parameters(net, shape, kind):
    """Counted from kernels and biases, not by the layers' own declarations."""
    total = 0
    for step in steps(net, shape, kind):
        inputs, layer = step.input_shape[-1], step.layer
        taps = np.prod(getattr(layer, "kernel", 1)) // getattr(layer, "groups", 1)
        total += int(taps * inputs * layer.features) + layer.features * layer.bias
    return total


@pytest.mark.parametrize(
    ("net", "shape", "count"),
    [
        (models.alexnet(), IMAGENET, 61_100_840),
        (models.vgg11(), IMAGENET, 132_863_336),
        (models.vgg13(), IMAGENET, 133_047_848),
        (models.vgg16(), IMAGENET, 138_357_544),
        (models.vgg19(), IMAGENET, 143_667_240),
        (models.nin(), IMAGENET, 7_595_176),  # a Caffe file of 29 MB: 4 bytes a number
        (models.zf5(), IMAGENET, 62_357_608),
        (d2l.alexnet(), FASHION, 46_764_746),
        (d2l.nin(), FASHION, 1_992_166),
        (d2l.vgg(), FASHION, 128_806_154),
    ],
)
def test_parameters(net, shape, count):
    """M8-M11."""
    assert summarize(net, shape).parameters == count
    assert parameters(net, shape, (Conv, Dense)) == count
    assert output_shape(net, shape) == ((1000,) if shape == IMAGENET else (10,))


@pytest.mark.parametrize(
    "net",
    [
        models.alexnet(7),
        models.vgg11(7),
        models.zf5(7),
        models.nin(7),
        d2l.alexnet(7),
        d2l.vgg(),
        d2l.nin(),
    ],
)
def test_the_last_arrays_are_those_of_the_output(net):
    named = steps(net, IMAGENET, (Conv, Dense))
    last = [step for step in named if step.path.split("/")[0] == "output"]
    assert last == named[-len(last) :]
    assert len(last) == (3 if net == d2l.nin() else 1)


def test_nin_pools_as_caffe_does():
    """M11: 54, 27, 13, 6 pixels; rounded down they would be 54, 26, 12, 5 as in the book."""
    found = [s.output_shape[0] for s in steps(models.nin(), IMAGENET, MaxPool)]
    assert found == [27, 13, 6]


def test_the_caffe_file_of_nin_holds_four_bytes_a_number():
    assert round(4 * summarize(models.nin(), IMAGENET).parameters / 2**20) == 29


def printed(net, shape):
    """The output of each child of the network, as the book prints it: pools, blocks, head."""
    shapes = []
    for layer in net.layers:
        parts = layer.layers if isinstance(layer, Serial) and layer.name is None else (layer,)
        for part in parts:
            shape = output_shape(part, shape)
            shapes.append(shape)
    return shapes


def test_the_shapes_that_the_book_prints():
    """D2L 8.1, 8.2, 8.3, without the lines that repeat the size (ReLU, dropout)."""

    def changes(net):
        shapes = printed(net, FASHION)
        return [s for before, s in zip([None, *shapes], shapes, strict=False) if s != before]

    assert changes(d2l.alexnet()) == [
        (54, 54, 96),
        (26, 26, 96),
        (26, 26, 256),
        (12, 12, 256),
        (12, 12, 384),  # and once more
        (12, 12, 256),
        (5, 5, 256),
        (6400,),
        (4096,),  # and once more
        (10,),
    ]
    assert changes(d2l.vgg()) == [
        (112, 112, 64),
        (56, 56, 128),
        (28, 28, 256),
        (14, 14, 512),
        (7, 7, 512),
        (25088,),
        (4096,),
        (10,),
    ]
    assert changes(d2l.nin()) == [
        (54, 54, 96),
        (26, 26, 96),
        (26, 26, 256),
        (12, 12, 256),
        (12, 12, 384),
        (5, 5, 384),
        (5, 5, 10),
        (10,),
    ]


def paper_alexnet(groups):
    """Krizhevsky et al. 2012 as one column: groups=2 is the split over two cards."""

    def conv(name, features, kernel, stride, padding, groups=1):
        return Conv(name, features, kernel, stride, padding, groups=groups)

    return Serial(
        [
            conv("conv1", 96, 11, 4, 0),
            blocks.RELU,
            layers.LocalResponseNorm(),
            MaxPool(3, 2),
            conv("conv2", 256, 5, 1, 2, groups),
            blocks.RELU,
            layers.LocalResponseNorm(),
            MaxPool(3, 2),
            conv("conv3", 384, 3, 1, 1),
            blocks.RELU,
            conv("conv4", 384, 3, 1, 1, groups),
            blocks.RELU,
            conv("conv5", 256, 3, 1, 1, groups),
            blocks.RELU,
            MaxPool(3, 2),
            blocks.dense_head((4096, 4096), 1000),
        ]
    )


def test_alexnet_of_the_paper():
    """M8: 227 pixels give 55, 27, 27, 13, 13, 13, 13, 6; parameters with and without groups."""
    assert summarize(paper_alexnet(1), (227, 227, 3)).parameters == 62_378_344
    assert summarize(paper_alexnet(2), (227, 227, 3)).parameters == 60_965_224
    body = blocks.alexnet_body((96, 256, 384, 384, 256), padding=0)
    for net in (paper_alexnet(2), body):
        sizes = [s.output_shape[0] for s in steps(net, (227, 227, 3), (Conv, MaxPool))]
        assert sizes == [55, 27, 27, 13, 13, 13, 13, 6]
        fields = [
            row.receptive_field[0]
            for row in summarize(net, (227, 227, 3)).rows
            if row.kind in ("Conv", "MaxPool")
        ]
        assert fields == [11, 19, 51, 67, 99, 131, 163, 195]  # F6


def test_zf5_sizes_and_fields():
    """M10, F6: 224 pixels give 112, 56, 28, 14."""
    windows = steps(models.zf5(), IMAGENET, (Conv, MaxPool))
    assert [s.output_shape[0] for s in windows] == [112, 56, 28, 14, 14, 14, 14, 6]
    rows = [r for r in summarize(models.zf5(), IMAGENET).rows if r.kind in ("Conv", "MaxPool")]
    assert [r.receptive_field[0] for r in rows[:7]] == [7, 11, 27, 43, 75, 107, 139]
    assert [r.jump[0] for r in rows[:7]] == [2, 4, 8, 16, 16, 16, 16]


@pytest.mark.parametrize(
    ("depth", "convs", "millions"),
    [
        (11, 8, 9.22),
        (13, 10, 9.40),
        (16, 13, 14.71),
        (19, 16, 20.02),
    ],
)
def test_vgg_depth_and_convolution_parameters(depth, convs, millions):
    """F49: depth = convolutions + 3."""
    net = VGGS[depth]()
    assert len(steps(net, IMAGENET, Conv)) == convs
    assert len(steps(net, IMAGENET, (Conv, Dense))) == depth
    assert round(parameters(net, IMAGENET, Conv) / 1e6, 2) == millions


def test_vgg16_receptive_fields():
    """F6."""
    rows = summarize(vgg_body(((2, 1), (2, 1), (3, 1), (3, 1), (3, 1))), IMAGENET).rows
    fields = [row.receptive_field[0] for row in rows if row.kind in ("Conv", "MaxPool")]
    assert fields == [3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212]


def test_seven_pixels_are_left_because_224_is_7_times_2_to_the_5():
    """C133: five blocks halve the size; 448 would leave 7 after six."""
    arch = ((1, 1),) * 5
    assert input_size_rule(5) == 224
    assert output_shape(vgg_body(arch), (224, 224, 3)) == (7, 7, 1)
    assert output_shape(vgg_body((*arch, (1, 1))), (448, 448, 3)) == (7, 7, 1)
    assert all(output_shape(vgg_body(arch), (n, n, 3))[0] == 7 for n in range(224, 256))


def test_alexnet_has_fewer_parameters_than_vgg():
    """C121 is false: the notes say that AlexNet has more."""
    ours, book = summarize(models.alexnet(), IMAGENET), summarize(d2l.alexnet(), FASHION)
    for depth in VGGS:
        assert ours.parameters < 0.5 * summarize(VGGS[depth](), IMAGENET).parameters
    assert book.parameters < 0.5 * summarize(d2l.vgg(), FASHION).parameters
    assert ours.macs < 0.1 * summarize(models.vgg16(), IMAGENET).macs


def test_nin_and_googlenet_are_far_smaller():
    """C122: 1.99M and 5.98M against 46.8M; 7.6M and 6.6M against 61.1M and 138M."""
    book = summarize(d2l.alexnet(), FASHION).parameters
    assert book / summarize(d2l.nin(), FASHION).parameters > 23
    assert book / summarize(d2l.googlenet(), FASHION).parameters > 7.8
    published = summarize(models.alexnet(), IMAGENET).parameters
    assert published / summarize(models.nin(), IMAGENET).parameters > 8  # "one eighth the size"
    assert published / summarize(models.googlenet(), IMAGENET).parameters > 9


def test_a_global_pool_in_place_of_dense_layers_saves_parameters():
    """C132, the half on parameters: 89 to 96 % of VGG's and AlexNet's stand in dense layers."""
    for net, share in ((models.vgg16(), 0.89), (models.vgg11(), 0.93), (models.alexnet(), 0.96)):
        dense = parameters(net, IMAGENET, Dense)
        assert round(dense / summarize(net, IMAGENET).parameters, 2) == share
    assert not steps(models.nin(), IMAGENET, Dense)
    pooled = Serial([vgg_body(((1, 8), (1, 16))), layers.GlobalAvgPool(), Dense("output", 10)])
    flat = Serial([vgg_body(((1, 8), (1, 16))), layers.Flatten(), Dense("output", 10)])
    heads = [parameters(net, (56, 56, 1), Dense) for net in (flat, pooled)]
    assert heads == [14 * 14 * 16 * 10 + 10, 16 * 10 + 10]


def test_small_kernels_stacked_cost_less():
    """F10: two 3x3 see what one 5x5 sees, for 18/25 of its parameters and multiplications."""
    stack = blocks.vgg_block("block", 2, 64).layers[:2]
    two, one = Serial(stack), Serial([blocks.conv_relu("conv", 64, 5)])
    shape = (32, 32, 64)
    a, b = summarize(two, shape), summarize(one, shape)
    assert a.rows[-1].receptive_field == b.rows[-1].receptive_field == (5, 5)
    assert a.parameters / b.parameters == float(kernel_stack_ratio([3, 3], channels=64, bias=True))
    assert round(a.parameters / b.parameters, 4) == 0.7208
    padded = [
        sum(conv_macs((32, 32), k, 1, 1, padding=k // 2).multiplications for k in kernels)
        for kernels in ((3, 3), (5,))
    ]
    valid = [
        sum(conv_macs((n, n), k, 1, 1).multiplications for k, n in kernels)
        for kernels in (((3, 32), (3, 30)), ((5, 32),))
    ]
    assert round(valid[0] / valid[1], 3) == 0.773
    assert padded[0] < padded[1]
    assert a.macs / b.macs == 18 / 25


def test_where_dropout_stands():
    """torchvision's AlexNet drops before each hidden layer, VGG and the book after."""

    def kinds(net):
        head = [s.layer for s in walk(net, IMAGENET) if isinstance(s.layer, Dense | Dropout)]
        return "".join(type(layer).__name__[1] for layer in head)  # e(nse) or r(opout)

    assert kinds(models.alexnet()) == "reree"
    assert kinds(models.vgg11()) == kinds(d2l.alexnet()) == kinds(d2l.vgg()) == "erere"
    assert kinds(models.nin()) == kinds(d2l.nin()) == "r"
    for net in (models.alexnet(), models.vgg11(), models.zf5(), models.nin(), d2l.nin()):
        assert {s.layer.rate for s in steps(net, IMAGENET, Dropout)} == {0.5}


def test_an_mlpconv_layer_is_a_dense_network_at_every_position(key, strict_promotion):
    net = blocks.nin_block("block", (4, 5, 3), 3, padding=1)
    shape = (5, 4, 2)
    params, state = init(
        net, key, shape, initializers={"*/bias": lambda k, s, d, f: jnp.ones(s, d)}
    )
    x = jax.random.normal(key, (2, *shape))
    y = np.asarray(jax.jit(lambda x: apply(net, params, state, x)[0])(x))

    p = jax.tree.map(np.asarray, params["block"])
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for row, column in ((0, 0), (2, 3), (4, 1)):
        patch = padded[:, row : row + 3, column : column + 3]
        h = patch.reshape(2, -1) @ p["conv"]["kernel"].reshape(18, 4) + p["conv"]["bias"]
        for name in ("mlp1", "mlp2"):
            h = np.maximum(h, 0) @ p[name]["kernel"][0, 0] + p[name]["bias"]
        np.testing.assert_allclose(y[:, row, column], np.maximum(h, 0), rtol=1e-5, atol=1e-6)


def test_adaptive_pools_take_images_of_any_size():
    for size in (64, 97, 300):
        assert output_shape(models.alexnet(), (size, size, 3)) == (1000,)
        assert output_shape(models.vgg11(), (size, size, 3)) == (1000,)
    shapes = {s.path: s.input_shape for s in walk(models.alexnet(), IMAGENET)}
    assert shapes["adaptive_avg_pool"] == (6, 6, 256)  # nothing to do at 224
    shapes = {s.path: s.input_shape for s in walk(models.vgg16(), IMAGENET)}
    assert shapes["adaptive_avg_pool"] == (7, 7, 512)


def test_vgg_needs_features_for_each_block():
    with pytest.raises(ValueError, match="one entry per block"):
        vgg((1, 1), features=(8,))


def test_a_narrow_vgg_learns_its_batch(key):
    """The tiny forms run, with gradients that reach the first layer."""
    net = d2l.vgg(((1, 4), (1, 8)), 3, hidden=8)
    x = jax.random.normal(key, (6, 8, 8, 1))
    labels = jnp.arange(6) % 3
    params, state = init(net, key, x.shape[1:])

    @jax.jit
    def step(params):
        def loss(params):
            logits, _ = apply(net, params, state, x)
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

        value, grads = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), grads

    values = []
    for _ in range(150):
        value, params, grads = step(params)
        values.append(float(value))
    assert float(jnp.abs(grads["block1"]["conv1"]["kernel"]).max()) > 0
    assert values[-1] < 0.1 < 1 < values[0]
