"""What a layer of which only the code is known sees and computes: its trace is read.

A layer that answers None to `macs`, as any user's function and any Flax module does, is followed on
a batch of one, without its parameters being made.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.analysis.flops import count_flops
from jaxd2l.analysis.receptive import receptive_field
from jaxd2l.geometry import ReceptiveField
from jaxd2l.layers.core import Context, Layer, Shape
from jaxd2l.layers.initialize import declared


@dataclasses.dataclass(frozen=True)
class Traced:
    """What the trace of a layer says.

    Attributes:
      fields: what the units of the output see of the layer's input, for each axis that both have:
        the spatial axes; the feature axis too where it is the only one, or where the output has
        one axis more (tokens that become vectors). None if the axes do not correspond.
      macs: the multiply-adds of one example; None where some are not known.
    """

    fields: tuple[ReceptiveField, ...] | None
    macs: int | None


def traced(layer: Layer, shape: Shape, out: Shape) -> Traced:
    """Follow a layer that turns `shape` into `out`."""
    params, state = declared(layer, shape)
    own = params.get(layer.name, {}), state.get(layer.name, {})
    try:
        return _traced(layer, own, shape, out, jnp.float32)
    except TypeError:
        return _traced(layer, own, shape, out, jnp.int32)  # a function of tokens


def _traced(layer: Layer, arrays: Any, shape: Shape, out: Shape, dtype: Any) -> Traced:
    def run(params: Any, state: Any, x: jax.Array) -> jax.Array:
        y, _ = layer.apply(params, state, x, Context(train=False, run_key=None))
        return jnp.asarray(y)

    count = count_flops(run, *arrays, jax.ShapeDtypeStruct((1, *shape), dtype))
    macs = None if count.unknown else count.multiply_adds
    axes = _shared_axes(shape, out)
    if not axes:
        return Traced(None if axes is None else (), macs)
    fields: list[ReceptiveField] = []

    def look(params: Any, state: Any) -> None:
        def along_each(x: jax.Array) -> list[jax.Array]:
            """The output along each axis alone: it may vary along others than the input does."""
            y = run(params, state, x)
            if y.shape != (1, *out):  # the axes of one example are not those of several
                y = jnp.broadcast_to(y.sum(), (1, *out))
            return [y.sum([a for a in range(y.ndim) if a != axis]) for axis in axes]

        found = receptive_field(along_each, (1, *shape), axes, dtype=dtype)
        fields.extend(of_axis[i] for i, of_axis in enumerate(found))

    jax.eval_shape(look, *arrays)  # traced, the arrays have no values that could be looked at
    return Traced(tuple(fields), macs)


def _shared_axes(shape: Shape, out: Shape) -> tuple[int, ...] | None:
    if len(out) == len(shape):
        return tuple(range(1, max(len(shape), 2))) if shape else ()
    return tuple(range(1, len(out))) if len(out) == len(shape) + 1 else None
