"""Random keys that belong to one example and not to the batch or the device it is in.

Example `i` of the *global* batch gets the key `fold_in(key, i)`, and what is drawn for it is drawn
from that key alone. So it is the same whatever the number of devices and whoever else is in the
batch. Under `pmap` and `shard_map` pass the global indices of the local examples; on one device,
and under `jit` over a sharded batch, the default 0 ... n-1 is already global.
"""

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_integer

Array = jax.Array


def example_keys(key: Array, n: int, examples: Array | None, where: str) -> Array:
    """One key for each example of a batch: `fold_in(key, index)`.

    `where` is the name of the calling function, for errors.

    Shapes:
      key: (), one PRNG key; examples: (n,), integers, the indices in the global batch, default
      0 ... n-1; result: (n,), keys.

    Raises:
      TypeError: examples are not integers.
      ValueError: examples is not (n,), or key is not a single one.

    Example:
      >>> keys = example_keys(jax.random.key(0), 3, None, "draw")
      >>> last = example_keys(jax.random.key(0), 1, jnp.array([2]), "draw")
      >>> bool(keys[2] == last[0])
      True
    """
    if examples is None:
        examples = jnp.arange(n, dtype=jnp.uint32)
    check_integer(examples, f"{where}: examples")
    examples = jnp.asarray(examples)
    if examples.shape != (n,):
        raise ValueError(
            f"{where}: examples must hold one index per example, shape ({n},), got {examples.shape}"
        )
    # Other generators (rbg) do not keep their promises under vmap: their key seeds a threefry key.
    words = jax.random.key_data(key)
    if words.ndim != 1:
        raise ValueError(
            f"{where}: key must be one PRNG key, got an array of them, shape "
            f"{words.shape[:-1]}; use jax.vmap"
        )
    base = jax.random.wrap_key_data(words[:2], impl="threefry2x32")
    for i in range(2, words.shape[0]):
        base = jax.random.fold_in(base, words[i])
    return jax.vmap(jax.random.fold_in, (None, 0))(base, examples.astype(jnp.uint32))
