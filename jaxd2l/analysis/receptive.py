"""The receptive field of any JAX function, read off its jaxpr."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

from jaxd2l.analysis.interpreter import Value, follow
from jaxd2l.analysis.known import Known
from jaxd2l.analysis.seen import Seen
from jaxd2l.geometry import ReceptiveField, as_int


def receptive_field(
    f: Callable[[jax.Array], Any],
    input_shape: Sequence[int],
    axes: Sequence[int] | None = None,
    *,
    dtype: Any = jnp.float32,
) -> Any:
    """What each unit of the output of any JAX function of one array sees of its input.

    `f` may be a model of Flax, Equinox, Haiku or a plain function, its parameters closed over. It
    is traced, not run; its jaxpr is followed from the input on, and for every element in between
    the first and the last pixel that it depends on is known exactly. Then unit u of the output
    depends on no pixel of the image outside of `field.interval(u)`.

    What counts is the program, not the numbers: a parameter that is zero is still used, and
    x - x depends on x. Integer and boolean arrays and what is computed without parameters are
    looked into: the indices of a gather, a constant mask of `where` or of a kernel, the matrix of
    `jax.image.resize`. A mask of floats that f closes over is a parameter: give it as booleans, or
    make it in f. Padding, by a convolution, `jnp.pad` or concatenated zeros, continues the
    pattern of the image beyond its borders, as in `geometry.ReceptiveField`: `start` may be
    negative. A value that mixes all positions of an axis, as a global pool does, sees the pixels
    of the image and no padding.

    Args:
      f: a function of one array. It may return several arrays.
      input_shape: of that array, with its batch axis if f has one.
      axes: the spatial axes of the input; by default all but the first and the last.
      dtype: of the input: `jnp.int32` for tokens.

    Returns:
      A tuple of `geometry.ReceptiveField`, one per spatial axis of the input; where f returns
      several arrays, the same structure with such a tuple for each. The units are those along the
      axis of the output that varies with the input axis: the one at the same place if it does,
      else the first that does; the other axes (channels that see different pixels) are taken
      together. `size` is that of the unit that sees most. The whole input is
      `ReceptiveField.whole(n)`: size n, jump 0, start 0. Units that follow no pattern have the
      jump None, and output that does not depend on the input has the size 0.

    Raises:
      TypeError, ValueError: f is not callable, or `input_shape` or `axes` cannot be.

    Warns:
      UserWarning: f uses a primitive of which it is not known what it reads, or a scan too long to
        follow; it is named, and its results are taken to see the whole input.

    Source: Araujo, Norris & Sim, Distill 2019, doi:10.23915/distill.00021, for stacks of windows.

    Example:
      >>> import flax.linen as nn
      >>> class Net(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x):                                  # (n, h, w, c)
      ...         x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
      ...         return x + nn.Conv(8, (3, 3), kernel_dilation=2)(x)
      >>> variables = Net().init(jax.random.key(0), jnp.ones((1, 32, 32, 1)))
      >>> rows, columns = receptive_field(lambda x: Net().apply(variables, x), (1, 32, 32, 1))
      >>> rows.size, rows.jump, rows.start, rows.interval(5)
      (11, 2, -4, (6, 16))
      >>> receptive_field(lambda x: x.mean((1, 2)), (1, 32, 32, 1))[0].size
      32
    """
    if not callable(f):
        raise TypeError(f"receptive_field: f must be a function of one array, got {f!r}")
    shape = _shape(input_shape)
    spatial = spatial_axes("receptive_field", shape, axes)
    x = jax.ShapeDtypeStruct(shape, dtype)
    try:
        closed, out = jax.make_jaxpr(f, return_shape=True)(x)
    except Exception as error:
        error.add_note(f"receptive_field: while tracing f with an input {shape} of {x.dtype}")
        raise
    # What no output needs is left out, so that nothing in it is warned of.
    jaxpr, _ = partial_eval.dce_jaxpr(
        closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True
    )
    closed = core.ClosedJaxpr(jaxpr, closed.consts)
    results, unknown = follow(closed, [_input(shape, spatial)], [shape[axis] for axis in spatial])
    for sentence in unknown:
        warnings.warn(f"receptive_field: {sentence}", stacklevel=2)
    fields = [_fields(result, spatial) for result in results]
    return jax.tree.unflatten(jax.tree.structure(out), fields)


def _shape(input_shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(input_shape)
    except TypeError:
        raise TypeError(
            f"receptive_field: input_shape must be a tuple such as (1, 28, 28, 1), "
            f"got {input_shape!r}"
        ) from None
    return tuple(as_int(n, "receptive_field: input_shape: each size", 0) for n in sizes)


def spatial_axes(where: str, shape: tuple[int, ...], axes: Any) -> tuple[int, ...]:
    """`axes` as different numbers in [0, rank), in the caller's order; by default all but the ends.

    Raises:
      TypeError: not a sequence of integers.
      ValueError: none is left, one does not exist, or one is named twice.

    Example:
      >>> spatial_axes("f", (1, 28, 28, 3), None), spatial_axes("f", (28, 28), (-1,))
      ((1, 2), (1,))
    """
    rank = len(shape)
    if axes is None:
        axes = range(1, rank - 1)
        if not axes:
            raise ValueError(
                f"{where}: without axes all but the first (batch) and the last (features) are "
                f"taken, and of {shape} none is left; name the spatial axes, axes=(0,)"
            )
    try:
        found = tuple(as_int(axis, f"{where}: each of axes", -rank) for axis in axes)
    except TypeError:
        raise TypeError(
            f"{where}: axes must be a tuple of integers such as (1, 2), got {axes!r}"
        ) from None
    if not found or max(found) >= rank or len({axis % rank for axis in found}) < len(found):
        raise ValueError(
            f"{where}: axes must be one or more different axes of input_shape {shape}, got {found}"
        )
    return tuple(axis % rank for axis in found)


def _input(shape: tuple[int, ...], axes: tuple[int, ...]) -> Value:
    if 0 in shape:
        return tuple(Seen.nothing(shape[axis], shape) for axis in axes)
    return tuple(Seen.of_input(shape, axis) for axis in axes)


def _fields(value: Value, axes: tuple[int, ...]) -> tuple[ReceptiveField, ...]:
    if isinstance(value, Known):
        return tuple(ReceptiveField((None,), 0) for _ in axes)
    return tuple(_field(seen, axis) for seen, axis in zip(value, axes, strict=True))


def _field(seen: Seen, axis: int) -> ReceptiveField:
    if seen.is_uniform:
        lo, hi = seen.lo.item(), seen.hi.item()
        return ReceptiveField(((lo, hi) if lo <= hi else None,), 0)
    rank = len(seen.shape)
    moving = [a for a in range(rank) if seen.moves_along(a)]
    if axis in moving or not moving:
        return seen.field(min(axis, rank - 1))
    return seen.field(moving[0])
