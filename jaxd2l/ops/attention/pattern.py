"""Which query may see which key, and which weights are dropped, without a table of all pairs.

Causal order, lengths and segments are held as a few integers for each query and key, from which
the pairs of any tile follow; so are the keys from which the dropped pairs are drawn.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32

from jaxd2l.checks import check_integer
from jaxd2l.ops.dropout import check_rate
from jaxd2l.ops.randomness import example_keys

Array = jax.Array


class Pattern(NamedTuple):
    """Query i sees key j if j < limit[i] and their segments are the same; None: no such condition.

    Shapes:
      limit: (n, q) int32; query_segments: (n, q) int32; key_segments: (n, k) int32;
      drop_keys: (n, heads, 2) uint32, for the weights that are dropped.
    """

    limit: Array | None = None
    query_segments: Array | None = None
    key_segments: Array | None = None
    drop_keys: Array | None = None

    def rows(self, start: Array | int, size: int) -> "Pattern":
        """The same for `size` queries from `start` on."""
        return self._replace(
            limit=_piece(self.limit, start, size),
            query_segments=_piece(self.query_segments, start, size),
        )

    def columns(self, start: Array | int, size: int) -> "Pattern":
        """The segments of `size` keys from `start` on."""
        return self._replace(key_segments=_piece(self.key_segments, start, size))

    def allowed(self, first: Array | int, size: int) -> Array | None:
        """Booleans (n, 1, q, size) for the keys `first` ... `first + size - 1`; None: all."""
        allowed = None
        if self.limit is not None:
            column = first + jax.lax.iota(jnp.int32, size)
            allowed = column[None, None, :] < self.limit[:, :, None]
        if self.query_segments is not None and self.key_segments is not None:
            same = self.query_segments[:, :, None] == self.key_segments[:, None, :]
            allowed = same if allowed is None else jnp.logical_and(allowed, same)
        return None if allowed is None else allowed[:, None]

    def some_allowed(self, first: Array | int) -> Array | None:
        """One boolean, False where surely no query sees a key from `first` on; None: unknown."""
        some = None
        if self.limit is not None:
            some = first < jnp.max(self.limit)
        if self.query_segments is not None and self.key_segments is not None:
            (low, high), (least, most) = (
                (jnp.min(ids, axis=1), jnp.max(ids, axis=1))
                for ids in (self.query_segments, self.key_segments)
            )
            meet = jnp.any(jnp.logical_and(low <= most, least <= high))
            some = meet if some is None else jnp.logical_and(some, meet)
        return some

    def drop(self, p: Array, rate: float, row: Array | int, column: Array | int) -> Array:
        """The weights (n, heads, q, k), zero with probability `rate` and else over 1 - rate.

        `row` and `column` are the query and the key of the first. Whether that of query i and key j
        is dropped is a function of (key, example, head, i, j) only: a word of the threefry hash of
        the counter (i, j).
        """
        assert self.drop_keys is not None
        counters = (
            jax.lax.broadcasted_iota(jnp.uint32, p.shape[2:], axis)
            + jnp.asarray(first).astype(jnp.uint32)
            for axis, first in enumerate((row, column))
        )
        counter = jnp.stack(list(counters))
        draw = jax.vmap(jax.vmap(lambda words: threefry_2x32((words[0], words[1]), counter)[0]))
        kept = draw(self.drop_keys) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
        return jnp.where(kept, p / (1 - rate), jnp.zeros_like(p))


def _piece(x: Array | None, start: Array | int, size: int) -> Array | None:
    return None if x is None else jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)


def make_pattern(
    shape: tuple[int, int, int, int],
    causal: bool,
    lengths: Array | None,
    segments: tuple[Array, Array] | None,
    offset: Array | int,
    where: str,
) -> Pattern:
    """The pattern of (n, heads, q, k) scores; `where` is the name of the caller, for errors."""
    n, _, q, k = shape
    limit = query_segments = key_segments = None
    if causal:
        limit = _per_example(offset, n, f"{where}: offset")[:, None] + (
            1 + jnp.arange(q, dtype=jnp.int32)[None]
        )
        limit = jnp.broadcast_to(limit, (n, q))
    elif not isinstance(offset, int) or offset != 0:
        raise ValueError(f"{where}: offset says where causal queries begin, but causal is False")
    if lengths is not None:
        if jnp.shape(lengths) != (n,):
            raise ValueError(f"{where}: lengths must have shape ({n},), got {jnp.shape(lengths)}")
        valid = jnp.broadcast_to(_per_example(lengths, n, f"{where}: lengths")[:, None], (n, q))
        limit = valid if limit is None else jnp.minimum(limit, valid)
    if segments is not None:
        if not isinstance(segments, tuple) or len(segments) != 2:
            raise TypeError(f"{where}: segments must be a pair (of the queries, of the keys)")
        for ids, size, name in zip(segments, (q, k), ("queries", "keys"), strict=True):
            check_integer(ids, f"{where}: segments of the {name}")
            if jnp.shape(ids) != (n, size):
                raise ValueError(
                    f"{where}: segments of the {name} must have shape ({n}, {size}), "
                    f"got {jnp.shape(ids)}"
                )
        query_segments, key_segments = (jnp.asarray(ids).astype(jnp.int32) for ids in segments)
    return Pattern(limit, query_segments, key_segments)


def with_dropout(
    pattern: Pattern,
    rate: float,
    key: Array | None,
    examples: Array | None,
    shape: tuple[int, int, int, int],
    where: str,
) -> tuple[Pattern, float]:
    """The pattern with keys for what is dropped, if anything is, and the checked rate."""
    rate = check_rate(rate, where)
    if rate == 0:
        return pattern, rate
    if key is None:
        raise ValueError(f"{where}: dropout is {rate}, but dropout_key is None; pass a PRNG key")
    keys = example_keys(key, shape[0], examples, where)
    heads = jnp.arange(shape[1], dtype=jnp.uint32)
    split = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys, heads)
    return pattern._replace(drop_keys=jax.random.key_data(split)), rate


def _per_example(x: Array | int, n: int, what: str) -> Array:
    """Integers (n,) int32 from one or from n."""
    check_integer(x, what)
    x = jnp.asarray(x).astype(jnp.int32)
    if x.shape not in ((), (n,)):
        raise ValueError(f"{what} must be one integer or have shape ({n},), got {x.shape}")
    return jnp.broadcast_to(x, (n,))
