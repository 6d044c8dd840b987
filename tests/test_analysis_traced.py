"""The summary of networks with functions and Flax modules inside, which it measures by trace.

Against the same networks written with our layers, and against one trace of the whole network.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jaxd2l
from jaxd2l import layers, models, records
from jaxd2l.analysis import receptive_field
from jaxd2l.geometry import Window
from jaxd2l.layers import Activation, Conv, FlaxModule, Function, Identity, Parallel, Serial


def rows(net, shape):
    """What a summary says of each layer, but for its name and its parameters."""
    return [
        (r.output_shape, r.macs, r.receptive_field, r.jump, r.start, r.exceeds_input)
        for r in jaxd2l.summarize(net, shape).rows
    ]


def last(net, shape):
    row = jaxd2l.summarize(net, shape).rows[-1]
    return row.receptive_field, row.jump, row.start


def by_one_trace(net, shape):
    """The same of the last row, from the trace of the whole network."""
    params, state = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), layers.declared(net, shape))
    fields = receptive_field(lambda x: jaxd2l.apply(net, params, state, x)[0], (1, *shape))
    return tuple(tuple(getattr(f, part) for f in fields) for part in ("size", "jump", "start"))


def lax_conv(kernel, stride=1, padding=0, dilation=1, features=2):
    def run(x):
        rank = x.ndim - 2
        return lax.conv_general_dilated(
            x,
            np.ones((*(kernel,) * rank, x.shape[-1], features), np.float32),
            (stride,) * rank,
            [(padding, padding)] * rank,
            rhs_dilation=(dilation,) * rank,
            dimension_numbers=("NHWC", "HWIO", "NHWC") if rank == 2 else ("NWC", "WIO", "NWC"),
        )

    return Function(run)


def our_conv(name, kernel, features=2, **options):
    return Conv(str(name), features, kernel, bias=False, **options)


def line(name, kernel, **options):
    return our_conv(name, (kernel,), **options)


def resized(size):
    return Function(lambda x: jax.image.resize(x, (x.shape[0], size, *x.shape[2:]), "linear"))


# --- the same network, written twice ------------------------------------------------------------

PAIRS = {
    "convolutions": (
        Serial([lax_conv(3, padding=1), lax_conv(4, 3), lax_conv(2, dilation=2)]),
        Serial([our_conv(1, 3, padding=1), our_conv(2, 4, stride=3), our_conv(3, 2, dilation=2)]),
    ),
    "between ours": (
        Serial([our_conv(1, 5, stride=2), lax_conv(3), Function(nn.relu), our_conv(2, 2)]),
        Serial([our_conv(1, 5, stride=2), our_conv(2, 3), Activation("relu"), our_conv(3, 2)]),
    ),
    "flax": (
        Serial(
            [
                our_conv(1, 3, padding=1),
                FlaxModule("down", nn.Conv(4, (3, 3), strides=2, padding=1)),
                FlaxModule("up", nn.ConvTranspose(3, (4, 4), strides=(2, 2), padding="VALID")),
                our_conv(2, 2),
            ]
        ),
        Serial(
            [
                our_conv(1, 3, padding=1),
                Conv("down", 4, 3, stride=2, padding=1),
                layers.ConvTranspose("up", 3, 4, stride=2),
                our_conv(2, 2),
            ]
        ),
    ),
    "pools and norms": (
        Serial(
            [
                FlaxModule("c", nn.Conv(4, (3, 3), padding="VALID")),
                FlaxModule("bn", nn.BatchNorm(), train_argument="!use_running_average"),
                Function(lambda x: nn.max_pool(x, (2, 2), (2, 2))),
                Function(lambda x: x.mean((1, 2))),
                FlaxModule("d", nn.Dense(5)),
                Function(jnp.tanh),
            ]
        ),
        Serial(
            [
                Conv("c", 4, 3),
                layers.BatchNorm("bn"),
                layers.MaxPool(2),
                layers.GlobalAvgPool(),
                layers.Dense("d", 5),
                Activation("tanh"),
            ]
        ),
    ),
    "branches": (
        Parallel([Serial([lax_conv(3, padding=1)] * 3), Function(jnp.sin), Identity()], "concat"),
        Parallel(
            [
                Serial([our_conv(i, 3, padding=1) for i in range(3)]),
                Activation("tanh"),
                Identity(),
            ],
            "concat",
        ),
    ),
    "exceeding": (
        Serial([lax_conv(3, padding=1), Function(jnp.sin)] * 8),
        Serial(
            [part for i in range(8) for part in (our_conv(i, 3, padding=1), Activation("tanh"))]
        ),
    ),
    "flattened": (
        Serial([lax_conv(3), layers.Flatten(), Function(jnp.sin), Function(nn.softmax)]),
        Serial([our_conv(1, 3), layers.Flatten(), Activation("tanh"), Activation("softmax")]),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_rows_are_those_of_our_layers(pair):
    written, ours = PAIRS[pair]
    got = rows(written, (12, 14, 2))
    assert got == rows(ours, (12, 14, 2))
    assert any(row[-1] for row in got) == (pair == "exceeding")


# --- one trace of the whole network -------------------------------------------------------------

FLIPPED = Function(lambda x: x[:, ::-1])
CIRCULAR = Function(lambda x: jnp.pad(x, ((0, 0), (2, 2), (0, 0)), mode="wrap"))
CUMULATIVE = Function(lambda x: jnp.cumsum(x, 1))
WHOLE_NETWORKS = {
    "flip": Serial([line(1, 3, padding=1, stride=2), FLIPPED, line(2, 4), resized(28)]),
    "flip and back": Serial([FLIPPED, line(1, 2), FLIPPED]),
    "bidirectional": Serial([Parallel([FLIPPED, Identity()], "add"), line(1, 3), FLIPPED]),
    "crop": Serial([line(1, 3), Function(lambda x: x[:, 3:-2:3]), line(2, 2)]),
    "circular": Serial([line(1, 3), CIRCULAR, line(2, 3), layers.AvgPool((2,))]),
    "circular joined": Serial([CIRCULAR, Parallel([lax_conv(1), line(2, 1)], "add")]),
    "causal": Serial([line(1, 3), CUMULATIVE, line(2, 2)]),
    "causal twice": Serial([CUMULATIVE, line(1, 3), CUMULATIVE, line(2, 3)]),
    "other scales": Parallel([resized(16), line(1, 5)], "add"),
    "shared": Serial([line(1, 3), Function(lambda x: x * x[:, 2:3]), line(2, 1)]),
    "constant": Serial([Function(jnp.zeros_like), line(1, 3)]),
}


@pytest.mark.parametrize("case", WHOLE_NETWORKS)
def test_the_last_row_is_that_of_one_trace_of_the_whole_network(case):
    net = WHOLE_NETWORKS[case]
    assert last(net, (20, 2)) == by_one_trace(net, (20, 2))


def test_by_hand():
    flip = Serial([line(1, 3, stride=2), FLIPPED, line(2, 2)])
    assert last(flip, (21, 2)) == ((5,), (-2,), (16,))  # 10 units; unit 0 reads 9 and 8
    assert last(Parallel([FLIPPED, Identity()], "add"), (6, 2)) == ((6,), (None,), (0,))
    assert last(Serial([line(1, 3), CIRCULAR]), (9, 2)) == ((3,), (None,), (5,))
    nothing = jaxd2l.summarize(WHOLE_NETWORKS["constant"], (9, 2))
    assert nothing.rows[-1].receptive_field == (0,)
    assert str(nothing).splitlines()[4].split() == ["1", "7x2", "0", "0", "-", "12", "84"]


def test_what_all_units_see_is_of_the_image_only():
    first = Function(lambda x: jnp.broadcast_to(x[:, :1], x.shape))
    assert last(Serial([line(1, 3, padding=1), first]), (9, 2)) == ((2,), (0,), (0,))
    both = Serial([CIRCULAR, CUMULATIVE, line(1, 3, padding=1), line(2, 3, padding=1)])
    assert last(both, (20, 2)) == (None, None, None)
    # a mean is of the whole input, as GlobalAvgPool is, though the stride leaves out a pixel
    mean = Function(lambda x: x - x.mean(1, keepdims=True))
    assert last(Serial([line(1, 3, stride=2), mean]), (10, 2)) == (None, None, None)


def test_what_sees_the_whole_input_exceeds_nothing():
    deep = [line(i, 3, padding=1) for i in range(4)]
    ends = [Function(lambda x: x - x.mean(1, keepdims=True)), lax_conv(3, padding=1)]
    tables = [jaxd2l.summarize(Serial([*deep, end]), (5, 2)).rows[-1] for end in ends]
    assert [row.exceeds_input for row in tables] == [False, True]
    tokens = Function(lambda t: jnp.eye(9)[t][:, 1:] + jnp.eye(9)[t][:, :-1])
    row = jaxd2l.summarize(tokens, (7,)).rows[-1]
    assert (row.receptive_field, row.exceeds_input) == ((2,), False)


class UNet(nn.Module):
    """Two levels, as users write it."""

    @nn.compact
    def __call__(self, x):
        def block(x, features):
            for _ in range(2):
                x = nn.relu(nn.Conv(features, (3, 3))(x))
            return x

        top = block(x, 4)
        middle = block(nn.max_pool(top, (2, 2), (2, 2)), 8)
        bottom = block(nn.max_pool(middle, (2, 2), (2, 2)), 8)
        up = nn.ConvTranspose(8, (2, 2), strides=(2, 2))(bottom)
        up = block(jnp.concatenate([middle, up], -1), 8)
        up = nn.ConvTranspose(4, (2, 2), strides=(2, 2))(up)
        return nn.Conv(1, (1, 1))(block(jnp.concatenate([top, up], -1), 4))


PARTS = [
    lambda i: line(i, 3, padding=1),
    lambda i: line(i, 4, stride=2),
    lambda i: layers.ConvTranspose(str(i), 2, (3,), stride=2, padding=1),
    lambda _: Parallel([Identity(), FLIPPED], "add"),
    lambda i: Parallel([Identity(), line(i, 5, padding=2)], "multiply"),
    *(lambda _, f=f: f for f in (FLIPPED, CIRCULAR, CUMULATIVE, lax_conv(2), lax_conv(3, 2, 1))),
    lambda _: Function(lambda x: jnp.repeat(x, 2, axis=1)),
    lambda _: Function(lambda x: x[:, 1::2]),
]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4))
def test_random_chains(parts):
    net = Serial([part(i) for i, part in enumerate(parts)])
    ((size,), _, (start,)) = expected = by_one_trace(net, (120, 2))
    got = last(net, (120, 2))
    if got[0] is None:  # the whole input
        assert expected == ((120,), (0,), (0,))
    elif got[1] == (None,):  # how much padding is listed may differ, and whether a pattern is found
        assert min(got[0][0], 120) == min(size, 120)
        assert max(got[2][0], 0) == max(start, 0)
    else:
        assert got == expected


def test_a_flax_u_net_inside():
    net = Serial([our_conv(1, 5, stride=2), FlaxModule("unet", UNet()), our_conv(2, 3)])
    shape = (83, 83, 1)  # a map of 40 units
    first, unet, _ = jaxd2l.summarize(net, shape).rows
    # 4 + 2*4 + 4*4 and pools 1 + 2 down, 2*4 + 4 up; the worst phase of the transposed ones
    variables = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), VARIABLES)
    alone = receptive_field(lambda x: UNet().apply(variables, x), (1, 40, 40, 2))
    assert first.receptive_field == (5, 5)
    assert unet.receptive_field == tuple(5 + 2 * (f.size - 1) for f in alone) == (91, 91)
    assert (unet.jump, unet.start) == ((2, 2), tuple(2 * f.start for f in alone))
    convs = [(40, 2, 4), (40, 4, 4), (20, 4, 8), (20, 8, 8), (10, 8, 8), (10, 8, 8)]
    convs += [(20, 16, 8), (20, 8, 8), (40, 8, 4), (40, 4, 4)]
    ups = 20 * 20 * 8 * 8 + 40 * 40 * 8 * 4
    assert unet.macs == sum(9 * n * n * a * b for n, a, b in convs) + ups + 40 * 40 * 4
    assert unet.parameters == sum(leaf.size for leaf in jax.tree.leaves(VARIABLES))
    assert last(net, shape) == by_one_trace(net, shape)


VARIABLES = jax.eval_shape(UNet().init, jax.random.key(0), jnp.zeros((1, 40, 40, 2)))


# --- axes ---------------------------------------------------------------------------------------


def test_axes_are_measured_apart():
    centred = Function(lambda x: x - x.mean(1, keepdims=True))
    net = Serial([our_conv(1, 3, padding=1), centred, our_conv(2, 3)])
    assert last(net, (9, 9, 2)) == ((9, 5), (0, 1), (0, -1))
    across = Function(lambda x: x - x.mean(2, keepdims=True))
    assert last(Serial([net, across, our_conv(3, 3)]), (9, 9, 2)) == (None, None, None)
    assert last(Parallel([net, our_conv(3, 3)], "concat"), (9, 9, 2)) == ((9, 5), (0, 1), (0, -1))


@pytest.mark.parametrize(
    ("function", "features"),
    [
        (lambda x: x.transpose(0, 2, 1, 3), 2),
        (lambda x: x.mean(2), 2),
        (lambda x: x.reshape(len(x), -1), 2),
        (lambda x: x.squeeze(), 1),  # of one example the batch axis goes too
    ],
    ids=["transposed", "one axis less", "flat", "squeezed"],
)
def test_where_axes_do_not_correspond_the_whole_input_is_seen(function, features):
    net = Serial([our_conv(1, 3, features, padding=1), Function(function)])
    assert last(net, (6, 6, 2)) == (None, None, None)


def test_one_example_without_its_batch_axis():
    """A function may treat a batch of one in another way."""
    net = Function(lambda x: x[:, 1:] if len(x) > 1 else x)
    assert last(net, (6, 6, 2)) == (None, None, None)


FLAT = layers.Flatten()
UNLIKE = {
    "a new axis": Serial([FLAT, Function(lambda x: x[..., None])]),
    "windows over features": Serial([FLAT, layers.Embedding("words", 9, 4), line(1, 3)]),
    "strides": Parallel([Serial([our_conv(1, 2, stride=2), FLAT]), FLAT], "concat"),
    "axes": Parallel([FLAT, Serial([FLAT, layers.Embedding("words", 9, 1), FLAT])], "concat"),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_features_that_stand_for_positions_are_not_taken_for_an_axis(case):
    assert last(UNLIKE[case], (6, 4, 1)) == (None, None, None)


def test_flattened_branches_that_step_alike_are_joined():
    net = Parallel([Serial([our_conv(1, 3), FLAT]), FLAT], "concat")
    assert last(net, (6, 4, 1)) == ((3, 3), (1, 1), (0, 0))


def test_functions_of_tokens():
    table = jaxd2l.summarize(
        Serial(
            [
                Function(lambda t: jnp.arange(9)[::-1][t]),
                Function(lambda t: jnp.eye(9)[t]),
                our_conv(1, (3,), padding=1),
                FLIPPED,
            ]
        ),
        (7,),
    )
    assert [row.receptive_field for row in table.rows] == [(), (1,), (3,), (3,)]
    assert [(row.jump, row.start) for row in table.rows[1:]] == [
        ((1,), (0,)), ((1,), (-1,)), ((-1,), (5,)),
    ]  # fmt: skip
    assert [row.macs for row in table.rows] == [0, 0, 7 * 3 * 9 * 2, 0]
    backwards = Serial([Function(lambda t: t[:, ::-1]), layers.Embedding("words", 9, 4)])
    assert last(backwards, (7,)) == (None, None, None)  # an axis that is no axis yet


# --- what is not known --------------------------------------------------------------------------


def test_an_unknown_primitive_warns_and_is_the_whole_input():
    def f(x):
        return jax.pure_callback(lambda a: a, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    net = Serial([our_conv(1, 3), Function(f, name="call")])
    with pytest.warns(UserWarning, match="'pure_callback'"):
        row = jaxd2l.summarize(net, (6, 6, 1)).rows[-1]
    assert (row.path, row.receptive_field, row.macs, row.flops) == ("call", None, None, None)


class Picker(nn.Module):
    """Shifts by numbers that it keeps."""

    kind: str

    @nn.compact
    def __call__(self, x):
        if self.kind == "index":
            at = self.variable("table", "at", lambda: jnp.arange(x.shape[1])[::-1]).value
            return x[:, at]
        gate = self.param("gate", nn.initializers.zeros, ())
        if self.kind == "cond":
            return lax.cond(gate > 0, lambda x: x[:, ::-1] * 1, lambda x: x, x)
        return x + gate * x[:, ::-1]


@pytest.mark.parametrize("kind", ["index", "cond", "gate"])
def test_no_value_of_a_parameter_is_looked_at(kind):
    """Zeros, which stand for nothing, would make the fields too small."""
    row = jaxd2l.summarize(FlaxModule("pick", Picker(kind)), (6, 2)).rows[-1]
    assert row.receptive_field in (None, (6,))
    assert row.parameters == (kind != "index")


def test_macs_of_all_products():
    def attention(x):
        weights = nn.softmax(x @ x.transpose(0, 2, 1))
        return weights @ x

    def halved(x):
        return lax.while_loop(lambda x: (x > 1).any(), lambda x: x / 2, x)

    rows = jaxd2l.summarize(Serial([Function(attention), Function(halved)]), (5, 3)).rows
    assert [row.macs for row in rows] == [2 * 5 * 5 * 3, None]
    low_rank = Function(lambda x: x @ (np.ones((3, 2)) @ jnp.ones((2, 3))))
    assert jaxd2l.summarize(low_rank, (5, 3)).macs == 5 * 9 + 3 * 2 * 3


# --- when layers are traced ---------------------------------------------------------------------


def test_a_layer_is_followed_once():
    batches = []

    def f(x):
        batches.append(len(x))
        return jnp.sin(x)

    jaxd2l.summarize(Serial([layers.Repeat(Function(f), 5), Function(f)]), (4, 2))
    assert batches.count(1) == 2 * 2  # for what it sees and what it computes; two layers


def test_only_layers_that_know_no_macs_are_followed(monkeypatch):
    def refuse(*_):
        raise AssertionError("followed")

    net, shape = models.build("d2l.resnet18"), (96, 96, 1)
    for kind in {type(step.layer) for step in layers.walk(net, shape)} | {Function}:
        monkeypatch.setattr(kind, "apply", refuse)
    jaxd2l.summarize(net, shape)
    with pytest.raises(AssertionError, match="followed"):
        jaxd2l.summarize(Function(abs), (3,))


@records.record
class Doubled(layers.Layer):
    """A user's layer that leaves it to the summary."""

    name: str

    def parameters(self, input_shape):
        return {"kernel": layers.Parameter((input_shape[-1],) * 2, None)}

    def apply(self, params, state, x, context):
        return x[:, 1:] @ params["kernel"] + x[:, :-1], state

    def output_shape(self, input_shape):
        return (input_shape[0] - 1, *input_shape[1:])

    def macs(self, input_shape):
        return None


@records.record
class Told(Doubled):
    def windows(self, input_shape):
        return (Window(4, padding=1),)


def test_users_layers_are_followed_too():
    row = jaxd2l.summarize(Doubled("d"), (6, 3)).rows[-1]
    assert (row.receptive_field, row.jump, row.macs, row.parameters) == ((2,), (1,), 45, 9)
    told = jaxd2l.summarize(Told("d"), (6, 3)).rows[-1]
    assert (told.receptive_field, told.start, told.macs) == ((4,), (-1,), 45)
