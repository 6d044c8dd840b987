"""Highway networks, ERFNet and IGCNet, with their blocks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxd2l
from jaxd2l import layers
from jaxd2l.models.blocks import factorised_residual, highway_block, interleaved_block
from jaxd2l.models.erfnet import erfnet
from jaxd2l.models.highway import highway, highway_cnn
from jaxd2l.models.igc import igc

FAST = {"xla_backend_optimization_level": 0}  # every program runs once


def batch(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), dtype)


def shaken(tree, dtype=jnp.float32):
    """Arrays of these shapes with all values different."""
    random = np.random.RandomState(3)
    return jax.tree.map(lambda a: jnp.asarray(random.uniform(0.2, 1.0, a.shape), dtype), tree)


def shapes(net, shape):
    return jax.eval_shape(lambda key: jaxd2l.init(net, key, shape), jax.random.key(0))


def parameters(net, shape):
    return jaxd2l.summarize(net, shape).parameters


def conv2d(x, params, **call):
    y = lax.conv_general_dilated(
        x,
        params["kernel"],
        call.pop("strides", (1, 1)),
        call.pop("padding", "SAME"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        **call,
    )
    return y + params["bias"] if "bias" in params else y


# Highway


@pytest.mark.parametrize(
    ("net", "shape"),
    [(highway_block("unit", 4, activation="tanh"), (4,)), (highway_block("unit", 3, 3), (5, 4, 3))],
    ids=["dense", "conv"],
)
def test_a_highway_block_is_the_papers_formula_and_its_limits_are_the_identity_and_the_layer(
    net, shape
):
    params, _ = shaken(shapes(net, shape))
    x = batch(2, *shape)
    own = params["unit"]

    def affine(p):
        return conv2d(x, p) if len(shape) == 3 else x @ p["kernel"] + p["bias"]

    activation = jax.nn.relu if len(shape) == 3 else jnp.tanh
    plain = activation(affine(own["transform"]))
    gate = jax.nn.sigmoid(affine(own["gate"]))

    @functools.partial(jax.jit, compiler_options=FAST)
    def run(bias):
        gated = {"unit": own | {"gate": own["gate"] | {"bias": bias}}}
        return jaxd2l.apply(net, gated, {}, x)[0]

    y = run(own["gate"]["bias"])
    np.testing.assert_allclose(y, gate * plain + (1 - gate) * x, rtol=1e-5, atol=1e-5)
    far = jnp.full_like(own["gate"]["bias"], 1000.0)
    np.testing.assert_array_equal(run(-far), x)
    np.testing.assert_allclose(run(far), plain, rtol=1e-5, atol=1e-5)


def test_forty_highway_layers_start_near_the_identity_where_plain_ones_let_nothing_through():
    body, x = layers.Repeat(highway_block("units", 8, activation="tanh"), 40), batch(8)
    random = np.random.RandomState(1)
    units = jax.tree.map(
        lambda a: jnp.asarray(random.normal(size=a.shape, scale=8**-0.5), jnp.float32),
        shapes(body, (8,))[0]["units"],
    )

    @functools.partial(jax.jit, compiler_options=FAST)
    def slope(bias):
        gated = {"units": units | {"gate": units["gate"] | {"bias": bias}}}
        return jax.jacobian(lambda x: jaxd2l.apply(body, gated, {}, x[None])[0][0])(x)

    closed, opened = (slope(jnp.full((40, 8), bias)) for bias in (-8.0, 24.0))
    np.testing.assert_allclose(closed, np.eye(8), atol=0.1)
    assert float(jnp.linalg.norm(opened)) < 0.1 * float(jnp.linalg.norm(closed))


def test_the_gates_bias_starts_below_zero():
    params, _ = jaxd2l.init(highway_block("unit", 2, gate_bias=-3), jax.random.key(0), (2,))
    assert params["unit"]["gate"]["bias"].tolist() == [-3, -3]
    assert params["unit"]["transform"]["bias"].tolist() == [0, 0]


def test_highway_parameters_are_the_papers():
    layer = highway_block("unit", 50)
    assert parameters(layer, (50,)) == 2 * (50 * 50 + 50) == 5100
    assert parameters(layers.Dense("plain", 71), (71,)) == 5112  # "roughly identical"
    for blocks in (1, 9, 19, 49, 99):
        want = (784 * 50 + 50) + blocks * 5100 + (50 * 10 + 10)
        assert parameters(highway(blocks=blocks), (28, 28, 1)) == want
    counts = [parameters(highway_cnn(width=width), (28, 28, 1)) for width in (16, 32)]
    assert [round(count / 1000) for count in counts] == [39, 151]
    assert jaxd2l.output_shape(highway_cnn(), (28, 28, 1)) == (10,)
    convolutions = [s for s in jaxd2l.layers.walk(highway_cnn(), (28, 28, 1)) if "gate" in s.path]
    assert len(convolutions) + 2 == 10


def test_highway_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="cannot be combined by 'add': the shapes must be equal"):
        jaxd2l.output_shape(highway_block("unit", 4), (3,))
    with pytest.raises(ValueError, match="highway: blocks must be at least 1, got 0"):
        highway(blocks=0)
    with pytest.raises(TypeError, match="highway_block 'unit': gate_bias must be a number"):
        highway_block("unit", 4, gate_bias="low")


# ERFNet


def test_a_factorised_residual_is_two_pairs_and_the_input():
    net = factorised_residual("unit", 3, dilation=2)
    params, state = shaken(shapes(net, (7, 6, 3)))
    x = batch(2, 7, 6, 3)
    p, s = params["unit"], state["unit"]

    def bn(x, name):
        scaled = (x - s[name]["mean"]) / jnp.sqrt(s[name]["var"] + 1e-3)
        return scaled * p[name]["scale"] + p[name]["bias"]

    @functools.partial(jax.jit, compiler_options=FAST)
    def both():
        h = conv2d(jax.nn.relu(conv2d(x, p["conv3x1_1"])), p["conv1x3_1"])
        h = conv2d(jax.nn.relu(bn(h, "bn1")), p["conv3x1_2"], rhs_dilation=(2, 1))
        h = bn(conv2d(jax.nn.relu(h), p["conv1x3_2"], rhs_dilation=(1, 2)), "bn2")
        return jaxd2l.apply(net, params, state, x)[0], jax.nn.relu(h + x)

    got, want = both()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert "dropout" not in repr(net)
    assert "Dropout(name='dropout', rate=0.3)" in repr(factorised_residual("u", 3, dropout=0.3))


@pytest.mark.parametrize("k", [3, 5, 7])
def test_a_factorised_convolution_has_two_kths_of_the_weights(k):
    full = layers.Conv("conv", 8, k, padding="same", bias=False)
    pair = layers.Serial(
        [
            layers.Conv("a", 8, (k, 1), padding="same", bias=False),
            layers.Conv("b", 8, (1, k), padding="same", bias=False),
        ]
    )
    tables = [jaxd2l.summarize(net, (9, 9, 8)) for net in (full, pair)]
    assert tables[1].parameters * k == tables[0].parameters * 2 == 2 * k * k * 64
    assert tables[1].macs * k == tables[0].macs * 2
    assert tables[1].rows[-1].receptive_field == tables[0].rows[-1].receptive_field


def test_erfnet_is_the_published_one():
    table = jaxd2l.summarize(erfnet(), (512, 1024, 3))

    def norm(c):
        return 2 * c

    def down(i, o):
        return 9 * i * (o - i) + (o - i) + norm(o)

    def up(i, o):
        return 9 * i * o + o + norm(o)

    def unit(c):
        return 4 * (3 * c * c + c) + 2 * norm(c)

    encoder = down(3, 16) + down(16, 64) + 5 * unit(64) + down(64, 128) + 8 * unit(128)
    decoder = up(128, 64) + 2 * unit(64) + up(64, 16) + 2 * unit(16) + (4 * 16 * 20 + 20)
    assert table.parameters == encoder + decoder == 2_064_256
    assert table.rows[-1].output_shape == (512, 1024, 20)
    steps = {step.path: step.output_shape for step in layers.walk(erfnet(), (512, 1024, 3))}
    assert steps["encoder/stage1/down/bn"] == (256, 512, 16)
    assert steps["encoder/stage2/unit5/bn2"] == (128, 256, 64)
    assert steps["encoder/stage3/unit8/bn2"] == (64, 128, 128)
    assert steps["decoder/stage1/up/bn"] == (128, 256, 64)
    assert steps["decoder/stage2/unit2/bn2"] == (256, 512, 16)
    rates = [s.layer.rate for s in layers.walk(erfnet(), (64, 64, 3)) if "dropout" in s.path]
    assert rates == [0.03] * 5 + [0.3] * 8


def test_erfnet_halves_by_a_convolution_beside_a_pool():
    net = erfnet(3, channels=2, widths=(4, 6, 8), units=1, dilations=(2,))
    assert jaxd2l.output_shape(net, (16, 8, 2)) == (16, 8, 3)
    with pytest.raises(ValueError, match="cannot be concatenated"):
        jaxd2l.output_shape(net, (15, 8, 2))
    down = net.layers[0].layers[0].layers[0].layers[0]  # before norm and activation
    params, _ = shaken(shapes(down, (6, 4, 2)))
    x = batch(2, 6, 4, 2)
    y, _ = jaxd2l.apply(down, params, {}, x)
    pads = ((1, 1), (1, 1))
    want = conv2d(x, params["conv"], strides=(2, 2), padding=pads)
    np.testing.assert_allclose(y[..., :2], want, rtol=1e-5, atol=1e-5)
    pooled = np.asarray(x).reshape(2, 3, 2, 2, 2, 2).max(axis=(2, 4))
    np.testing.assert_array_equal(y[..., 2:], pooled)


# IGCNet


@pytest.mark.parametrize(("primary", "secondary"), [(2, 3), (4, 2)])
def test_interleaved_groups_connect_every_channel_with_every_other_over_one_path(
    primary, secondary
):
    features = primary * secondary
    block = interleaved_block("unit", features, primary)
    linear = layers.Serial(block.layers[:4], name="unit")
    params, _ = shaken(shapes(linear, (1, 1, features)))

    def kernel(net):
        """The matrix of the net on a map of one position, (out, in)."""
        slope = jax.jacobian(lambda x: jaxd2l.apply(net, params, {}, x)[0].ravel())
        x = jnp.zeros((1, 1, 1, features))
        return jax.jit(slope, compiler_options=FAST)(x).reshape(features, features)

    got = np.asarray(kernel(linear))
    first = np.asarray(params["unit"]["primary"]["kernel"][1, 1])  # (M, L M): the centre
    second = np.asarray(params["unit"]["secondary"]["kernel"][0, 0])  # (L, L M)
    want = np.zeros_like(got)
    for (l_in, m_in), (l_out, m_out) in itertools.product(
        itertools.product(range(primary), range(secondary)), repeat=2
    ):  # channel l M + m; inside, the one path goes over channel m_out of partition l_in
        inside = first[m_in, l_in * secondary + m_out]
        want[l_out * secondary + m_out, l_in * secondary + m_in] = (
            inside * second[l_in, m_out * primary + l_out]
        )
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert (got != 0).all()
    straight = layers.Serial([linear.layers[0], linear.layers[2]], name="unit")
    assert (kernel(straight) == 0).any()  # without permutations some are never connected


def test_interleaved_parameters_and_width_are_the_papers():
    for primary, secondary in ((24, 2), (4, 8), (32, 26)):
        width = primary * secondary
        block = parameters(interleaved_block("unit", width, primary), (8, 8, width)) - 2 * width
        assert block == width**2 * 9 // primary + width**2 // secondary
        plain = (block / 9) ** 0.5  # the width of a 3x3 convolution of as many weights
        assert width > plain  # as L / (L - 1) < M S
    # with one partition it never is:
    assert parameters(interleaved_block("unit", 6, 1), (8, 8, 6)) > 9 * 6 * 6 + 2 * 6


@pytest.mark.parametrize(
    ("primary", "secondary", "depth", "want"),
    [(24, 2, 8, 48442), (24, 2, 20, 155962), (4, 8, 38, 575914), (32, 26, 20, 23829322)],
)
def test_igc_is_the_authors(primary, secondary, depth, want):
    net = igc(10, primary, secondary, depth)
    width, count = primary * secondary, 27 * primary * secondary + 2 * primary * secondary
    last = width
    for factor in (1, 2, 4):
        out = width * factor
        for _ in range((depth - 2) // 3):
            count += 9 * last * out // primary + out * out // (secondary * factor) + 2 * out
            last = out
    assert parameters(net, (32, 32, 3)) == count + 10 * last + 10 == want
    steps = {step.path: step.output_shape for step in layers.walk(net, (32, 32, 3))}
    assert steps["stage3/unit1/bn"] == (8, 8, 4 * width)
    stored = shapes(net, (32, 32, 3))[0]["stage1"]
    assert ("units" in stored) == (depth == 38)


def test_igc_refuses_other_depths_and_partitions():
    with pytest.raises(ValueError, match=r"depth must be 5, 8, 11, ... \(2 \+ 3 n\), got 19"):
        igc(depth=19)
    with pytest.raises(ValueError, match="primary=5 must divide the 48 features"):
        interleaved_block("unit", 48, 5)
