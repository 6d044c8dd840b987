"""The interpreter `outputs_at`: what the layers inside a network give for a batch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxd2l.layers.composites import Padded, Parallel, Repeat, Serial, Split
from jaxd2l.layers.core import Array, Context, Layer, Params, Shape, State
from jaxd2l.layers.run import run
from jaxd2l.layers.shapes import check_network
from jaxd2l.records import record

_TAP = ".output"  # a state entry "conv1.output" beside the layer "conv1"


@record
class _Tap(Layer):
    """The identity, which leaves its input in the state, where scans and maps carry it out."""

    name: str

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def apply(self, params: Params, state: State, x: Array, context: Context) -> tuple[Any, State]:
        return x, {"value": x}


def layer_paths(net: Layer) -> tuple[str, ...]:
    """The paths of all named layers, composites too, in the order of execution.

    Example:
      >>> from jaxd2l import layers
      >>> net = layers.Serial([layers.Serial([layers.Dense("a", 2)], name="block")])
      >>> layer_paths(net)
      ('block', 'block/a')
    """
    found: list[str] = []
    _visit(net, "", found, frozenset())
    return tuple(found)


def _visit(layer: Layer, prefix: str, found: list[str], wanted: frozenset[str]) -> Layer:
    """The layer with taps at the wanted paths inside it; `found` collects all paths."""
    path = prefix
    if layer.name is not None:
        path = f"{prefix}{layer.name}"
        found.append(path)
        prefix = f"{path}/"
    match layer:
        case Serial(children):
            inside = [_visit(child, prefix, found, wanted) for child in children]
            layer = dataclasses.replace(layer, layers=inside)
        case Parallel(branches) | Split(branches):
            inside = [_visit(branch, prefix, found, wanted) for branch in branches]
            layer = dataclasses.replace(layer, branches=inside)
        case Repeat(child) | Padded(child):
            layer = dataclasses.replace(layer, layer=_visit(child, prefix, found, wanted))
    if layer.name is not None and path in wanted:
        return Serial([layer, _Tap(f"{layer.name}{_TAP}")])
    return layer


def outputs_at(
    net: Layer, params: Params, state: State, x: Array, paths: Sequence[str]
) -> dict[str, Array]:
    """The outputs of the layers at `paths` for a batch, as a test sees it (`train=False`).

    Any named layer can be asked for, a composite as well (`layer_paths` lists them); give a name
    to a layer without one. Inside a `Repeat` the outputs of all repetitions come stacked on a
    first axis. Inside a `Tied` layer nothing can be asked for, only for the layer itself.

    Shapes:
      x: (n, *input_shape); results: (n, *output_shape of the layer), under a `Repeat`
      (times, n, ...).

    Raises:
      TypeError: paths is one string. ValueError: a path that no layer has, or as `apply`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxd2l import init, models
      >>> net = models.lenet()
      >>> params, state = init(net, jax.random.key(0), (28, 28, 1))
      >>> maps = outputs_at(net, params, state, jnp.ones((2, 28, 28, 1)), ["conv1", "conv2"])
      >>> maps["conv1"].shape, maps["conv2"].shape
      ((2, 28, 28, 6), (2, 10, 10, 16))
    """
    check_network(net)
    if isinstance(paths, str):
        raise TypeError(f"outputs_at: paths must be a list of paths, got the string {paths!r}")
    found: list[str] = []
    tapped = _visit(net, "", found, frozenset(paths))
    for path in paths:
        if path not in found:
            raise ValueError(f"outputs_at: no layer at {path!r}; the named layers are {found}")
    _, new = run(tapped, params, state, x)

    def value(path: str) -> Array:
        *outer, name = path.split("/")
        level = new
        for part in outer:
            level = level[part]
        return level[f"{name}{_TAP}"]["value"]

    return {path: value(path) for path in paths}
