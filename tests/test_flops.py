"""Operations counted from the jaxpr against closed forms, the summary and XLA's own count."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

import jaxd2l
from jaxd2l import layers, models
from jaxd2l.analysis import FlopCount, Uncounted, count_flops
from jaxd2l.geometry import (
    conv_macs,
    conv_transpose_macs,
    pool_cost,
    recurrent_parameters,
)
from jaxd2l.ops.conv import conv_transpose
from jaxd2l.testing import windows


def array(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def both(f, *args):
    count = count_flops(f, *args)
    assert count.unknown == ()
    assert not count.at_most
    return count.multiply_adds, count.other


# --- closed forms -----------------------------------------------------------------------------


@st.composite
def stacks(draw, transposed):
    rank = draw(st.integers(1, 3))
    made = [draw(windows(max_kernel=3, transposed=transposed)) for _ in range(rank)]
    sizes = tuple(draw(st.integers(1, 9)) for _ in range(rank))
    for window, size in zip(made, sizes, strict=True):
        try:
            window.output_size(size)
        except ValueError:
            assume(False)
    return made, sizes


@given(stacks(False), st.integers(1, 2), st.booleans())
def test_a_convolution_costs_its_closed_form(made, groups, bias):
    made, sizes = made
    kernel, stride, padding, dilation = (
        tuple(getattr(w, name) for w in made) for name in ("kernel", "stride", "sides", "dilation")
    )
    c_in, c_out = 2 * groups, 3 * groups
    layer = layers.Conv(
        "conv", c_out, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
        bias=bias,
    )  # fmt: skip
    expected = conv_macs(sizes, kernel, c_in, c_out, stride, padding, dilation, groups, bias)
    outputs = math.prod(layer.output_shape((*sizes, c_in)))
    assert network_count(layer, (*sizes, c_in)) == FlopCount(
        expected.multiplications, outputs * bias
    )


@given(stacks(True), st.integers(1, 2))
def test_a_transposed_convolution_costs_its_closed_form(made, groups):
    made, sizes = made
    names = ("kernel", "stride", "sides", "dilation", "output_padding")
    kernel, stride, padding, dilation, extra = (
        tuple(getattr(w, name) for w in made) for name in names
    )
    c_in, c_out = 2 * groups, 3 * groups

    def f(x, w):
        return conv_transpose(
            x, w, stride=stride, padding=padding, dilation=dilation, output_padding=extra,
            groups=groups,
        )  # fmt: skip

    x, w = array(1, *sizes, c_in), array(*kernel, c_in // groups, c_out)
    if max(stride) > 1:
        expected = conv_transpose_macs(
            sizes, kernel, c_in, c_out, stride, padding, dilation, extra, groups
        ).multiplications
    else:  # then it is an ordinary convolution of a padded input
        outputs = math.prod(jax.eval_shape(f, x, w).shape)
        expected = outputs * math.prod(kernel) * c_in // groups
    assert both(f, x, w) == (expected, 0)


@given(stacks(False))
@settings(max_examples=20)
def test_pooling_costs_its_closed_form(made):
    made, sizes = made
    kernel, stride, padding, dilation = (
        tuple(getattr(w, name) for w in made) for name in ("kernel", "stride", "sides", "dilation")
    )
    cost = pool_cost(sizes, kernel, 2, stride, padding, dilation)
    windows_of = {
        "window_dimensions": (1, *kernel, 1),
        "window_strides": (1, *stride, 1),
        "padding": ((0, 0), *padding, (0, 0)),
        "window_dilation": (1, *dilation, 1),
    }

    def pooled(start, combine):
        return lambda x: lax.reduce_window(x, start, combine, **windows_of)

    x = array(1, *sizes, 2)
    for start, combine in ((-np.inf, lax.max), (0.0, lax.add), (1.0, lax.mul)):
        assert both(pooled(start, combine), x) == (0, cost.operations)
    area = math.prod(kernel)
    mean = pool_cost(sizes, kernel, 2, stride, padding, dilation, average=True)
    assert both(lambda x: pooled(0.0, lax.add)(x) / area, x)[1] == mean.operations + mean.divisions


def network_count(net, shape):
    params, state = layers.declared(net, shape)
    first = next(iter(layers.walk(net, shape))).layer
    tokens = isinstance(first, layers.Embedding | layers.OneHot)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.int32 if tokens else jnp.float32)
    return count_flops(lambda *a: jaxd2l.apply(net, *a)[0], params, state, x)


@pytest.mark.parametrize("name", models.names())
def test_every_network_costs_what_its_summary_says(name):
    net, shape = models.build(name), models.input_shape(name)
    count = network_count(net, shape)
    scores = sum(  # products without parameters: queries with keys, weights with values
        2 * step.input_shape[0] ** 2 * step.input_shape[1]
        for step in layers.walk(net, shape)
        if isinstance(step.layer, layers.SelfAttention)
    )
    assert count.multiply_adds - scores == jaxd2l.summarize(net, shape).macs > 0
    assert count.flops == 2 * count.multiply_adds + count.other


def test_attention_costs_two_products_of_all_pairs():
    n, t, heads, d = 2, 6, 3, 8
    qkv = [array(n, t, heads, d)] * 3
    assert both(jax.nn.dot_product_attention, *qkv)[0] == n * 2 * heads * t * t * d


def test_recurrent_steps_cost_gates_times_inputs_and_states():
    n, d, h, length = 4, 3, 5, 7

    def lstm(w, carry, x):
        hidden, cell = carry
        i, f, o, g = jnp.split(x @ w["x"] + hidden @ w["h"] + w["b"], 4, axis=1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    def gru(w, hidden, x):
        r, z = jnp.split(jax.nn.sigmoid(x @ w["x"] + hidden @ w["h"] + w["b"]), 2, axis=1)
        new = jnp.tanh(x @ w["xn"] + (r * hidden) @ w["hn"] + w["bn"])
        hidden = z * hidden + (1 - z) * new
        return hidden, hidden

    def weights(gates, end=""):
        width = gates * h
        shapes = {"x": array(d, width), "h": array(h, width), "b": array(1, width)}
        return {name + end: shape for name, shape in shapes.items()}

    state, x = array(n, h), array(n, d)
    # per unit: 8 additions, 3 sigmoids, 2 tanh, 3 products and an addition
    step = both(lstm, weights(4), (state, state), x)
    assert step == (n * recurrent_parameters("lstm", d, h, 0), n * h * 17)
    # 4 + 2 additions, 2 sigmoids and a tanh, r*h, and z*h + (1 - z)*new
    assert both(gru, weights(2) | weights(1, "n"), state, x) == (
        n * recurrent_parameters("gru", d, h, 0),
        n * h * 14,
    )

    def sequence(w, carry, xs):
        return lax.scan(lambda carry, x: lstm(w, carry, x), carry, xs)

    xs = array(length, n, d)
    assert both(sequence, weights(4), (state, state), xs) == (length * step[0], length * step[1])


# --- XLA --------------------------------------------------------------------------------------


def xla(f, *args):
    """XLA's flops and transcendental functions, before it optimises."""
    cost = jax.jit(f).lower(*args).cost_analysis()
    return cost["flops"] + cost.get("transcendentals", 0)


def perceptron(params, x):
    for w, b in params[:-1]:
        x = jnp.maximum(x @ w + b, 0)
    return x @ params[-1][0] + params[-1][1]


PERCEPTRON = [(array(20, 30), array(30)), (array(30, 7), array(7))], array(8, 20)


def strided(x, w):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, w, (2, 1), "VALID", rhs_dilation=(1, 2), dimension_numbers=numbers, feature_group_count=2
    )


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (lambda a, b: a @ b, (array(3, 8, 20), array(3, 20, 5))),
        (strided, (array(2, 9, 11, 4), array(3, 2, 2, 6))),
        (perceptron, PERCEPTRON),
        (jax.grad(lambda p, x: perceptron(p, x).sum()), PERCEPTRON),
        (jax.nn.softmax, (array(8, 20),)),
        (jax.nn.dot_product_attention, (array(2, 6, 3, 8),) * 3),
        (lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 3), (1, 2), "VALID"), (array(8, 9),)),
    ],
)
def test_agrees_with_xla_where_xla_is_right(f, args):
    assert count_flops(f, *args).flops == xla(f, *args)


def test_xla_counts_a_loop_once_and_we_count_each_round():
    def f(x, w):
        return lax.scan(lambda x, _: (x @ w, None), x, None, length=10)[0]

    once = 2 * 4 * 5 * 5
    args = array(4, 5), array(5, 5)
    assert count_flops(f, *args).flops == 10 * once
    assert once <= xla(f, *args) < 2 * once


# --- the result, and mistakes -----------------------------------------------------------------


def test_the_count_says_what_it_holds():
    known = FlopCount(1000, 24)
    assert str(known) == "multiply-adds 1,000, other operations 24, FLOPs 2,024"
    loop = FlopCount(0, 1, (Uncounted("while", 2, known), Uncounted("svd", 1)))
    assert str(loop) == (
        "at least multiply-adds 0, other operations 1, FLOPs 1\n"
        "and an unknown number of times in 2 loops ('while'): multiply-adds 1,000, "
        "other operations 24, FLOPs 2,024\n"
        "and 'svd' once, at a cost that is not known"
    )
    assert (known.flops, loop.flops) == (2024, None)
    assert str(FlopCount(1, 0, at_most=True)).startswith("at most multiply-adds 1,")
    assert "with the costliest branches at least" in str(FlopCount(1, 0, loop.unknown, True))


def test_counts_add_up_and_repeat():
    part = FlopCount(3, 1, (Uncounted("svd", 2),), at_most=True)
    assert part * 3 + FlopCount(1, 1, (Uncounted("svd", 1), Uncounted("qr", 1))) == FlopCount(
        10, 4, (Uncounted("svd", 7), Uncounted("qr", 1)), at_most=True
    )
    assert part * 0 == FlopCount()


def test_mistakes_are_told():
    with pytest.raises(TypeError, match="f must be a function, got 3"):
        count_flops(3, 1.0)
    with pytest.raises(TypeError, match=r"args\[1\]\['mode'\] must be an array .* got 'fast'"):
        count_flops(jnp.add, 1.0, {"mode": "fast"})


def test_numbers_keys_and_networks_are_arguments_too():
    net = layers.Dense("dense", 4)
    params, state = jaxd2l.init(net, jax.random.key(0), (3,))
    args = net, params, state, jnp.zeros((2, 3))
    assert both(lambda *args: jaxd2l.apply(*args)[0], *args) == (24, 8)
    assert both(lambda x, key: x + jax.random.bits(key, (5,), "uint32"), 1, jax.random.key(0)) == (
        0,
        10,
    )
