"""Assertions on shapes and receptive fields of any JAX function of one array; nothing is run."""

import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.analysis import receptive_field
from jaxd2l.geometry import ReceptiveField, as_int

Number = int | float | Fraction


def assert_output_shape(
    f: Callable[[Any], Any],
    input_shape: Sequence[int],
    expected: Any,
    dtype: Any = jnp.float32,
) -> None:
    """Assert what shape `f` gives for an input of `input_shape` and `dtype`; nothing is run.

    `expected` is a shape, or a pytree of shapes where `f` returns one of arrays (the same dicts,
    lists and tuples). None in a shape stands for any size.

    Raises:
      AssertionError: another shape or another structure; the message says which axes differ.
      TypeError: something is not a shape. What `f` itself raises is passed on, with a note.

    Example:
      >>> model = lambda x: {"logits": x.mean((1, 2)), "map": x[:, ::2, ::2]}
      >>> assert_output_shape(model, (8, 28, 28, 3), {"logits": (8, 3), "map": (8, 14, 14, None)})
      >>> assert_output_shape(lambda x: x[:, 1:], (8, 28), (8, 28))
      Traceback (most recent call last):
      AssertionError: output of shape (8, 27), wanted (8, 28): axis 1 is 27, wanted 28; on an input
      of shape (8, 28) float32
    """
    shape = _input_shape(input_shape, "assert_output_shape")
    where = f"on an input of shape {shape} {jnp.dtype(dtype).name}"
    wanted, wanted_tree = jax.tree.flatten(expected, is_leaf=_looks_like_shape)
    for leaf in wanted:
        if not _looks_like_shape(leaf):
            raise TypeError(
                f"assert_output_shape: expected must be a shape such as (1, None, 3), or a pytree "
                f"of shapes, got {leaf!r} in it"
            )
    try:
        outputs = jax.eval_shape(f, jax.ShapeDtypeStruct(shape, dtype))
    except Exception as error:
        error.add_note(f"in assert_output_shape, {where}")
        raise
    got_tree: Any = jax.tree.structure(outputs)
    got = jax.tree_util.tree_flatten_with_path(outputs)[0]
    if got_tree != wanted_tree:
        shapes = jax.tree.map(lambda leaf: leaf.shape, outputs)
        raise AssertionError(f"outputs of shapes {shapes}, wanted {expected}; {where}")
    faults = [
        f"output{jax.tree_util.keystr(path)} of {fault}"
        for (path, leaf), want in zip(got, wanted, strict=True)
        if (fault := _shape_fault(leaf.shape, tuple(want)))
    ]
    if faults:
        raise AssertionError(f"{'; '.join(faults)}; {where}")


def _looks_like_shape(value: Any) -> bool:
    return type(value) in (tuple, list) and all(
        n is None or (hasattr(n, "__index__") and not isinstance(n, bool)) for n in value
    )


def _shape_fault(got: tuple[int, ...], wanted: tuple[Any, ...]) -> str:
    """What is wrong with a shape, or nothing."""
    if len(got) != len(wanted):
        return f"shape {got}, wanted {wanted}: {len(got)} axes, wanted {len(wanted)}"
    differing = [
        f"axis {axis} is {a}, wanted {b}"
        for axis, (a, b) in enumerate(zip(got, wanted, strict=True))
        if b is not None and a != operator.index(b)
    ]
    return f"shape {got}, wanted {wanted}: {', '.join(differing)}" if differing else ""


def assert_receptive_field(
    f: Callable[[Any], Any],
    input_shape: Sequence[int],
    size: Number | Sequence[Number] | None = None,
    jump: Number | Sequence[Number] | None = None,
    start: Number | Sequence[Number] | None = None,
    axes: Sequence[int] | None = None,
    dtype: Any = jnp.float32,
) -> None:
    """Assert the receptive field of the output of `f`: `size`, `jump` and `start`, in pixels.

    Each is one number for all spatial axes or one number per axis; only what is given is compared.
    `input_shape`, `axes` and the meaning of the three are those of `analysis.receptive_field`: the
    jump after upsampling by 2 is 1/2 (0.5 will do), and a start is negative inside the padding. An
    output that sees the whole input has its size and jump 0.

    Raises:
      AssertionError: an axis has another field; the message gives all of it.
      TypeError: nothing to compare is given, or something that is not a number.
      ValueError: not one number per axis, or `f` returns several arrays.

    Example:
      >>> from jax import lax
      >>> smooth = lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 3, 1), (1, 2, 1), "VALID")
      >>> assert_receptive_field(smooth, (1, 32, 4), size=3, jump=2)
      >>> assert_receptive_field(lambda x: smooth(smooth(x)), (1, 32, 4), size=5)
      Traceback (most recent call last):
      AssertionError: axis 1: receptive field of size 7, wanted 5 (size 7, jump 4, start 0); on an
      input of shape (1, 32, 4) float32
    """
    wanted = {"size": size, "jump": jump, "start": start}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if not wanted:
        raise TypeError("assert_receptive_field: give size, jump or start; there is nothing to do")
    shape = _input_shape(input_shape, "assert_receptive_field")
    spatial = tuple(range(1, len(shape) - 1)) if axes is None else tuple(axes)
    numbers = {name: _per_axis(value, len(spatial), name) for name, value in wanted.items()}
    fields = receptive_field(f, shape, axes, dtype=dtype)
    if not (isinstance(fields, tuple) and all(isinstance(o, ReceptiveField) for o in fields)):
        raise ValueError(
            "assert_receptive_field: f returns several arrays; pick one: lambda x: f(x)[0]"
        )
    faults = []
    for position, (axis, field) in enumerate(zip(spatial, fields, strict=True)):
        for name, values in numbers.items():
            if getattr(field, name) != values[position]:
                faults.append(
                    f"axis {axis}: receptive field of {name} {getattr(field, name)}, wanted "
                    f"{values[position]} (size {field.size}, jump {field.jump}, "
                    f"start {field.start})"
                )
    if faults:
        where = f"on an input of shape {shape} {jnp.dtype(dtype).name}"
        raise AssertionError(f"{'; '.join(faults)}; {where}")


def _per_axis(value: Any, rank: int, name: str) -> tuple[Number, ...]:
    """One number per axis."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    if len(values) != rank:
        raise ValueError(
            f"assert_receptive_field: {name} must be one number or one per spatial axis "
            f"({rank}), got {value!r}"
        )
    for number in values:
        if isinstance(number, bool) or not isinstance(number, Number):
            raise TypeError(f"assert_receptive_field: {name} must be a number, got {number!r}")
    return values


def _input_shape(input_shape: Any, what: str) -> tuple[int, ...]:
    if not isinstance(input_shape, Sequence) or isinstance(input_shape, str):
        raise TypeError(f"{what}: input_shape must be a tuple of integers, got {input_shape!r}")
    return tuple(as_int(n, f"{what}: input_shape: each size", 0) for n in input_shape)
