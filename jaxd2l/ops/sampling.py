"""Random initial values: standard samples for many arrays by one small program.

Random bits are what XLA compiles most slowly: 0.15 s of CPU for each array that is drawn by itself,
so that a deep network's parameters took 20 s. So an array is drawn in chunks of one size, each with
the array's key folded with the number of the chunk; the chunks of many arrays are one mapped call.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Fan = tuple[int, int]

CHUNK = 1024
_SAMPLERS = {"normal": jax.random.normal, "uniform": jax.random.uniform}


def chunks_of(size: int) -> int:
    """How many chunks hold `size` samples.

    Example:
      >>> chunks_of(1024), chunks_of(1025)
      (1, 2)
    """
    return -(-size // CHUNK)


def standard_chunks(kind: str, keys: Array, counts: Sequence[int], dtype: Any) -> Array:
    """counts[i] chunks with keys[i], one array after the other: (sum(counts), CHUNK).

    `kind` is "normal" (mean 0, variance 1) or "uniform" (on [0, 1)). What a key gives does not
    depend on the other keys, and fewer chunks are the beginning of more.

    Shapes:
      keys: (m,) random keys; counts: m integers.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> both = standard_chunks("uniform", keys, (1, 3), jnp.float32)
      >>> alone = standard_chunks("uniform", keys[1:], (2,), jnp.float32)
      >>> both.shape, bool((both[1:3] == alone).all())
      ((4, 1024), True)
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.concatenate([np.arange(count, dtype=np.uint32) for count in counts])
    chunk_keys = jax.vmap(jax.random.fold_in)(keys[owner], jnp.asarray(number))
    return jax.vmap(lambda key: _SAMPLERS[kind](key, (CHUNK,), dtype))(chunk_keys)


def sample_dtype(dtype: Any) -> Any:
    """At least float32: a half-precision sample is the rounded float32 sample."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def check_dtype(owner: Any, dtype: Any) -> None:
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{type(owner).__name__}: dtype must be floating point, got {jnp.dtype(dtype)}"
        )


class Sampled:
    """Base of the initialisers that stretch standard samples: shift + width * sample."""

    #: What is stretched: "normal" or "uniform" (on [0, 1)).
    sample: ClassVar[str]

    def stretch(self, shape: tuple[int, ...], fan: Fan | None) -> tuple[float, float]:
        """(shift, width) for an array of that shape."""
        raise NotImplementedError(f"{type(self).__name__} must define stretch(shape, fan)")

    def from_chunks(
        self, chunks: Array, shape: tuple[int, ...], dtype: Any, fan: Fan | None
    ) -> Array:
        """The array made of the beginning of its standard samples (count, CHUNK)."""
        shift, width = self.stretch(shape, fan)
        samples = chunks.reshape(chunks.size)[: math.prod(shape)]
        return (width * samples + shift).reshape(shape).astype(dtype)

    def __call__(
        self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, fan: Fan | None = None
    ) -> Array:
        check_dtype(self, dtype)
        count = chunks_of(math.prod(shape))
        chunks = standard_chunks(self.sample, key[None], (count,), sample_dtype(dtype))
        return self.from_chunks(chunks, shape, dtype, fan)
