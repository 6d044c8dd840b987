"""More models as people write them: what each unit reads is measured, or worked out by hand."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy import ndimage, signal

from jaxd2l.analysis import receptive_field

Array = jax.Array


def weights(*shape: int) -> Array:
    return jnp.asarray(np.random.default_rng(3).uniform(0.3, 0.9, shape), jnp.float32)


def conv(x: Array, kernel: int, out: int, padding: Any = "VALID", **options: Any) -> Array:
    """A convolution of (n, *spatial, c)."""
    rank = x.ndim - 2
    shape = (*(kernel,) * rank, x.shape[-1] // options.get("feature_group_count", 1), out)
    letters = "DHW"[3 - rank :]
    spec = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    options = {"window_strides": (1,) * rank, **options}
    return lax.conv_general_dilated(
        x, weights(*shape), padding=padding, dimension_numbers=spec, **options
    )


def seen(fields: Any) -> list[tuple[Any, Any, Any]]:
    return [(field.size, field.jump, field.start) for field in fields]


# --- attention within windows --------------------------------------------------------------------


def attention(x: Array) -> Array:
    q, k, v = jnp.split(x @ weights(x.shape[-1], 3 * x.shape[-1]), 3, -1)
    return jax.nn.softmax(jnp.einsum("...qc,...kc->...qk", q, k), -1) @ v


def windows(x: Array, size: int) -> Array:
    n, h, w, c = x.shape
    parts = x.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return parts.reshape(-1, size * size, c)


def swin(x: Array, size: int = 4, shift: int = 0) -> Array:
    n, h, w, c = x.shape
    y = attention(windows(jnp.roll(x, (-shift, -shift), (1, 2)), size))
    y = y.reshape(n, h // size, w // size, size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return x + jnp.roll(y.reshape(x.shape), (shift, shift), (1, 2))


def test_swin(oracle: Any) -> None:
    shape = (1, 8, 12, 2)
    fields = oracle.check(swin, shape, dtype=np.float32, exact=True)
    for field in fields:
        assert [field.interval(u) for u in (0, 3, 4, 7)] == [(0, 3), (0, 3), (4, 7), (4, 7)]
    one_each = lambda x: attention(windows(x, 4)).mean(1)  # noqa: E731
    rows, columns = receptive_field(one_each, shape)
    assert [rows.interval(w) for w in range(6)] == [(0, 3)] * 3 + [(4, 7)] * 3
    assert [columns.interval(w) for w in range(6)] == [(0, 3), (4, 7), (8, 11)] * 2
    shifted = oracle.check(lambda x: swin(swin(x), 4, 2), shape, dtype=np.float32, exact=True)
    assert [shifted[1].interval(u) for u in range(12)] == (
        [(0, 11)] * 2 + [(0, 7)] * 4 + [(4, 11)] * 4 + [(0, 11)] * 2
    )

    def merged(x: Array) -> Array:
        x = swin(x, 2)
        x = jnp.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        return swin(x @ weights(8, 2), 2)

    fields = oracle.check(merged, (1, 16, 12, 2), dtype=np.float32, exact=True)
    assert [fields[0].interval(u) for u in range(4)] == [(0, 3), (0, 3), (4, 7), (4, 7)]


# --- sequences -----------------------------------------------------------------------------------


def selective(x: Array) -> Array:
    """A linear recurrence with gates from the input, as in Mamba."""
    gates = jax.nn.sigmoid(x @ weights(2, 2)), x @ weights(2, 2)
    return lax.associative_scan(lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), gates, axis=1)[1]


def by_fft(x: Array) -> Array:
    size = 2 * x.shape[1]
    kernel = jnp.exp(-0.1 * jnp.arange(x.shape[1]))[None, :, None]
    product = jnp.fft.rfft(x, size, axis=1) * jnp.fft.rfft(kernel, size, axis=1)
    return jnp.fft.irfft(product, size, axis=1)[:, : x.shape[1]]


def causal(x: Array, dilation: int, out: int = 3) -> Array:
    return conv(x, 2, out, [(dilation, 0)], rhs_dilation=(dilation,))


def temporal(x: Array) -> Array:
    """A TCN of which the last step is read."""
    for d in (1, 2, 4):
        x = jax.nn.relu(jax.nn.relu(causal(causal(x, d), d)) + x @ weights(x.shape[-1], 3))
    return x[:, -1:]


def gated(x: Array) -> Array:
    """WaveNet with gates, whose result is the sum of the skips at the last six steps."""
    skips: Any = 0.0
    x = causal(x, 1)
    for d in (1, 2, 4):
        z = jnp.tanh(causal(x, d)) * jax.nn.sigmoid(causal(x, d))
        skips, x = skips + (z @ weights(3, 3))[:, -6:], x + z
    return jax.nn.relu(skips)


def cached(x: Array) -> Array:
    """Attention step by step over a cache of keys."""
    steps = x.shape[1]

    def step(keys: Array, i: Array) -> tuple[Array, Array]:
        row = lax.dynamic_slice_in_dim(x, i, 1, 1)
        keys = lax.dynamic_update_slice(keys, row, (0, i, 0))
        scores = jnp.where(jnp.arange(steps) <= i, jnp.einsum("nqc,nkc->nqk", row, keys), -1e9)
        return keys, (jax.nn.softmax(scores, -1) @ keys)[:, 0]

    return lax.scan(step, jnp.zeros_like(x), jnp.arange(steps))[1].swapaxes(0, 1)


def ring(x: Array) -> Array:
    """The sum of a buffer of the last three rows."""

    def body(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, out = state
        rows = rows.at[:, i % 3].set(lax.dynamic_index_in_dim(x, i, 1, False))
        return rows, out.at[:, i].set(rows.sum(1))

    start = jnp.zeros((x.shape[0], 3, x.shape[2])), jnp.zeros_like(x)
    return lax.fori_loop(0, x.shape[1], body, start)[1]


def aligned(x: Array) -> Array:
    """The forward variables of CTC."""
    labels = jnp.array([1, 0, 1])
    log = jax.nn.log_softmax(x, -1)[0]

    def step(a: Array, row: Array) -> tuple[Array, Array]:
        moved = jnp.concatenate([jnp.full((1,), -9.0), a[:-1]])
        a = jnp.logaddexp(a, moved) + row[labels]
        return a, a

    return lax.scan(step, jnp.array([0.0, -9.0, -9.0]), log)[1][None]


def layers(x: Array) -> Array:
    body = jax.checkpoint(lambda y, w: (jnp.tanh(y + conv(y, 3, 2, "SAME") * w), None))
    return lax.scan(body, x, weights(3))[0]


UP_TO = [(0, t) for t in range(9)]
SEQUENCES: dict[str, tuple[Callable[[Array], Array], list[Any]]] = {
    "mamba": (selective, UP_TO),
    "state space by fft": (by_fft, [(0, 8)] * 9),
    "tcn": (temporal, [(8 - 14, 8)]),
    "wavenet": (gated, [(t - 8, t) for t in range(3, 9)]),
    "cache": (cached, UP_TO),
    "ring buffer": (ring, [(t - 2, t) for t in range(9)]),
    "ctc": (aligned, UP_TO),
    "checkpointed layers": (layers, [(t - 3, t + 3) for t in range(9)]),
    "gradient of checkpointed layers": (
        lambda x: jax.grad(lambda y: (layers(y) ** 2).sum())(x),
        [(t - 6, t + 6) for t in range(9)],
    ),
    "energy": (
        lambda x: jax.grad(lambda y: (jnp.tanh(conv(y, 3, 2)) ** 2).sum())(x),
        [(t - 2, t + 2) for t in range(9)],
    ),
    "hessian product": (
        lambda x: jax.jvp(jax.grad(lambda y: (conv(y, 3, 2) ** 3).sum()), (x,), (x,))[1],
        [(t - 2, t + 2) for t in range(9)],
    ),
    "map over patches": (
        lambda x: lax.map(lambda p: jnp.sort(p, 0), x.reshape(3, 3, 2)).reshape(1, 9, 2),
        [(t - t % 3, t - t % 3 + 2) for t in range(9)],
    ),
    "map in batches": (
        lambda x: lax.map(lambda p: p[::-1], x.reshape(3, 3, 2), batch_size=2).reshape(1, 9, 2),
        [(t - t % 3 + 2 - t % 3,) * 2 for t in range(9)],
    ),
    "sliding by dynamic slices": (
        lambda x: jax.vmap(lambda i: lax.dynamic_slice_in_dim(x[0], 2 * i, 3).sum(0))(
            jnp.arange(4)
        )[None],
        [(2 * i, 2 * i + 2) for i in range(4)],
    ),
    "im2col": (
        lambda x: x[:, np.arange(4)[:, None] * 2 + np.arange(3)].reshape(1, 4, 6) @ weights(6, 3),
        [(2 * i, 2 * i + 2) for i in range(4)],
    ),
    "local weights": (
        lambda x: lax.conv_general_dilated_local(
            x, weights(7, 6, 2), (1,), "VALID", (3,), dimension_numbers=("NWC", "WIO", "NWC")
        ),
        [(t, t + 2) for t in range(7)],
    ),
    "experts": (
        lambda x: jnp.einsum(
            "ntk,ntkd->ntd",
            lax.top_k(x @ weights(2, 4), 2)[0],
            jnp.einsum("ntd,ntkdo->ntko", x, weights(4, 2, 2)[lax.top_k(x @ weights(2, 4), 2)[1]]),
        ),
        [(t, t) for t in range(9)],
    ),
    "best three": (lambda x: x[:, lax.top_k(x[0, :, 0], 3)[1]], [(0, 8)] * 3),
    "mixer": (lambda x: x + jnp.einsum("ntc,ts->nsc", x, weights(9, 9)), [(0, 8)] * 9),
    "applied at an index": (lambda x: x.at[:, 2].apply(jnp.sin), [(t, t) for t in range(9)]),
    "convolve": (
        lambda x: jax.vmap(jax.vmap(lambda row: jnp.convolve(row, weights(5), "same"), 1, 1))(x),
        [(t - 2, t + 2) for t in range(9)],
    ),
    "spectra": (
        lambda x: jnp.abs(
            signal.stft(x[0, :, 0], nperseg=4, noverlap=2, padded=False, boundary=None)[2]
        ).T[None],
        [(2 * i, 2 * i + 3) for i in range(3)],
    ),
    "masked kernel": (
        lambda x: lax.conv_general_dilated(
            x,
            weights(5, 2, 2) * jnp.array([1, 1, 0, 0, 0])[:, None, None],
            (1,),
            "SAME",
            dimension_numbers=("NWC", "WIO", "NWC"),
        ),
        [(t - 2, t - 1) for t in range(9)],
    ),
    "causal mixing": (lambda x: jnp.einsum("ts,nsc->ntc", jnp.tril(weights(9, 9)), x), UP_TO),
    "banded": (
        lambda x: jnp.einsum("ts,nsc->ntc", jnp.triu(jnp.tril(weights(9, 9), 1), -1), x),
        [(t - 1, t + 1) for t in range(9)],
    ),
    "one matrix for all": (
        lambda x: jnp.linalg.solve(2 * jnp.eye(3), x.reshape(1, 3, 3, 2)).reshape(1, 9, 2),
        [(t - t % 3, t - t % 3 + 2) for t in range(9)],
    ),
    "random gamma": (
        lambda x: jax.random.gamma(jax.random.key(0), jnp.exp(x)),
        [(t, t) for t in range(9)],
    ),
    "linear systems of pairs": (
        lambda x: jnp.linalg.solve(
            5 * jnp.eye(2) + jnp.einsum("nti,ntj->ntij", x, jnp.roll(x, 1, 2)), x[..., None]
        )[..., 0],
        [(t, t) for t in range(9)],
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name: str) -> None:
    f, wanted = SEQUENCES[name]
    (field,) = receptive_field(f, (1, 9, 2))
    assert [clipped(field.interval(unit)) for unit in range(len(wanted))] == [
        clipped(interval) for interval in wanted
    ]
    assert field.size >= max(hi - lo + 1 for lo, hi in filter(None, map(clipped, wanted)))


def clipped(interval: tuple[int, int] | None) -> tuple[int, int] | None:
    lo, hi = interval or (9, -1)
    return (max(lo, 0), min(hi, 8)) if hi >= 0 and lo <= 8 else None


@pytest.mark.parametrize("name", ["ring buffer", "experts", "linear systems of pairs"])
def test_sequences_measured(oracle: Any, name: str) -> None:
    oracle.check(SEQUENCES[name][0], (1, 9, 2), dtype=np.float32, exact=True)


EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 0], [2, 5]])


def graph(x: Array) -> Array:
    sent = jnp.tanh(x[0][EDGES[:, 0]] @ weights(2, 2))
    return (x[0] + jax.ops.segment_sum(sent, EDGES[:, 1], x.shape[1]))[None]


def test_graph_convolution(oracle: Any) -> None:
    (field,) = oracle.check(graph, (1, 7, 2), dtype=np.float32, exact=True)
    assert field.intervals == ((0, 4), (0, 1), (1, 2), (2, 3), (3, 4), (2, 5), (6, 6))
    oracle.check(lambda x: graph(graph(x)), (1, 7, 2), dtype=np.float32, exact=True)


# --- images and volumes --------------------------------------------------------------------------


def convnext(x: Array) -> Array:
    y = conv(x, 7, 2, "SAME", feature_group_count=2)
    y = (y - y.mean(-1, keepdims=True)) * lax.rsqrt(y.var(-1, keepdims=True) + 1e-6)
    return x + weights(2) * (jax.nn.gelu(y @ weights(2, 8)) @ weights(8, 2))


def denoise(x: Array, attend: bool = False) -> Array:
    """A U-Net of two levels with an embedding of the time."""
    angles = 3.0 * 2.0 ** jnp.arange(4)
    time = jax.nn.swish(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)]) @ weights(8, 2))

    def block(y: Array, out: int) -> Array:
        h = conv(jax.nn.swish(y), 3, out, "SAME") + (time @ weights(2, out))
        return conv(jax.nn.swish(h), 3, out, "SAME") + y @ weights(y.shape[-1], out)

    high = block(x, 2)
    low = block(conv(high, 3, 2, [(1, 1)] * 2, window_strides=(2, 2)), 2)
    if attend:
        low = low + attention(low.reshape(low.shape[0], -1, 2)).reshape(low.shape)
    up = jax.image.resize(low, (*high.shape[:3], 2), "nearest")
    return block(jnp.concatenate([conv(up, 3, 2, "SAME"), high], -1), 1)


def shuffled(x: Array, factor: int = 3) -> Array:
    n, h, w, _ = x.shape
    y = conv(x, 3, factor**2, "SAME").reshape(n, h, w, factor, factor, 1)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * factor, w * factor, 1)


@jax.custom_vjp
def reversible(a: Array, b: Array) -> tuple[Array, Array]:
    a = a + conv(b, 3, 1, "SAME")
    return a, b + conv(a, 3, 1, "SAME")


reversible.defvjp(lambda a, b: (reversible(a, b), None), lambda _, g: g)


def transformed(x: Array) -> Array:
    """A spatial transformer: where it looks depends on the image."""
    h, w = x.shape[1:3]
    matrix = jnp.tanh(x.mean((1, 2)) @ weights(1, 6)).reshape(2, 3)
    grid = jnp.stack([*jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij"), jnp.ones((h, w))])
    rows, columns = jnp.einsum("ij,jhw->ihw", matrix, grid)
    return ndimage.map_coordinates(x[0, ..., 0], [rows, columns], order=1)[None, ..., None]


def filtered(x: Array) -> Array:
    """A layer of a Fourier neural operator."""
    spectrum = jnp.fft.rfft2(x, axes=(1, 2))
    kept = jnp.zeros_like(spectrum).at[:, :2, :2].set(spectrum[:, :2, :2] * weights(2, 2, 1))
    return x + jnp.fft.irfft2(kept, x.shape[1:3], axes=(1, 2))


IMAGES: dict[str, tuple[Callable[[Array], Array], list[tuple[Any, Any, Any]]]] = {
    "convnext": (convnext, [(7, 1, -3)] * 2),
    "two levels": (denoise, [(21, 1, -11)] * 2),
    "two levels with attention": (
        functools.partial(denoise, attend=True),
        [(12, 0, 0), (10, 0, 0)],
    ),
    "pixel shuffle": (shuffled, [(3, "1/3", -1)] * 2),
    "pixel shuffle twice": (lambda x: shuffled(shuffled(x), 2), [(4, "1/6", -2)] * 2),
    "reversible": (
        lambda x: jnp.concatenate(reversible(*jnp.split(x, 2, -1)), -1),
        [(5, 1, -2)] * 2,
    ),
    "spatial transformer": (lambda x: transformed(x[..., :1]), [(12, 0, 0), (10, 0, 0)]),
    "fourier operator": (filtered, [(12, 0, 0), (10, 0, 0)]),
    "convolve2d": (
        lambda x: signal.convolve2d(x[0, ..., 0], weights(3, 2), "full")[None, ..., None],
        [(3, 1, -2), (2, 1, -1)],
    ),
    "transposed": (
        lambda x: lax.conv_transpose(x, weights(4, 3, 2, 2), (2, 3), "VALID"),
        [(2, "1/2", -1), (1, "1/3", 0)],
    ),
    "channels first": (
        lambda x: lax.conv(x.transpose(0, 3, 1, 2), weights(3, 2, 3, 3), (2, 2), "VALID").transpose(
            0, 2, 3, 1
        ),
        [(3, 2, 0)] * 2,
    ),
    "axial attention": (attention, [(1, 1, 0), (10, 0, 0)]),
    "batch statistics": (
        lambda x: conv((x - x.mean((0, 1, 2))) / (x.std((0, 1, 2)) + 1e-3), 3, 2),
        [(12, 0, 0), (10, 0, 0)],
    ),
    "resized by 32": (
        lambda x: jax.image.resize(x, (1, 12 * 32, 10, 2), "bilinear"),
        [(2, "1/32", -1), (1, 1, 0)],
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str) -> None:
    f, wanted = IMAGES[name]
    found = [
        (size, jump if jump in (0, 1, 2) else str(jump), start)
        for size, jump, start in seen(receptive_field(f, (1, 12, 10, 2)))
    ]
    assert found == wanted


@pytest.mark.parametrize("name", ["convnext", "pixel shuffle", "reversible", "spatial transformer"])
def test_images_measured(oracle: Any, name: str) -> None:
    oracle.check(IMAGES[name][0], (1, 12, 10, 2), dtype=np.float32)


def test_video(oracle: Any) -> None:
    def f(x: Array) -> Array:
        pads = [(2, 0), (1, 1), (0, 0)]
        return conv(x, 3, 2, pads, window_strides=(2, 2, 1))

    fields = oracle.check(f, (1, 6, 6, 5, 1), dtype=np.float32, exact=True)
    assert seen(fields) == [(3, 2, -2), (3, 2, -1), (3, 1, 0)]
    pooled = receptive_field(lambda x: f(x).mean(1), (1, 6, 6, 5, 1))
    assert seen(pooled) == [(5, 0, 0), (3, 2, -1), (3, 1, 0)]  # the last frame is not read


# --- how a model is called -----------------------------------------------------------------------


def test_types_and_jit_change_nothing() -> None:
    f = lambda x: conv(x.astype(jnp.float32), 3, 2, "SAME").astype(x.dtype)  # noqa: E731
    wanted = receptive_field(f, (1, 9, 2))
    assert seen(wanted) == [(3, 1, -1)]
    assert receptive_field(f, (1, 9, 2), dtype=jnp.bfloat16) == wanted
    assert receptive_field(jax.jit(f, donate_argnums=0), (1, 9, 2)) == wanted
    with jax.enable_x64(True):
        assert receptive_field(f, (1, 9, 2), dtype=jnp.float64) == wanted


def test_parameters_are_not_looked_into() -> None:
    zero, key = jnp.float32(0), jax.random.key(0)
    scaled = receptive_field(lambda x: (zero * jnp.eye(9)) @ x, (1, 9, 2))
    assert seen(scaled) == [(1, 1, 0)]
    learned = receptive_field(
        lambda x: lax.cond(zero > 1, jnp.cumsum, jnp.negative, x[0, :, 0]), (1, 9, 2)
    )
    assert learned[0].size == 9

    def depth(x: Array) -> Array:  # stochastic depth: both ways are in the program
        return lax.cond(jax.random.bernoulli(key), lambda y: conv(y, 3, 2, "SAME"), lambda y: y, x)

    assert seen(receptive_field(depth, (1, 9, 2))) == [(3, 1, -1)]


def test_keys_out_of_a_loop() -> None:
    def sample(x: Array) -> Array:
        def noisy(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
            key, own = jax.random.split(state[0])
            return (key, state[1] + jax.random.normal(own, x.shape)), own

        (_, y), keys = lax.scan(noisy, (jax.random.key(0), x), None, length=3)
        turns = jax.random.randint(keys[1], (), 1, 3)
        return lax.fori_loop(0, turns, lambda _, z: 2 * z, y)

    assert seen(receptive_field(sample, (1, 9, 2))) == [(1, 1, 0)]


def test_a_pattern_that_comes_back_has_no_jump() -> None:
    for turned in (lambda x: jnp.tile(x, (1, 2, 1)), lambda x: jnp.roll(x, jnp.arange(3)[1], 1)):
        (field,) = receptive_field(turned, (1, 6, 1))
        assert field.jump is None
        assert len(field.intervals) in (6, 12)
        assert field.size == 1


def test_what_is_unknown_is_told_once_and_where() -> None:
    def f(x: Array) -> Array:
        return lax.fori_loop(0, 9, lambda _, y: jax.pure_callback(np.sin, y, y), x)

    with pytest.warns(UserWarning, match="pure_callback") as told:
        assert receptive_field(f, (1, 9, 2))[0].size == 9
    assert [warning.filename for warning in told] == [__file__]


def test_shards() -> None:
    kind = jax.sharding.AxisType.Auto
    mesh = jax.sharding.AbstractMesh((4,), ("i",), axis_types=(kind,))  # no devices: only traced
    P = jax.sharding.PartitionSpec
    over_batch = functools.partial(jax.shard_map, mesh=mesh, in_specs=(P("i"),), out_specs=P("i"))
    f = over_batch(lambda x: conv(x, 3, 2) - lax.pmean(x, "i").mean())
    assert seen(receptive_field(f, (4, 9, 2))) == [(9, 0, 0)]
    f = over_batch(lambda x: conv(x, 3, 2) - lax.all_gather(x, "i")[0, :, 2:])
    assert seen(receptive_field(f, (4, 9, 2))) == [(3, 1, 0)]

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P("i")),
        out_specs=P(None, "i"),
        check_vma=False,
    )
    def slices(x: Array, starts: Array) -> Array:  # each shard has a start of its own
        return lax.dynamic_slice_in_dim(x, starts.sum(), 1, 1)

    (field,) = receptive_field(lambda x: slices(x, np.array([2, 0, 0, 1])), (1, 9, 2))
    assert (field.size, field.jump, field.start) == (9, 0, 0)
