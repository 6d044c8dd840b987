"""Small measurements inside a network: what goes into its kernels, what its activations give."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxd2l.layers import (
    Activation,
    Context,
    Layer,
    Padded,
    Parallel,
    Repeat,
    Serial,
    Split,
)
from jaxd2l.layers.core import Array, Params, Shape, State
from jaxd2l.records import record

#: Bounds at which an activation's derivative is 0, or (squashing ones) below 4% of its maximum.
FLAT_ENDS = {"relu": (0.0, None), "relu6": (0.0, 6.0)}
SATURATED_ENDS = {"sigmoid": (0.01, 0.99), "tanh": (-0.98, 0.98)}


@record
class _Probe(Layer):
    """The identity, which leaves a few sums over its input in the state."""

    name: str
    kind: str

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def apply(self, params: Params, state: State, x: Array, context: Context) -> tuple[Any, State]:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x, {}
        y = x.astype(jnp.float32)
        over = tuple(range(y.ndim - 1))
        if self.kind == "input":
            return x, {
                "size": jnp.abs(y).mean(over),
                "rms": jnp.sqrt(jnp.square(y).mean()),
                "variation": jnp.sqrt(jnp.square(y - y.mean(0)).mean()),
            }
        if self.kind in FLAT_ENDS:
            low, high = FLAT_ENDS[self.kind]
            flat = (y == low) if high is None else (y == low) | (y == high)
            return x, {"dead": flat.all(over)}
        low, high = SATURATED_ENDS[self.kind]
        return x, {"saturated": ((y < low) | (y > high)).mean()}


class Place(NamedTuple):
    """A probe: which layer it is at, and where its figures lie in the state."""

    where: str
    layer: Layer
    kind: str
    state_path: tuple[str, ...]
    repeats: tuple[int, ...]


def probed(net: Layer) -> tuple[Layer, tuple[Place, ...]]:
    """The network with probes before all layers with kernels and behind all activations.

    Inside a `Tied` layer there are none.

    Example:
      >>> from jaxd2l import models
      >>> [(p.where, p.kind) for p in probed(models.mlp())[1]]
      [('dense1', 'input'), ('relu after dense1', 'relu'), ('output', 'input')]
    """
    places: list[Place] = []
    return _visit(net, (), (), places, [""]), tuple(places)


def _visit(
    layer: Layer,
    level: tuple[str, ...],
    repeats: tuple[int, ...],
    places: list[Place],
    before: list[str],
) -> Layer:
    """The layer with probes; `before` holds the path of the last layer with a name."""
    inner = level if layer.name is None else (*level, layer.name)

    def inside(child: Layer, times: tuple[int, ...] = ()) -> Layer:
        return _visit(child, inner, (*repeats, *times), places, before)

    match layer:
        case Serial(children):
            return dataclasses.replace(layer, layers=[inside(child) for child in children])
        case Parallel(branches) | Split(branches):
            return dataclasses.replace(layer, branches=[inside(branch) for branch in branches])
        case Padded(child):
            return dataclasses.replace(layer, layer=inside(child))
        case Repeat(child, times):
            return dataclasses.replace(layer, layer=inside(child, (times,)))
    kind = getattr(layer, "kind", None) if isinstance(layer, Activation) else None
    if layer.name is not None:
        before[0] = "/".join(inner)
    where = "/".join(inner) if layer.name else f"{kind} after {before[0]}" if before[0] else kind
    if kind in FLAT_ENDS or kind in SATURATED_ENDS:
        probe = _Probe(f".probe{len(places)}", str(kind))
        places.append(Place(str(where), layer, probe.kind, (*level, probe.name), repeats))
        return Serial([layer, probe])
    if layer.name is not None:
        probe = _Probe(f".probe{len(places)}", "input")
        places.append(Place(str(where), layer, "input", (*level, probe.name), repeats))
        return Serial([probe, layer])
    return layer


def figures(place: Place, state: Any) -> list[tuple[str, dict[str, np.ndarray]]]:
    """What a probe has left, one entry for each repetition of its layer, with the place's name."""
    found: Any = state
    for part in place.state_path:
        found = found.get(part, {})
    if not found:
        return []
    if not place.repeats:
        return [(place.where, dict(found))]
    flat = {k: np.reshape(v, (-1, *v.shape[len(place.repeats) :])) for k, v in found.items()}
    count = len(next(iter(flat.values())))
    return [
        (f"{place.where}[{i}]", {name: value[i] for name, value in flat.items()})
        for i in range(count)
    ]
