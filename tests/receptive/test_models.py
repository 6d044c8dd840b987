"""Models as people write them in Flax, Equinox and Haiku: measured support, and closed numbers."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxd2l.analysis import receptive_field
from jaxd2l.geometry import ReceptiveField, Window
from jaxd2l.geometry import receptive_field as of_windows


def filled(shapes: Any) -> Any:
    """Arrays for shapes; the models' own initialisers take seconds to compile."""
    rng = np.random.default_rng(0)

    def fill(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        value = rng.normal(scale=0.4, size=leaf.shape)
        return jnp.asarray(abs(value) if "var" in jax.tree_util.keystr(path) else value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def linen(module: nn.Module, shape: Sequence[int], dtype: Any = jnp.float32) -> Callable[..., Any]:
    """The module as a function of its input."""
    variables = filled(jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape, dtype)))
    return lambda x: module.apply(variables, x)


def haiku(f: Callable[..., Any], shape: Sequence[int]) -> Callable[..., Any]:
    made = hk.without_apply_rng(hk.transform(f))
    params = filled(jax.eval_shape(made.init, jax.random.key(0), jnp.zeros(shape)))
    return lambda x: made.apply(params, x)


def of_nnx(make: Callable[..., Any], *args: Any) -> Any:
    graph, state = nnx.split(nnx.eval_shape(lambda: make(*args, nnx.Rngs(0))))
    return nnx.merge(graph, filled(state))


def equinox(make: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return filled(eqx.filter_eval_shape(make, *args, key=jax.random.key(0), **options))


def seen(fields: Sequence[Any]) -> list[tuple[Any, Any, Any]]:
    return [(field.size, field.jump, field.start) for field in fields]


# --- Flax linen ----------------------------------------------------------------------------------


class UNet(nn.Module):
    resize: bool = False
    depth: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.gelu(nn.Conv(4, (3, 3))(nn.gelu(nn.Conv(4, (3, 3))(x))))
        if self.depth:
            y = nn.max_pool(x, (2, 2), (2, 2))
            y = UNet(self.resize, self.depth - 1)(y)
            if self.resize:
                y = jax.image.resize(y, (*x.shape[:3], y.shape[-1]), "nearest")
            else:
                y = nn.ConvTranspose(4, (2, 2), (2, 2))(y)
            x = nn.Conv(4, (3, 3))(jnp.concatenate([x, y], -1))
        return x


@pytest.mark.parametrize("resize", [False, True])
def test_u_net(oracle: Any, resize: bool) -> None:
    f = linen(UNet(resize), (1, 16, 16, 1))
    fields = oracle.check(f, (1, 16, 16, 1), dtype=np.float32, exact=False)
    assert seen(fields) == [(16, 1, -8)] * 2
    assert [fields[0].interval(u) for u in (8, 9)] == [(0, 15), (2, 17)]
    deep = receptive_field(linen(UNet(resize, 3), (1, 64, 64, 1)), (1, 64, 64, 1))
    # Level 3 sees 5 -> 6, 14 -> 16, 32 -> 36, 68; up and 3x3 at jumps 4, 2, 1 below.
    windows = [*[Window(3, 1, 1)] * 2, Window(2, 2)]
    up = [Window(2, 2, transposed=True), Window(3, 1, 1)]
    assert deep[0] == of_windows([*windows * 3, *[Window(3, 1, 1)] * 2, *up * 3])
    assert deep[0].jump == 1


def test_u_net_by_bilinear_resize(oracle: Any) -> None:
    def f(x: jax.Array) -> jax.Array:
        y = nn.avg_pool(x, (2, 2), (2, 2))
        return x + jax.image.resize(y, x.shape, "bilinear")

    fields = oracle.check(f, (1, 12, 8, 1), dtype=np.float64)
    assert [field.size for field in fields] == [4, 4]
    assert [field.interval(6) for field in fields] == [(4, 7)] * 2  # units 2 and 3 of six, pooled


class Inception(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = nn.Conv(3, (1, 1))(x)
        three = nn.Conv(3, (3, 3))(nn.Conv(2, (1, 1))(x))
        five = nn.Conv(3, (1, 5))(nn.Conv(2, (5, 1))(x))
        pool = nn.Conv(3, (1, 1))(nn.max_pool(x, (3, 3), padding="SAME"))
        return jnp.concatenate([one, three, five, pool], -1)


class MobileBlock(nn.Module):
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu6(nn.BatchNorm(True)(nn.Conv(8, (1, 1))(x)))
        s = (self.stride, self.stride)
        y = nn.Conv(8, (3, 3), s, padding=1, feature_group_count=8)(y)
        y = nn.Conv(4, (1, 1))(nn.swish(nn.BatchNorm(True)(y)))
        return x + y if self.stride == 1 and x.shape == y.shape else y


class SqueezeExcite(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gate = nn.Dense(4)(nn.relu(nn.Dense(2)(x.mean((1, 2)))))
        return x * nn.sigmoid(gate)[:, None, None]


def test_blocks(oracle: Any) -> None:
    shape = (1, 9, 10, 4)
    check = functools.partial(oracle.check, shape=shape, dtype=np.float32, exact=True)
    assert seen(check(linen(nn.Sequential([Inception(), Inception()]), shape))) == [(9, 1, -4)] * 2
    chain = nn.Sequential([MobileBlock(), MobileBlock(2), MobileBlock()])
    fields = receptive_field(linen(chain, shape), shape)
    assert seen(fields) == [(9, 2, -4)] * 2  # 3, 5 at jump 2, 5 + 2 * 2
    oracle.check(linen(chain, shape), shape, dtype=np.float32)
    assert list(oracle.check(linen(SqueezeExcite(), shape), shape, dtype=np.float32)) == [
        ReceptiveField.whole(9),
        ReceptiveField.whole(10),
    ]
    norm = linen(nn.GroupNorm(2), shape)
    assert seen(oracle.check(norm, shape, dtype=np.float32)) == [(9, 0, 0), (10, 0, 0)]


class ViT(nn.Module):
    blocks: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(8, (4, 4), (4, 4), "VALID")(x)
        x = x.reshape(x.shape[0], -1, 8)
        x = x + self.param("positions", nn.initializers.normal(), (1, x.shape[1], 8))
        for _ in range(self.blocks):
            y = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(num_heads=2)(y, y)
            x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.LayerNorm()(x)


def test_a_vision_transformer_sees_the_whole_input() -> None:
    shape = (1, 16, 8, 3)
    fields = receptive_field(linen(ViT(), shape), shape)
    assert fields == (ReceptiveField.whole(16), ReceptiveField.whole(8))


class Tagger(nn.Module):
    """Tokens, embedded, and two convolutions."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(11, 6)(tokens)
        return nn.Conv(3, (3,), padding="VALID")(nn.gelu(nn.Conv(6, (3,), padding="VALID")(x)))


def test_convolution_over_tokens(oracle: Any) -> None:
    f = linen(Tagger(), (1, 9), jnp.int32)
    fields = oracle.check(f, (2, 9), (1,), dtype=np.int32, exact=True, high=11)
    assert seen(fields) == [(5, 1, 0)]


def recurrent(bidirectional: bool = False) -> nn.Module:
    forward = nn.RNN(nn.LSTMCell(3))
    return nn.Bidirectional(forward, nn.RNN(nn.GRUCell(3))) if bidirectional else forward


def test_recurrent_networks(oracle: Any) -> None:
    shape = (1, 7, 2)
    f = linen(recurrent(), shape)
    (field,) = oracle.check(f, shape, dtype=np.float32, exact=True)
    assert [field.interval(t) for t in range(7)] == [(0, t) for t in range(7)]
    (field,) = oracle.check(linen(recurrent(True), shape), shape, dtype=np.float32)
    assert field == ReceptiveField.whole(7)


def test_convolutional_lstm(oracle: Any) -> None:
    shape = (1, 3, 6, 5, 1)
    f = linen(nn.RNN(nn.ConvLSTMCell(2, (3, 3))), shape)
    time, rows, columns = oracle.check(f, shape, dtype=np.float32)
    assert [time.interval(t) for t in range(3)] == [(0, t) for t in range(3)]
    assert rows.size >= 5  # at the last step: the input's 3 and two of the state's
    assert columns.size >= 5


# --- Flax nnx ------------------------------------------------------------------------------------


class WaveNet(nnx.Module):
    """Gated causal dilated convolutions with residual and skip connections."""

    def __init__(self, dilations: Sequence[int], kernel: int, rngs: nnx.Rngs) -> None:
        conv = functools.partial(
            nnx.Conv, 3, 3, (kernel,), padding="CAUSAL", rngs=rngs, use_bias=False
        )
        self.gates = nnx.List([conv(kernel_dilation=(d,)) for d in dilations])
        self.values = nnx.List([conv(kernel_dilation=(d,)) for d in dilations])

    def __call__(self, x: jax.Array) -> jax.Array:
        skips = jnp.zeros_like(x)
        for gate, value in zip(self.gates, self.values, strict=True):
            y = jnp.tanh(value(x)) * nnx.sigmoid(gate(x))
            x, skips = x + y, skips + y
        return skips


@pytest.mark.parametrize(("dilations", "kernel"), [((1, 2, 4), 2), ((1, 3), 3), ((1, 2, 4) * 2, 2)])
def test_wavenet(oracle: Any, dilations: tuple[int, ...], kernel: int) -> None:
    model = of_nnx(WaveNet, dilations, kernel)
    size = 1 + sum((kernel - 1) * d for d in dilations)
    shape = (1, 24, 3)
    interior = np.arange(24) >= size - 1
    fields = oracle.check(model, shape, dtype=np.float32, exact=interior if size < 12 else False)
    assert seen(fields) == [(size, 1, 1 - size)]
    assert receptive_field(model, (1, 16000, 3)) == fields


class Aspp(nnx.Module):
    """A dilated head as in DeepLab: parallel rates, and optionally a pooled branch."""

    def __init__(self, rates: Sequence[int], pooled: bool, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(1, 4, (3, 3), 2, padding=1, rngs=rngs)
        self.branches = nnx.List(
            [nnx.Conv(4, 2, (3, 3), padding=r, kernel_dilation=r, rngs=rngs) for r in rates]
        )
        self.pooled = pooled
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.stem(x)))
        out = [branch(x) for branch in self.branches]
        if self.pooled:
            out.append(jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape))
        return jnp.concatenate(out, -1)


def test_dilated_head(oracle: Any) -> None:
    shape = (1, 20, 18, 1)
    fields = oracle.check(of_nnx(Aspp, (1, 2, 4), False), shape, dtype=np.float32)
    assert seen(fields) == [(3 + 2 * 4 * 2, 2, -1 - 4 * 2)] * 2
    whole = receptive_field(of_nnx(Aspp, (1, 2), True), shape)
    assert seen(whole) == [(20, 0, 0), (18, 0, 0)]


# --- Equinox: one example, channels first --------------------------------------------------------


class Bottleneck(eqx.Module):
    convs: list[eqx.nn.Conv2d]
    shortcut: eqx.nn.Conv2d | None

    def __init__(self, inner: int, outer: int, width: int, stride: int, keys: Iterator[Any]):
        conv = functools.partial(eqx.nn.Conv2d, use_bias=False)
        self.convs = [
            conv(inner, width, 1, key=next(keys)),
            conv(width, width, 3, stride, 1, key=next(keys)),
            conv(width, outer, 1, key=next(keys)),
        ]
        change = stride != 1 or inner != outer
        self.shortcut = conv(inner, outer, 1, stride, key=next(keys)) if change else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for i, conv in enumerate(self.convs):
            y = conv(y)
            y = jax.nn.gelu(y) if i < 2 else y
        return jax.nn.gelu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(eqx.Module):
    stem: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    blocks: list[Bottleneck]

    def __init__(self, repeats: Sequence[int], width: int, key: jax.Array) -> None:
        keys = iter(jax.random.split(key, 1 + 4 * sum(repeats)))
        self.stem = eqx.nn.Conv2d(3, width, 7, 2, 3, use_bias=False, key=next(keys))
        self.pool = eqx.nn.MaxPool2d(3, 2, 1)
        self.blocks = [
            Bottleneck(width, width, width, 2 if stage and not i else 1, keys)
            for stage, n in enumerate(repeats)
            for i in range(n)
        ]

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.pool(jax.nn.gelu(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return x


def by_hand(repeats: Sequence[int]) -> tuple[int, int, int]:
    size, jump, start = 7 + 2 * 2, 4, -3 - 2
    for stage, n in enumerate(repeats):
        for i in range(n):
            size, start = size + 2 * jump, start - jump
            jump *= 2 if stage and not i else 1
    return size, jump, start


def test_resnet_channels_first(oracle: Any) -> None:
    small = equinox(ResNet, (1, 1), 3)
    fields = oracle.check(small, (3, 36, 40), (1, 2), dtype=np.float32)
    assert seen(fields) == [by_hand((1, 1))] * 2
    assert seen(receptive_field(jax.vmap(small), (2, 3, 36, 40), (2, -1))) == seen(fields)


def test_resnet_50_sees_427_pixels() -> None:
    model = equinox(ResNet, (3, 4, 6, 3), 2)
    fields = receptive_field(jax.vmap(model), (1, 3, 224, 224), (2, 3))
    assert seen(fields) == [(427, 32, -213)] * 2 == [by_hand((3, 4, 6, 3))] * 2


def test_equinox_recurrent_and_conv1d(oracle: Any) -> None:
    cell = equinox(eqx.nn.GRUCell, 2, 3)
    conv = equinox(eqx.nn.Conv1d, 2, 2, 3)

    def f(x: jax.Array) -> jax.Array:  # (channels, time) -> (time, channels)
        def step(h: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = cell(row, h)
            return h, h

        return jax.lax.scan(step, jnp.zeros(3), conv(x).T)[1].T

    (field,) = oracle.check(f, (2, 9), (1,), dtype=np.float32, exact=True)
    assert [field.interval(t) for t in range(7)] == [(0, t + 2) for t in range(7)]


# --- Haiku ---------------------------------------------------------------------------------------


def mixer(x: jax.Array) -> jax.Array:
    x = hk.Conv2D(6, 4, 4, padding="VALID")(x)
    n, h, w, c = x.shape
    x = x.reshape(n, h * w, c)
    y = hk.LayerNorm(-1, True, True)(x).swapaxes(1, 2)
    x = x + hk.nets.MLP([8, h * w], activation=jax.nn.gelu)(y).swapaxes(1, 2)
    return (x + hk.nets.MLP([8, c])(hk.LayerNorm(-1, True, True)(x))).reshape(n, h, w, c)


def convolutional(x: jax.Array) -> jax.Array:
    x = hk.Conv2D(4, 3, 2, padding="VALID")(x)
    x = hk.avg_pool(jax.nn.gelu(x), (2, 2, 1), (1, 1, 1), "VALID")
    return hk.DepthwiseConv2D(1, (3, 1), padding="VALID")(x)


def test_haiku(oracle: Any) -> None:
    shape = (1, 16, 12, 2)
    fields = receptive_field(haiku(mixer, shape), shape)
    assert seen(fields) == [(16, 0, 0), (12, 0, 0)]
    fields = oracle.check(haiku(convolutional, shape), shape, dtype=np.float32, exact=True)
    assert seen(fields) == [(3 + 2 + 4, 2, 0), (3 + 2, 2, 0)]

    def unroll(x: jax.Array) -> jax.Array:
        core = hk.LSTM(3)
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)[0]

    (field,) = oracle.check(haiku(unroll, (1, 6, 2)), (1, 6, 2), dtype=np.float32, exact=True)
    assert [field.interval(t) for t in range(6)] == [(0, t) for t in range(6)]
