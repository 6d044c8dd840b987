"""The one module through which chex is used, and the checks of arguments that all ops share.

Two kinds live here. `check_*` refuse a caller's mistake with a `ValueError` or `TypeError` that
says what was got and what was wanted. `assert_*` are chex assertions of our own claims, made at
trace time and free under `jit`: a shape that `jaxd2l.geometry` predicts must be the shape that
came out.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def check_rank(x: Any, ranks: int | Sequence[int], what: str, axes: str) -> None:
    """Refuse `x` unless its rank is one of `ranks`; `axes` names the wanted axes, "(n, h, w, c)".

    Example:
      >>> check_rank(jnp.zeros((2, 3)), 4, "max_pool: x", "(n, h, w, c)")
      Traceback (most recent call last):
      ValueError: max_pool: x must have shape (n, h, w, c), got (2, 3)
    """
    wanted = (ranks,) if isinstance(ranks, int) else tuple(ranks)
    if jnp.ndim(x) not in wanted:
        raise ValueError(f"{what} must have shape {axes}, got {tuple(jnp.shape(x))}")


def check_same_shape(a: Any, b: Any, what: str) -> None:
    """Refuse two arrays whose shapes differ: nothing here broadcasts silently.

    Example:
      >>> check_same_shape(jnp.zeros((4, 1)), jnp.zeros((4,)), "loss: x and y")
      Traceback (most recent call last):
      ValueError: loss: x and y must have the same shape, got (4, 1) and (4,)
    """
    if jnp.shape(a) != jnp.shape(b):
        raise ValueError(
            f"{what} must have the same shape, got {tuple(jnp.shape(a))} and {tuple(jnp.shape(b))}"
        )


def check_floating(x: Any, what: str) -> None:
    """Refuse arrays that are not floating point (complex is refused too).

    Example:
      >>> check_floating(jnp.zeros(3, int), "softmax: x")
      Traceback (most recent call last):
      TypeError: softmax: x must be floating point, got int32; convert it with .astype
    """
    dtype = jnp.result_type(x)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{what} must be floating point, got {dtype}; convert it with .astype")


def check_integer(x: Any, what: str) -> None:
    """Refuse arrays that are not integers (labels, tokens, indices).

    Example:
      >>> check_integer(jnp.zeros(3), "pick: labels")
      Traceback (most recent call last):
      TypeError: pick: labels must be integers, got float32; convert it with .astype
    """
    dtype = jnp.result_type(x)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"{what} must be integers, got {dtype}; convert it with .astype")


def assert_spatial_shape(y: Array, expected: Sequence[int], what: str) -> None:
    """Assert that `y` (n, *spatial, c) has the spatial sizes that `jaxd2l.geometry` predicts.

    Raises:
      AssertionError: it has not, which is a fault of this library, not of the caller.
    """
    import chex  # a fifth of the time that `import jaxd2l` would take

    chex.assert_shape(
        y,
        (None, *expected, None),
        custom_message=f"{what}: geometry predicts the spatial sizes {tuple(expected)}",
    )
