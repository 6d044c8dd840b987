"""Random programs of regular steps: `receptive_field` against index matrices written by hand.

Each step is a JAX function together with a boolean matrix (unit, pixel) for each axis, found from
its definition by counting. The matrices of a program are multiplied; units that read padding
anywhere are marked, because there the pattern continues beyond the image and only the interval's
soundness can be seen. All other units must be exact.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxd2l.analysis import receptive_field

CHANNELS = 2


class Reads(NamedTuple):
    """What the units of one axis read: pixels, and whether any padding."""

    pixels: np.ndarray  # (units, pixels)
    padding: np.ndarray  # (units,)

    def after(self, before: "Reads") -> "Reads":
        return Reads(self.pixels @ before.pixels, self.pixels @ before.padding | self.padding)


class Step(NamedTuple):
    name: str
    run: Callable[[jax.Array], jax.Array]  # of (n, *spatial, c)
    reads: tuple[Reads, ...]  # per axis
    order: tuple[int, ...] | None = None  # the axes are permuted before


def index_reads(index: Any, n: int) -> Reads:
    """Unit j is pixel index[j]; -1 is padding."""
    index = np.asarray(index)
    return Reads(index[:, None] == np.arange(n), index < 0)


def window_reads(n: int, k: int, s: int, lo: int, hi: int, d: int = 1, l: int = 1) -> Reads:
    """A window over n pixels that stand l apart, by definition; holes between them are zeros."""
    units = ((n - 1) * l + 1 + lo + hi - (k - 1) * d - 1) // s + 1
    pixels, padding = np.zeros((max(units, 0), n), bool), np.zeros(max(units, 0), bool)
    for j in range(units):
        for t in range(k):
            at = j * s + t * d - lo
            if at % l == 0 and 0 <= at // l < n:
                pixels[j, at // l] = True
            elif not 0 <= at <= (n - 1) * l:
                padding[j] = True
    return Reads(pixels, padding)


def positive(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.5, 1.5, shape).astype(np.float32)


# --- the steps: each draws its parameters for the given sizes -----------------------------------

small = st.integers(1, 3)
side = st.integers(0, 2)


def conv(draw: Any, sizes: list[int]) -> Step:
    rank = len(sizes)
    k, s, d, l = (draw(st.tuples(*[small] * rank)) for _ in range(4))
    l = draw(st.sampled_from([(1,) * rank, l]))
    sides = draw(st.tuples(*[st.tuples(side, side)] * rank))
    groups = draw(st.sampled_from([1, CHANNELS]))
    spatial = "HWD"[:rank]
    layout = draw(st.sampled_from(["N{}C", "NC{}", "{}NC", "CN{}"])).format(spatial)
    filters = draw(st.sampled_from(["{}IO", "OI{}", "IO{}"])).format(spatial)
    sizes_of = dict(zip(spatial, k, strict=True)) | {"I": CHANNELS // groups, "O": CHANNELS}
    kernel = positive(*(sizes_of[letter] for letter in filters))
    here = "N" + spatial + "C"

    def run(x: jax.Array) -> jax.Array:
        y = lax.conv_general_dilated(
            x.transpose([here.index(letter) for letter in layout]),
            jnp.asarray(kernel, x.dtype),
            s,
            sides,
            l,
            d,
            (layout, filters, layout),
            groups,
        )
        return y.transpose([layout.index(letter) for letter in here])

    reads = [window_reads(n, k[i], s[i], *sides[i], d[i], l[i]) for i, n in enumerate(sizes)]
    return Step(f"conv {layout} {filters} k{k} s{s} {sides} d{d} l{l} g{groups}", run, (*reads,))


def pool(draw: Any, sizes: list[int]) -> Step:
    rank = len(sizes)
    k, s, d = (draw(st.tuples(*[small] * rank)) for _ in range(3))
    sides = draw(st.tuples(*[st.tuples(side, side)] * rank))
    start, combine = draw(
        st.sampled_from(
            [(-np.inf, lax.max), (np.inf, lax.min), (0.0, lax.add), (-np.inf, jnp.logaddexp)]
        )
    )

    def run(x: jax.Array) -> jax.Array:
        return lax.reduce_window(
            x,
            x.dtype.type(start),
            combine,
            (1, *k, 1),
            (1, *s, 1),
            ((0, 0), *sides, (0, 0)),
            (1,) * (rank + 2),
            (1, *d, 1),
        )

    reads = [window_reads(n, k[i], s[i], *sides[i], d[i]) for i, n in enumerate(sizes)]
    return Step(f"pool {combine.__name__} k{k} s{s} {sides} d{d}", run, (*reads,))


def pad(draw: Any, sizes: list[int]) -> Step:
    config = draw(
        st.tuples(*[st.tuples(st.integers(-2, 2), st.integers(-2, 2), side)] * len(sizes))
    )

    def run(x: jax.Array) -> jax.Array:
        return lax.pad(x, x.dtype.type(0), ((0, 0, 0), *config, (0, 0, 0)))

    reads = [
        window_reads(n, 1, 1, lo, hi, 1, inner + 1)
        for n, (lo, hi, inner) in zip(sizes, config, strict=True)
    ]
    return Step(f"pad {config}", run, (*reads,))


def pad_mode(draw: Any, sizes: list[int]) -> Step:
    mode = draw(st.sampled_from(["edge", "reflect", "symmetric", "wrap"]))
    sides = draw(st.tuples(*[st.tuples(side, side)] * len(sizes)))

    def run(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), *sides, (0, 0)), mode)

    reads = [
        index_reads(np.pad(np.arange(n), both, mode), n)
        for n, both in zip(sizes, sides, strict=True)
    ]
    return Step(f"jnp.pad {mode} {sides}", run, (*reads,))


def access(draw: Any, sizes: list[int]) -> Step:
    cuts = tuple(
        slice(
            draw(st.one_of(st.none(), st.integers(-n, n - 1))),
            draw(st.one_of(st.none(), st.integers(-n, n))),
            draw(st.sampled_from([None, 1, 2, 3, -1, -2])),
        )
        for n in sizes
    )
    reads = [index_reads(np.arange(n)[cut], n) for n, cut in zip(sizes, cuts, strict=True)]
    return Step(f"slice {cuts}", lambda x: x[(slice(None), *cuts)], (*reads,))


def along(draw: Any, sizes: list[int]) -> Step:
    """An index map of one axis, said in one of many ways."""
    axis = draw(st.integers(0, len(sizes) - 1))
    n = sizes[axis]
    by, at = draw(st.integers(1, 3)), axis + 1
    start = draw(st.integers(0, n - 1))
    index = np.asarray(draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n + 1)))
    ways: dict[str, tuple[Callable[[jax.Array], jax.Array], Any]] = {
        "roll": (lambda x: jnp.roll(x, by, at), np.roll(np.arange(n), by)),
        "repeat": (lambda x: jnp.repeat(x, by, at), np.repeat(np.arange(n), by)),
        "take": (lambda x: jnp.take(x, index, at), index),
        "index": (lambda x: x[(slice(None),) * at + (index,)], index),
        "flip": (lambda x: jnp.flip(x, at), np.arange(n)[::-1]),
        "concatenate": (
            lambda x: jnp.concatenate([jnp.flip(x, at), x], at),
            np.concatenate([np.arange(n)[::-1], np.arange(n)]),
        ),
        "zeros": (
            lambda x: jnp.concatenate([jnp.zeros_like(x), x, jnp.zeros_like(x)], at),
            np.concatenate([[-1] * n, np.arange(n), [-1] * n]),
        ),
        "split": (
            lambda x: jnp.concatenate(jnp.split(x, [start], at)[::-1], at),
            np.roll(np.arange(n), n - start),
        ),
        "dynamic_slice": (
            lambda x: lax.dynamic_slice_in_dim(x, start, n - start, at),
            np.arange(n)[start:],
        ),
        "computed start": (
            lambda x: lax.dynamic_slice_in_dim(x, jnp.arange(n)[start] * 1, n - start, at),
            np.arange(n)[start:],
        ),
        "tile": (
            lambda x: jnp.tile(x, [by if i == at else 1 for i in range(x.ndim)]),
            np.tile(np.arange(n), by),
        ),
        "stack": (
            lambda x: jnp.stack(list(jnp.moveaxis(x, at, 0))[::-1], at),
            np.arange(n)[::-1],
        ),
        "nearest": (
            lambda x: jax.image.resize(
                x, [m * by if i == at else m for i, m in enumerate(x.shape)], "nearest"
            ),
            np.repeat(np.arange(n), by),
        ),
        "loop": (
            lambda x: lax.fori_loop(0, by, lambda i, y: jnp.roll(y, 1, at), x),
            np.roll(np.arange(n), by),
        ),
    }
    name = draw(st.sampled_from(sorted(ways)))
    run, index_map = ways[name]
    reads = [index_reads(index_map if i == axis else np.arange(m), m) for i, m in enumerate(sizes)]
    return Step(f"{name} axis {axis} by {by} start {start} index {index}", run, (*reads,))


def blocks(draw: Any, sizes: list[int]) -> Step:
    """Space to depth and a mixture of channels, or depth to space."""
    p = 2
    rank = len(sizes)
    down = all(n % p == 0 for n in sizes) and draw(st.booleans())
    if down:
        reads = [window_reads(n, p, p, 0, 0) for n in sizes]
        kernel = positive(p**rank * CHANNELS, CHANNELS)
    else:
        reads = [index_reads(np.repeat(np.arange(n), p), n) for n in sizes]
        kernel = positive(CHANNELS, p**rank * CHANNELS)
    inner = tuple(range(2, 2 * rank + 1, 2))
    outer = tuple(range(1, 2 * rank + 1, 2))

    def run(x: jax.Array) -> jax.Array:
        batch = x.shape[0]
        if down:
            split = x.reshape(batch, *(m for n in sizes for m in (n // p, p)), CHANNELS)
            split = split.transpose(0, *outer, *inner, 2 * rank + 1)
            merged = split.reshape(batch, *(n // p for n in sizes), p**rank * CHANNELS)
            return merged @ jnp.asarray(kernel, x.dtype)
        wide = jnp.einsum("...c,cd->...d", x, jnp.asarray(kernel, x.dtype))
        wide = wide.reshape(batch, *sizes, *[p] * rank, CHANNELS)
        order = [i for a in range(rank) for i in (1 + a, 1 + rank + a)]
        return wide.transpose(0, *order, 2 * rank + 1).reshape(
            batch, *(n * p for n in sizes), CHANNELS
        )

    return Step("space to depth" if down else "depth to space", run, (*reads,))


def banded(draw: Any, sizes: list[int]) -> Step:
    """A product with a constant banded matrix, made of iota inside the function."""
    axis = draw(st.integers(0, len(sizes) - 1))
    n, lo, hi = sizes[axis], draw(side), draw(side)
    gap = np.arange(n) - np.arange(n)[:, None]

    def run(x: jax.Array) -> jax.Array:
        gap = lax.broadcasted_iota(jnp.int32, (n, n), 1) - lax.broadcasted_iota(
            jnp.int32, (n, n), 0
        )
        matrix = ((gap >= -lo) & (gap <= hi)).astype(x.dtype)
        return jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis + 1)), 0, axis + 1)

    band = Reads((gap >= -lo) & (gap <= hi), np.zeros(n, bool))
    reads = [band if i == axis else index_reads(np.arange(m), m) for i, m in enumerate(sizes)]
    return Step(f"banded {lo} {hi} axis {axis}", run, (*reads,))


def cumulative(draw: Any, sizes: list[int]) -> Step:
    axis = draw(st.integers(0, len(sizes) - 1))
    n, reverse = sizes[axis], draw(st.booleans())
    op = draw(st.sampled_from([lax.cumsum, lax.cummax, lax.cumprod, lax.cumlogsumexp]))
    triangle = np.tri(n, dtype=bool)
    part = Reads(triangle.T if reverse else triangle, np.zeros(n, bool))
    reads = [part if i == axis else index_reads(np.arange(m), m) for i, m in enumerate(sizes)]
    return Step(
        f"{op.__name__} axis {axis} {reverse}", lambda x: op(x, axis + 1, reverse), (*reads,)
    )


def swap(draw: Any, sizes: list[int]) -> Step:
    order = tuple(draw(st.permutations(range(len(sizes)))))
    reads = [index_reads(np.arange(sizes[a]), sizes[a]) for a in order]
    return Step(
        f"transpose {order}",
        lambda x: x.transpose(0, *(a + 1 for a in order), x.ndim - 1),
        (*reads,),
        order,
    )


def elementwise(draw: Any, sizes: list[int]) -> Step:
    ways: dict[str, Callable[[jax.Array], jax.Array]] = {
        "softmax over channels": lambda x: jax.nn.softmax(x, -1),
        "gelu": lambda x: jax.nn.gelu(x),
        "layer norm": lambda x: (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1),
        "relu": lambda x: jnp.maximum(x, 0),
        "where": lambda x: jnp.where(x > 0, x, 0.1 * x),
        "scan over channels": lambda x: jnp.moveaxis(
            lax.scan(lambda c, row: (c + row, c * row), x[..., 0], jnp.moveaxis(x, -1, 0))[1], 0, -1
        ),
        "sort channels": lambda x: jnp.sort(x, -1),
        "flatten": lambda x: (x.reshape(-1) * 2).reshape(x.shape),
        "flatten space": lambda x: (
            x.reshape(x.shape[0], -1, CHANNELS) @ jnp.ones((CHANNELS, CHANNELS), x.dtype)
        ).reshape(x.shape),
        "batch away": lambda x: jnp.moveaxis(jnp.moveaxis(x, 0, 2) * 2, 2, 0),
    }
    name = draw(st.sampled_from(sorted(ways)))
    return Step(name, ways[name], tuple(index_reads(np.arange(n), n) for n in sizes))


STEPS = [conv, conv, pool, pad, pad_mode, access, along, along, blocks, banded, cumulative, swap]
STEPS.append(elementwise)


def wrapped(
    draw: Any, run: Callable[[jax.Array], jax.Array]
) -> tuple[str, Callable[[jax.Array], jax.Array]]:
    """The same function inside one of JAX's transformations."""

    def custom(x: jax.Array) -> jax.Array:
        inner = jax.custom_vjp(run)
        inner.defvjp(lambda x: (run(x), None), lambda _, g: (g,))
        return inner(x)

    def custom_jvp(x: jax.Array) -> jax.Array:
        inner = jax.custom_jvp(run)
        inner.defjvp(lambda primals, tangents: (run(*primals), run(*primals)))
        return inner(x)

    ways: dict[str, Callable[[jax.Array], jax.Array]] = {
        "": run,
        "jit": jax.jit(run),
        "checkpoint": jax.checkpoint(run),
        "custom_vjp": custom,
        "custom_jvp": custom_jvp,
        "vmap": lambda x: jax.vmap(lambda one: run(one[None])[0])(x),
        "cond": lambda x: lax.cond(True, run, lambda x: run(x) * 2, x),
        "map": lambda x: lax.map(lambda one: run(one[None])[0], x),
        "scan": lambda x: lax.scan(lambda c, _: (c, run(c)), x, None, length=1)[1][0],
        "fori": lambda x: lax.fori_loop(0, 2, lambda i, y: run(x), run(x)),
        "while": lambda x: lax.while_loop(
            lambda c: c[0] < 1, lambda c: (c[0] + 1, run(x)), (0, run(x) * 0)
        )[1],
    }
    name = draw(st.sampled_from(sorted(ways)))
    return name, ways[name]


def skip(run: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    return x + run(x)


@st.composite
def programs(draw: Any) -> tuple[Any, ...]:
    """(names, run, shape, reads per axis, order of the axes) of up to four steps."""
    rank = draw(st.sampled_from([1, 1, 2, 2, 3]))
    start = sizes = draw(
        st.lists(st.integers(3, 9 if rank < 3 else 5), min_size=rank, max_size=rank)
    )
    order = tuple(range(rank))
    reads = [index_reads(np.arange(n), n) for n in sizes]
    names, runs = [], []
    for make in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=4)):
        step = make(draw, sizes)
        after = [len(r.padding) for r in step.reads]
        if min(after) < 1 or np.prod(after) > 3000:
            continue
        inside, run = wrapped(draw, step.run)
        if step.order is not None:
            reads, order = [reads[a] for a in step.order], tuple(order[a] for a in step.order)
        more = [new.after(old) for new, old in zip(step.reads, reads, strict=True)]
        if not all(r.pixels.any() for r in more):  # nothing of the image is left along an axis
            continue
        if after == sizes and step.order is None and draw(st.integers(0, 3)) == 0:  # a skip
            run = functools.partial(skip, run)
            more = [
                Reads(a.pixels | b.pixels, a.padding | b.padding)
                for a, b in zip(more, reads, strict=True)
            ]
        names.append(f"{inside}({step.name})")
        runs.append(run)
        reads, sizes = more, after

    def whole(x: jax.Array) -> jax.Array:
        for run in runs:
            x = run(x)
        return x

    return names, whole, (draw(small), *start, CHANNELS), reads, order


@settings(max_examples=150)
@given(programs())
def test_programs_agree_with_index_matrices(oracle: Any, program: Any) -> None:
    names, f, shape, reads, order = program
    fields = receptive_field(f, shape)
    for axis, (read, source) in enumerate(zip(reads, order, strict=True)):
        field = fields[source]
        holes = field.jump != 0 and not any("jnp.pad" in name for name in names)
        exact = ~read.padding & (read.pixels.any(1) | holes)
        oracle.assert_field(field, read.pixels, exact, f"{names} {shape} axis {axis}")


@settings(max_examples=25)
@given(programs())
def test_the_matrices_are_what_is_measured(oracle: Any, program: Any) -> None:
    names, f, shape, reads, order = program
    spatial = tuple(range(1, len(shape) - 1))
    out = tuple(order.index(a) + 1 for a in range(len(order)))
    for a, matrix in enumerate(oracle.support(f, shape, spatial, out, draws=8)):
        told = reads[order.index(a)].pixels
        assert not np.any(matrix & ~told), names
        if not any(r.padding.any() for r in reads):  # -inf around a maximum hides pixels
            np.testing.assert_array_equal(matrix, told, str(names))
