"""Where each array of a network stands, and how PyTorch lays the same numbers out.

PyTorch has features first: a convolution's kernel is (out, in, h, w), a dense one (out, in), and a
flattened map is in the order (c, h, w), so the rows of a dense layer after it move as well.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxd2l.layers import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GaussianNoise,
    GroupNorm,
    Identity,
    InstanceNorm,
    Layer,
    LayerNorm,
    Parallel,
    PReLU,
    Repeat,
    Reshape,
    Serial,
    Split,
    Tied,
)
from jaxd2l.layers.core import Shape, path_text
from jaxd2l.layers.shapes import (
    check_network,
    check_shape,
    combined_shape,
    inner_path,
    label_of,
    numbered,
    split_shape,
    where_raised,
)
from jaxd2l.models.auxiliary import WithAuxiliary

Network = Layer | WithAuxiliary
#: Layers with arrays of which PyTorch has the like.
KNOWN = (BatchNorm, Conv, ConvTranspose, Dense, Embedding, GroupNorm, InstanceNorm, PReLU)
#: Layers that treat the features of a vector alike, so that their order does not matter.
ELEMENTWISE = (Activation, BatchNorm, Dropout, GaussianNoise, Identity, LayerNorm, PReLU)
#: PyTorch's names of our leaves.
SUFFIX = {
    "kernel": "weight",
    "scale": "weight",
    "slope": "weight",
    "embedding": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
Array = np.ndarray[Any, Any]


class Leaf(NamedTuple):
    """One array: its name and shape here and in PyTorch, and the permutation between them.

    Attributes:
      group: "params" or "state".
      name, own: our name and shape.
      suffix, shape: PyTorch's name and shape.
      split: `shape` with each axis that moves as an axis of its own.
      axes: the permutation of `split` that gives our order.
    """

    group: str
    name: str
    own: Shape
    suffix: str
    shape: Shape
    split: Shape
    axes: tuple[int, ...]

    def to_own(self, array: Array) -> Array:
        """PyTorch's array in our layout."""
        return array.reshape(self.split).transpose(self.axes).reshape(self.own)

    def to_torch(self, array: Array) -> Array:
        """Our array in PyTorch's layout."""
        moved = array.reshape([self.split[axis] for axis in self.axes])
        return moved.transpose(np.argsort(self.axes)).reshape(self.shape)


class Place(NamedTuple):
    """One layer, and the arrays that it has.

    Attributes:
      path: where it stands, as `layers.walk` writes it: repetitions one by one, `blocks[4]/conv`.
      levels: the names on the way to its arrays in the trees.
      units: its number in the stacked arrays of each `Repeat` around it.
      leaves: its arrays.
    """

    path: str
    levels: tuple[str, ...]
    units: tuple[int, ...]
    layer: Layer
    leaves: tuple[Leaf, ...]


def places(net: Network, input_shape: Any) -> list[Place]:
    """Every layer in the order of execution, heads after the layer that they stand behind.

    Raises:
      ValueError: a layer that PyTorch has not, or one after which the order of flattened features
        is not known.

    Example:
      >>> net = Serial([Flatten(), Dense("head", 10)])
      >>> [(p.path, [(leaf.name, leaf.split) for leaf in p.leaves]) for p in places(net, (4, 4, 8))]
      [('flatten', []), ('head', [('kernel', (10, 8, 4, 4)), ('bias', (10,))])]
    """
    found: list[Place] = []
    shape, order = check_shape(input_shape), None
    if not isinstance(net, WithAuxiliary):
        check_network(net)
        _visit(net, (), shape, order, found)
        return found
    for layer in net.net.layers:
        shape, order = _visit(layer, (), shape, order, found)
        for head in net.heads:
            if head.after == layer.name:
                _visit(head.layer, (), shape, order, found)
    return found


def _visit(
    layer: Layer, path: tuple[Any, ...], shape: Shape, order: Shape | None, found: list[Place]
) -> tuple[Shape, Shape | None]:
    """Output shape of a layer, and, where its output is a flattened map, that map's shape."""
    path = inner_path(path, layer)
    match layer:
        case Serial(children):
            for child in children:
                shape, order = _visit(child, path, shape, order, found)
            return shape, order
        case Parallel(branches, combine) | Split(branches, combine):
            if isinstance(layer, Split):
                _refuse_order(layer, path, order)
                shape = split_shape(shape, len(branches), path)
            ends = [_visit(branch, path, shape, order, found) for branch in branches]
            out, order = combined_shape(combine, [end[0] for end in ends], path), ends[0][1]
            if any(end[1] != order for end in ends) or combine == "concat":
                for _, flat in ends:
                    _refuse_order(layer, path, flat)
            return out, order
        case Repeat(child, times):
            for i in range(times):
                shape, order = _visit(child, numbered(layer, path, i), shape, order, found)
            return shape, order
        case Tied(_, child, _):
            _refuse_order(child, path, order)
            return _visit(child, path, shape, order, [])  # its arrays stand elsewhere
    with where_raised(path, layer, shape):
        out = tuple(layer.output_shape(shape))
        leaves = tuple(_leaves(layer, shape, order))
    where = path_text(path if layer.name else (*path, label_of(layer)))
    levels = tuple(name for part in path if (name := part.partition("[")[0]))
    units = tuple(int(number) for number in re.findall(r"\[(\d+)\]", where))
    found.append(Place(where, levels, units, layer, leaves))
    return out, _order_after(layer, path, shape, out, order)


def _is_mixed(shape: Shape) -> bool:
    """Whether features first and features last give different orders of this map."""
    return len(shape) > 1 and shape[-1] > 1 and math.prod(shape[:-1]) > 1


def _order_after(
    layer: Layer, path: tuple[Any, ...], shape: Shape, out: Shape, order: Shape | None
) -> Shape | None:
    if isinstance(layer, Flatten) or (isinstance(layer, Reshape) and len(out) == 1):
        return order or (shape if _is_mixed(shape) else None)
    if isinstance(layer, Dense) and len(shape) == 1:
        return None
    if order is not None and not isinstance(layer, ELEMENTWISE):
        _refuse_order(layer, path, order)
    reshaped = len(shape) != len(out) and math.prod(shape) == math.prod(out)
    if reshaped and (_is_mixed(shape) or _is_mixed(out)):
        _refuse_order(layer, path, shape)
    return order


def _refuse_order(layer: Layer, path: tuple[Any, ...], order: Shape | None) -> None:
    if order is not None:
        what = path_text(path) or type(layer).__name__
        raise ValueError(
            f"{what!r} gets features in the order of a flattened map {order}, and it is not known "
            f"how PyTorch's {type(layer).__name__} orders them; flatten right before a dense layer"
        )


def _leaves(layer: Layer, shape: Shape, order: Shape | None) -> Iterator[Leaf]:
    groups = {"params": layer.parameters(shape), "state": layer.statistics(shape)}
    own_init = type(layer).init is not Layer.init
    if not any(groups.values()) and not own_init:
        return
    known = isinstance(layer, KNOWN) or (isinstance(layer, LayerNorm) and layer.axes == 1)
    if own_init or not known:
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r}: its arrays have no counterpart in PyTorch; "
            f"known are {sorted(kind.__name__ for kind in (*KNOWN, LayerNorm))}"
        )
    for group, declared in groups.items():
        for name, parameter in declared.items():
            own = tuple(parameter.shape)
            yield Leaf(group, name, own, SUFFIX[name], *_moves(layer, name, own, order))


def _moves(
    layer: Layer, name: str, own: Shape, order: Shape | None
) -> tuple[Shape, Shape, tuple[int, ...]]:
    """`Leaf.shape`, `Leaf.split` and `Leaf.axes`."""
    if isinstance(layer, Embedding):
        return own, own, (0, 1)
    if name != "kernel":  # one number a feature
        *space, c = own if order is None or isinstance(layer, Dense) else order
        return own, (c, *space), (*range(1, 1 + len(space)), 0)
    if isinstance(layer, ConvTranspose):
        *space, c, features = own
        split = (layer.groups, c, features // layer.groups, *space)
        shape = (split[0] * c, *split[2:])
        return shape, split, (*range(3, 3 + len(space)), 1, 0, 2)
    *space, c = own[:-1] if order is None else order
    split = (own[-1], c, *space)
    shape = own[::-1] if isinstance(layer, Dense) else split
    return shape, split, (*range(2, 2 + len(space)), 1, 0)
