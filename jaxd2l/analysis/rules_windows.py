"""Rules for the primitives that slide a window: convolution, pooling and its gradient."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from jaxd2l.analysis.rules import (
    Operand,
    not_zero,
    out_shape,
    reduced,
    rule,
    seen_only,
    shape_of,
    spread_over,
)
from jaxd2l.analysis.seen import Seen
from jaxd2l.analysis.seen_ops import reshaped, transposed, union


def _windowed(seen: Seen, params: dict[str, Any], counts: tuple[int, ...]) -> Seen:
    """What `counts` windows along each axis see."""
    ones = (1,) * len(counts)
    spacing = params.get("window_dilation", ones)
    spread = params.get("base_dilation", ones)
    for axis, taps in enumerate(params["window_dimensions"]):
        stride, low = params["window_strides"][axis], params["padding"][axis][0]
        seen = seen.window(axis, counts[axis], -low, stride, taps, spacing[axis], spread[axis])
    return seen


@rule(*(f"reduce_window{kind}" for kind in ("", "_sum", "_max", "_min")), "select_and_gather_add")
def _reduce_window(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    shape = out_shape(eqn)
    arrays = len(operands)
    if eqn.primitive.name == "reduce_window":
        arrays //= 2  # the others are initial values
    parts = [_windowed(seen, eqn.params, shape) for seen in seen_only(operands[:arrays])]
    return union(parts + [spread_over(scalar, shape) for scalar in seen_only(operands[arrays:])])


@rule("select_and_scatter_add")
def _select_and_scatter(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    """The gradient of max pooling: a window chooses the element of the second operand that gets the
    window's element of the first.
    """
    source, chosen = operands[:2]
    parts = seen_only([source])
    if isinstance(chosen, Seen):
        parts.append(_windowed(chosen, eqn.params, shape_of(eqn.invars[0])))
    seen, shape = union(parts), out_shape(eqn)
    for axis, taps in enumerate(eqn.params["window_dimensions"]):
        stride, low = eqn.params["window_strides"][axis], eqn.params["padding"][axis][0]
        # back: an element gets from the windows that contain it
        seen = seen.window(axis, shape[axis], low - taps + 1, 1, taps, 1, stride)
    return seen


def _convolved(
    eqn: core.JaxprEqn,
    operands: Sequence[Operand],
    specs: tuple[Sequence[int], Sequence[int], Sequence[int]],
    batch_groups: int,
) -> Seen:
    params, shape = eqn.params, out_shape(eqn)
    (lhs, rhs), (lhs_spec, rhs_spec, out_spec) = operands, specs
    kernel = shape_of(eqn.invars[1])
    parts = []
    if isinstance(lhs, Seen):
        for place, axis in enumerate(lhs_spec[2:]):
            first, taps = _taps(rhs, rhs_spec[2 + place], kernel)
            spacing = params["rhs_dilation"][place]
            lhs = lhs.window(
                axis,
                shape[out_spec[2 + place]],
                first * spacing - params["padding"][place][0],
                params["window_strides"][place],
                taps,
                spacing,
                params["lhs_dilation"][place],
            )
        if batch_groups > 1:
            lhs = lhs.hull(lhs_spec[0])
        lhs = lhs.resized(lhs_spec[0], shape[out_spec[0]]) if batch_groups > 1 else lhs
        lhs = _mixed_channels(lhs, lhs_spec[1], shape[out_spec[1]], params["feature_group_count"])
        order = [0] * len(shape)
        for source, target in zip(lhs_spec, out_spec, strict=True):
            order[target] = source
        parts.append(transposed(lhs, order))
    if isinstance(rhs, Seen):
        rhs = reduced(rhs, [axis for axis in range(len(kernel)) if axis != rhs_spec[0]])
        for axis, size in enumerate(shape):
            if axis != out_spec[1]:
                rhs = rhs.inserted(axis, size)
        parts.append(rhs)
    return union(parts)


def _taps(kernel: Operand, axis: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """The first tap along an axis of a kernel, and how many there are to the last: without those at
    the ends that a constant mask makes zero.
    """
    used = not_zero(kernel)
    if used is None:
        return 0, shape[axis]
    taps = np.flatnonzero(used.any(tuple(a for a in range(len(shape)) if a != axis)))
    return (int(taps[0]), int(taps[-1] - taps[0]) + 1) if taps.size else (0, 0)


def _mixed_channels(seen: Seen, axis: int, out: int, groups: int) -> Seen:
    """Every output channel sees all the channels of its group."""
    if groups == 1 or seen.same_along(axis):
        return seen.hull(axis).resized(axis, out)
    split = (*seen.shape[:axis], groups, seen.shape[axis] // groups, *seen.shape[axis + 1 :])
    seen = reshaped(seen, split).hull(axis + 1).resized(axis + 1, out // groups)
    return reshaped(seen, (*seen.shape[:axis], out, *seen.shape[axis + 2 :]))


@rule("conv_general_dilated")
def _conv(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    numbers = eqn.params["dimension_numbers"]
    specs = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    return _convolved(eqn, operands, specs, eqn.params["batch_group_count"])


@rule("conv")
def _own_conv(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    """The library's convolution: channels last (`ops.conv_primitive`)."""
    last = len(out_shape(eqn)) - 1
    spec = (0, last, *range(1, last))
    return _convolved(eqn, operands, (spec, (last, last - 1, *range(last - 1)), spec), 1)
