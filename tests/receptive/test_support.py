"""`receptive_field` against what functions are measured to read, one construct of JAX at a time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

pytestmark = pytest.mark.smoke  # other versions of jax have other primitives

# --- the oracle itself ---------------------------------------------------------------------------


def test_the_oracle_measures_what_is_read(oracle: Any) -> None:
    rows, columns = oracle.support(lambda x: x[:, 1:, ::-1] + x[:, :-1, ::-1], (1, 3, 2, 1), (1, 2))
    np.testing.assert_array_equal(rows, [[1, 1, 0], [0, 1, 1]])
    np.testing.assert_array_equal(columns, [[0, 1], [1, 0]])
    swapped = oracle.support(lambda x: x.swapaxes(1, 2)[:, :1], (1, 3, 2, 1), (1, 2), (2, 1))
    np.testing.assert_array_equal(swapped[0], np.eye(3))
    np.testing.assert_array_equal(swapped[1], [[1, 0]])
    (sums,) = oracle.support(lambda x: jnp.cumsum(x, 1), (1, 4, 1), (1,), dtype=np.int32)
    np.testing.assert_array_equal(sums, np.tri(4))
    assert oracle.hulls(np.array([[0, 1, 0, 1], [0, 0, 0, 0]])) == [(1, 3), None]
    (nothing,) = oracle.support(lambda x: x - x, (1, 4, 1), (1,))
    assert not nothing.any()


class Told:
    """A stand-in for a field: three pixels around each unit."""

    size = 3

    def interval(self, unit: int) -> tuple[int, int]:
        return unit - 1, unit + 1


def test_the_oracle_refuses_what_is_wrong(oracle: Any) -> None:
    gap = np.abs(np.arange(5)[:, None] - np.arange(5))
    oracle.assert_field(Told(), gap <= 1, True)
    oracle.assert_field(Told(), gap <= 0)
    with pytest.raises(AssertionError, match="exactly: unit 1 of 5"):
        oracle.assert_field(Told(), gap <= 0, [False, True, False, False, False])
    with pytest.raises(AssertionError, match="unit 0 of 5 reads"):
        oracle.assert_field(Told(), gap <= 2)


# --- one construct at a time: (function, shape, exact) -------------------------------------------


def kernel(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(2).uniform(0.5, 1.5, shape))


def conv(x: jax.Array, k: int = 3, **options: Any) -> jax.Array:
    """A 1-D convolution of (n, t, c), valid by default."""
    options = {"window_strides": (1,), "padding": "VALID"} | options
    weights = kernel(k, x.shape[-1], x.shape[-1]).astype(x.dtype)
    return lax.conv_general_dilated(x, weights, dimension_numbers=("NWC", "WIO", "NWC"), **options)


same = functools.partial(conv, padding="SAME")


def lstm_like(x: jax.Array, reverse: bool = False) -> jax.Array:
    def step(h: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = h * 0.9 + row
        return h, h

    start = jnp.zeros((x.shape[0], x.shape[2]), x.dtype)
    return lax.scan(step, start, x.swapaxes(0, 1), reverse=reverse)[1].swapaxes(0, 1)


def attention(x: jax.Array, mask: Any = None) -> jax.Array:
    scores = jnp.einsum("nqc,nkc->nqk", x, x)
    scores = scores if mask is None else jnp.where(mask, scores, -jnp.inf)
    return jax.nn.softmax(scores, -1) @ x


def windowed(x: jax.Array, size: int = 4, shift: int = 0) -> jax.Array:
    """Attention within windows, as in Swin."""
    n, t, c = x.shape
    parts = jnp.roll(x, -shift, 1).reshape(n * t // size, size, c)
    return jnp.roll(attention(parts).reshape(n, t, c), shift, 1)


def bounded_while(x: jax.Array) -> jax.Array:
    """The number of turns is not known; each turn widens by a pixel."""
    return lax.while_loop(
        lambda c: (c[0] < 3) & (c[1].sum() < 1e9), lambda c: (c[0] + 1, same(c[1])), (0, x)
    )[1]


def ring(x: jax.Array) -> jax.Array:
    """Two buffers that change places: the widening goes through the other one."""
    return lax.fori_loop(0, 4, lambda i, c: (c[1], same(c[0])), (x, x))[0]


def write_at(x: jax.Array) -> jax.Array:
    return lax.fori_loop(
        0,
        x.shape[1],
        lambda i, out: lax.dynamic_update_slice_in_dim(
            out, lax.dynamic_slice_in_dim(x, x.shape[1] - 1 - i, 1, 1), i, 1
        ),
        jnp.zeros_like(x),
    )


def custom_gradient(x: jax.Array) -> jax.Array:
    @jax.custom_vjp
    def f(x: jax.Array) -> jax.Array:
        return x * 2

    f.defvjp(lambda x: (f(x), x), lambda x, g: (same(g) * x,))
    return jax.grad(lambda x: (f(x) ** 2).sum())(x)


EXACT: dict[str, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda x: x,
    "valid": conv,
    "two": lambda x: conv(conv(x), 2, window_strides=(2,)),
    "dilated": lambda x: conv(x, 2, rhs_dilation=(3,)),
    "jit in jit": jax.jit(jax.jit(lambda x: conv(x))),
    "checkpoint": jax.checkpoint(lambda x: conv(x)),
    "branches": lambda x: jnp.concatenate([conv(x, 3)[:, 1:-1], conv(x, 5)], -1),
    "self and shifted": lambda x: x[:, 1:] * x[:, :-1],
    "mirror": lambda x: x + x[:, ::-1],
    "mirrored windows": lambda x: conv(x + x[:, ::-1]),
    "global mean": lambda x: x - x.mean(1, keepdims=True),
    "squeeze-excitation": lambda x: x * jax.nn.sigmoid(x.mean(1) @ kernel(2, 2))[:, None],
    "cumulative sum": lambda x: jnp.cumsum(x, 1),
    "reversed cumulative": lambda x: lax.cumlogsumexp(x, 1, reverse=True),
    "cumulative then windows": lambda x: conv(jnp.cumsum(x, 1)),
    "associative scan": lambda x: lax.associative_scan(jnp.add, x, axis=1),
    "moving sum": lambda x: x.cumsum(1)[:, 3:],
    "sort": lambda x: jnp.sort(x, 1),
    "fft": lambda x: jnp.abs(jnp.fft.fft(x, axis=1)),
    "fft of channels": lambda x: jnp.abs(jnp.fft.fft(x, axis=-1)),
    "recurrent": lstm_like,
    "backwards": lambda x: lstm_like(x, True),
    "bidirectional": lambda x: lstm_like(x) + lstm_like(x, True),
    "attention": attention,
    "patches": lambda x: x.reshape(x.shape[0], -1, 4 * x.shape[2]),
    "unfold": lambda x: jnp.stack([x[:, i : i + 6] for i in range(4)]).sum(0),
    "windows by index": lambda x: x[:, np.arange(6)[:, None] + np.arange(4)].sum(2),
    "layers by scan": lambda x: lax.scan(
        lambda y, w: (same(y) * w, None), x, jnp.ones((2, 1, 1, 1), x.dtype)
    )[0],
    "fori": lambda x: lax.fori_loop(0, 2, lambda i, y: same(y), x),
    "constant cond": lambda x: lax.cond(np.bool_(True), lambda x: conv(x), lambda x: conv(x), x),
    "permutation": lambda x: x[:, jnp.array([2, 0, 1, 5, 4, 3, 8, 7, 6, 9, 10, 11])],
    "argsort of a constant": lambda x: x[:, jnp.argsort(-jnp.arange(12))],
    "jnp.convolve of each": lambda x: jax.vmap(
        jax.vmap(lambda row: jnp.convolve(row, jnp.ones(3, row.dtype), "valid"), 1, 1)
    )(x),
    "sums of pairs": lambda x: x.reshape(x.shape[0], 6, 2, x.shape[2]).sum(2),
    "einsum": lambda x: jnp.einsum("ntc,cd->ntd", x, kernel(2, 3)),
    "flat features": lambda x: x.reshape(x.shape[0] * 12, 2).reshape(-1, 3, 4, 2).max(2),
    "select by mask": lambda x: jnp.where(jnp.arange(12)[:, None] % 2 == 0, x, jnp.flip(x, 1)),
}

#: Sound, and not asked to be exact: it depends on the data, or the borders are special.
SOUND: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gradient of a convolution": lambda x: jax.grad(lambda y: (conv(y) * y[:, 1:-1]).sum())(x),
    "same": lambda x: same(same(x)),
    "bounded while": bounded_while,
    "ring": ring,
    "write at": write_at,
    "custom gradient": custom_gradient,
    "windowed attention": windowed,
    "shifted windows": lambda x: windowed(windowed(x), shift=2),
    "causal attention": lambda x: attention(x, np.tri(12, dtype=bool)),
    "traced fori": lambda x: lax.fori_loop(
        0, jnp.int32(jnp.abs(x).sum() * 0 + 2), lambda i, y: same(y), x
    ),
    "fori of unknown length from x": lambda x: lax.fori_loop(
        0, (x.sum() > 0).astype(int) + 1, lambda i, y: jnp.roll(y, 1, 1), x
    ),
    "cond on data": lambda x: lax.cond(x[0, 3, 0] > 0, lambda x: x, lambda x: x * 2, x),
    "switch on data": lambda x: lax.switch(
        jnp.argmax(x[0, :3, 0]), [lambda x: x, lambda x: x * 2, lambda x: -x], x
    ),
    "unequal branches": lambda x: lax.cond(
        x[0, 0, 0] > 0, lambda x: jnp.roll(x, 2, 1), lambda x: x, x
    ),
    "data-dependent slice": lambda x: lax.dynamic_slice_in_dim(
        x, jnp.argmax(x[0, :, 0]) // 2, 4, 1
    ),
    "data-dependent gather": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1),
    "gather at argmax": lambda x: x[:, jnp.argmax(x[0, :2, 0]) + jnp.arange(3)],
    "scatter to data": lambda x: jnp.zeros_like(x).at[:, jnp.argmax(x[0, :, 0])].add(1.0),
    "scatter constant": lambda x: jnp.zeros_like(x).at[:, np.array([3, 1, 5])].set(x[:, :3]),
    "scatter add": lambda x: x.at[:, ::2].add(x[:, 1::2]),
    "segment sum": lambda x: jax.ops.segment_sum(x[0], np.arange(12) // 3, 4)[None],
    "update slice": lambda x: lax.dynamic_update_slice(x, x[:, 6:9], (0, 1, 0)),
    "argmax over time": lambda x: jnp.argmax(x, 1, keepdims=True),
    "argmax of channels": lambda x: jnp.argmax(x, -1, keepdims=True),
    "top k": lambda x: lax.top_k(x.swapaxes(1, 2), 3)[0].swapaxes(1, 2),
    "round": lambda x: jnp.round(same(x)),
    "compare": lambda x: same(x) > 0.5,
    "median": lambda x: jnp.median(x, 1, keepdims=True) + x,
    "bilinear up": lambda x: jax.image.resize(x, (x.shape[0], 24, 2), "bilinear"),
    "bilinear down": lambda x: jax.image.resize(x, (x.shape[0], 5, 2), "bilinear"),
    "cubic": lambda x: jax.image.resize(x, (x.shape[0], 17, 2), "cubic"),
    "nearest": lambda x: jax.image.resize(x, (x.shape[0], 7, 2), "nearest"),
    "scaled": lambda x: jax.image.scale_and_translate(
        x, (x.shape[0], 12, 2), (1,), jnp.ones(1), jnp.full(1, 2.5), "linear"
    ),
    "interpolated": lambda x: jax.vmap(
        lambda row: jnp.interp(jnp.linspace(0.0, 11.0, 9), jnp.arange(12.0), row), 1, 1
    )(x[0])[None],
    "map_coordinates": lambda x: jax.scipy.ndimage.map_coordinates(
        x[0, :, 0], [jnp.linspace(0.0, 11.0, 8)], 1
    )[None, :, None],
    "local response": lambda x: (
        x / (1 + lax.reduce_window(x * x, x.dtype.type(0), lax.add, (1, 3, 1), (1, 1, 1), "SAME"))
    ),
    "max pool gradient": lambda x: jax.grad(
        lambda y: (
            lax.reduce_window(y, -jnp.inf, lax.max, (1, 3, 1), (1, 2, 1), "VALID") ** 2
        ).sum()
    )(x),
    "sum pool gradient": lambda x: jax.grad(
        lambda y: (lax.reduce_window(y, 0.0, lax.add, (1, 3, 1), (1, 2, 1), "VALID") ** 2).sum()
    )(x),
    "conv gradient": lambda x: jax.grad(
        lambda y: (conv(y, 3, window_strides=(2,), padding=[(1, 2)]) ** 2).sum()
    )(x),
    "kernel from x": lambda x: lax.conv_general_dilated(
        x, x[0, 2:5, :, None] * jnp.ones(2), (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    ),
    "only a kernel": lambda x: lax.conv_general_dilated(
        jnp.ones((1, 14, 2)),
        x[0][:3, :, None] * jnp.ones(2),
        (1,),
        "VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
    ),
    "weight gradient": lambda x: jax.grad(
        lambda w: (
            jnp.sin(
                lax.conv_general_dilated(
                    x, w, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
                )
            )
            ** 2
        ).sum()
    )(jnp.ones((3, 2, 2))),
    "gram": lambda x: jnp.einsum("ntc,nsc->nts", x, x),
    "outer": lambda x: x[:, :, None, 0] * x[:, None, :, 1],
    "first channel": lambda x: x[:, :, 0][:, :, None] * jnp.ones(3),
    "matrix of positions": lambda x: jnp.tensordot(
        jnp.eye(12)[::-1] + jnp.eye(12, k=2), x, (1, 1)
    ).swapaxes(0, 1),
    "cholesky": lambda x: jnp.linalg.cholesky(x[0] @ x[0].T + 20 * jnp.eye(12))[None],
    "triangular solve": lambda x: jax.scipy.linalg.solve_triangular(
        jnp.tril(jnp.ones((12, 12))), x[0], lower=True
    )[None],
    "cumsum by product": lambda x: jnp.tri(12) @ x,
    "product from the right": lambda x: (x.swapaxes(1, 2) @ jnp.tri(12)).swapaxes(1, 2),
    "carry out of a scan": lambda x: lax.scan(
        lambda c, row: (jnp.concatenate([c[1:], row[None]]), c.sum(0)), x[0, :3], x[0]
    )[1][None],
    "last carry": lambda x: lax.scan(lambda c, row: (c * 0.5 + row, None), x[0, 0], x[0])[0][None],
    "scan over pairs": lambda x: lax.scan(
        lambda c, rows: (c + rows.sum(0), c), x[0, 0], x[0].reshape(6, 2, 2)
    )[1][None],
    "scan with xs unused": lambda x: lax.scan(lambda c, row: (c + 1, c), 0.0, x[0])[1][
        None, :, None
    ],
    "map over time": lambda x: lax.map(lambda row: row * 2, x.swapaxes(0, 1)).swapaxes(0, 1),
    "nested loops": lambda x: lax.fori_loop(
        0, 2, lambda i, y: lax.scan(lambda c, _: (same(c), None), y, None, length=2)[0], x
    ),
    "loop with its index": lambda x: lax.fori_loop(
        0,
        3,
        lambda i, y: y + lax.dynamic_slice_in_dim(jnp.pad(x, ((0, 0), (0, 3), (0, 0))), i, 12, 1),
        x,
    ),
    "index from data and loop": lambda x: lax.fori_loop(
        0, 3, lambda i, y: y + jnp.roll(x, i * (x[0, 0, 0] > 0), 1), jnp.zeros_like(x)
    ),
    "early exit": lambda x: lax.while_loop(
        lambda c: (c[0] < 12) & (c[1][0, 0, 0] < 3),
        lambda c: (c[0] + 1, jnp.roll(c[1], -1, 1)),
        (0, x),
    )[1],
    "counts turns": lambda x: lax.while_loop(
        lambda c: (c < 12) & (x[0, c, 0] < 2), lambda c: c + 1, 0
    )[None, None],
    "hidden in the predicate": lambda x: jnp.where(x[:, ::-1] > 0, x, 0.0),
    "clamp": lambda x: lax.clamp(jnp.roll(x, 1, 1) - 1, x, jnp.roll(x, -1, 1) + 1),
    "linear recurrence by doubling": lambda x: functools.reduce(
        lambda y, d: y + jnp.pad(y, ((0, 0), (d, 0), (0, 0)))[:, :12], (1, 2, 4), x
    ),
    "jvp": lambda x: jax.jvp(lambda y: same(y) ** 2, (x,), (jnp.roll(x, 2, 1),))[1],
    "hessian diagonal": lambda x: jax.grad(
        lambda y: jax.grad(lambda z: (same(z) ** 3).sum())(y).sum()
    )(x),
    "complex": lambda x: lax.complex(x, jnp.roll(x, 1, 1)).imag,
    "rfft back": lambda x: jnp.fft.irfft(jnp.fft.rfft(x, axis=1), 12, axis=1),
    "bits": lambda x: lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint8)[..., 0],
    "bits into a new axis": lambda x: lax.bitcast_convert_type(
        x[..., 0].astype(jnp.float32), jnp.uint16
    ),
    "reduce precision": lambda x: lax.reduce_precision(x, 8, 10),
    "rng from x": lambda x: jax.random.normal(
        jax.random.key(jnp.int32(x[0, 0, 0] * 10)), (1, 12, 2)
    ),
    "reduce and": lambda x: (x > -1).all(1, keepdims=True),
    "stop gradient": lambda x: lax.stop_gradient(same(x)),
    "optimization barrier": lambda x: lax.optimization_barrier((x, jnp.roll(x, 1, 1)))[1],
}

#: Sound too, but some versions of JAX hide what is inside from everyone: a warning is all right.
RARE: dict[str, Callable[[jax.Array], jax.Array]] = {
    "custom root": lambda x: lax.custom_root(
        lambda y: y - x, jnp.zeros_like(x), lambda f, y: lax.stop_gradient(x), lambda g, y: y
    ),
    "linear solve": lambda x: lax.custom_linear_solve(
        lambda v: 2 * v, x, lambda matvec, b: b / 2, symmetric=True
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact(oracle: Any, name: str) -> None:
    oracle.check(EXACT[name], (2, 12, 2), exact=name not in ("layers by scan", "fori"), draws=6)


@pytest.mark.parametrize("name", SOUND)
def test_sound(oracle: Any, name: str) -> None:
    oracle.check(SOUND[name], (1, 12, 2))


@pytest.mark.filterwarnings("ignore:receptive_field:UserWarning")
@pytest.mark.parametrize("name", RARE)
def test_sound_though_rare(oracle: Any, name: str) -> None:
    oracle.check(RARE[name], (1, 12, 2))
