"""The interpreters that read only shapes: output_shape and walk, and what all interpreters share.

An interpreter of a network matches on the composites and asks leaves through the protocol of
`Layer`. A new analysis is a new function like these; it edits no layer.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax

from jaxd2l.geometry import as_int
from jaxd2l.layers.composites import Padded, Parallel, Repeat, Serial, Split, Tied
from jaxd2l.layers.core import Layer, Shape, path_text
from jaxd2l.records import is_record


def check_network(net: Any) -> None:
    """Refuse what is not a layer record, before anything else goes wrong."""
    if not isinstance(net, Layer) or not is_record(net):
        raise TypeError(f"expected a network (a layer record such as layers.Serial), got {net!r}")


def check_shape(input_shape: Any) -> Shape:
    """`input_shape` as a tuple of positive integers, without a batch axis."""
    try:
        shape = tuple(input_shape)
    except TypeError:
        raise TypeError(
            f"input_shape must be a tuple such as (28, 28, 1), without the batch axis; "
            f"got {input_shape!r}"
        ) from None
    return tuple(as_int(n, "input_shape: each size", 1) for n in shape)


@contextmanager
def where_raised(path: tuple[Any, ...], layer: Layer, shape: Any) -> Iterator[None]:
    """Say in which layer an error was raised."""
    try:
        yield
    except Exception as error:
        where = path_text(path) or type(layer).__name__
        note = f"in layer {where!r}: {layer!r} with input shape {tuple(shape)}"
        if not any(n.startswith("in layer") for n in getattr(error, "__notes__", ())):
            error.add_note(note)
        raise


def inner_path(path: tuple[Any, ...], layer: Layer) -> tuple[Any, ...]:
    return path if layer.name is None else (*path, layer.name)


def numbered(layer: Layer, path: tuple[Any, ...], i: int) -> tuple[Any, ...]:
    """The path of one repetition: `blocks[2]`, without a name `[2]`."""
    return (*path[:-1], f"{path[-1]}[{i}]") if layer.name else (*path, f"[{i}]")


def combined_shape(combine: str, shapes: list[Shape], path: tuple[Any, ...]) -> Shape:
    """The shape of branches put together: concat sums the features, add and multiply need equal
    shapes.
    """
    where = path_text(path) or "the top level"
    if combine == "concat":
        if () in shapes or len({shape[:-1] for shape in shapes}) > 1:
            raise ValueError(
                f"branches at {where!r} cannot be concatenated: all but the last axis must agree, "
                f"got {shapes}"
            )
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
    if len(set(shapes)) > 1:
        raise ValueError(
            f"branches at {where!r} cannot be combined by {combine!r}: the shapes must be equal, "
            f"got {shapes}"
        )
    return shapes[0]


def split_shape(shape: Shape, parts: int, path: tuple[Any, ...]) -> Shape:
    """The shape of each of `parts` equal parts of the features."""
    if not shape or shape[-1] % parts:
        raise ValueError(
            f"Split at {path_text(path) or 'the top level'!r}: {shape[-1] if shape else 'no'} "
            f"features cannot be divided over {parts} branches"
        )
    return (*shape[:-1], shape[-1] // parts)


class Step(NamedTuple):
    """One leaf of a network, where it stands and what goes in and out (no batch axis)."""

    path: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape


def walk(net: Layer, input_shape: Any) -> Iterator[Step]:
    """Every leaf in the order of execution. Repetitions appear one by one, as `blocks[0]/conv`.

    Example:
      >>> from jaxd2l import layers
      >>> net = layers.Serial([layers.Flatten(), layers.Dense("head", 10)])
      >>> [(s.path, s.input_shape, s.output_shape) for s in walk(net, (4, 4, 1))]
      [('flatten', (4, 4, 1), (16,)), ('head', (16,), (10,))]
    """
    check_network(net)
    steps: list[Step] = []
    shape_of(net, (), check_shape(input_shape), steps)
    yield from steps


def output_shape(net: Layer, input_shape: Any) -> Shape:
    """Shape of one output for one input, without the batch axis; nothing is run.

    Raises:
      ValueError: a layer cannot take the shape it gets; a note names the layer.

    Example:
      >>> from jaxd2l import layers
      >>> output_shape(layers.Conv("conv", 6, 5, padding=2), (28, 28, 1))
      (28, 28, 6)
    """
    check_network(net)
    return shape_of(net, (), check_shape(input_shape))


def label_of(layer: Layer) -> str:
    """What a layer is called where it has no name: its label, or its type."""
    return layer.name or getattr(layer, "label", None) or type(layer).__name__.lower()


def shape_of(
    layer: Layer, path: tuple[Any, ...], shape: Shape, steps: list[Step] | None = None
) -> Shape:
    """The output shape of a layer; `steps`, where given, collects the leaves on the way."""
    path = inner_path(path, layer)
    match layer:
        case Serial(children):
            for child in children:
                shape = shape_of(child, path, shape, steps)
            return shape
        case Parallel(branches, combine):
            return combined_shape(
                combine, [shape_of(b, path, shape, steps) for b in branches], path
            )
        case Split(branches, combine):
            part = split_shape(shape, len(branches), path)
            return combined_shape(combine, [shape_of(b, path, part, steps) for b in branches], path)
        case Repeat(child, times):
            for i in range(1 if steps is None else times):
                out = shape_of(child, numbered(layer, path, i), shape, steps)
                if out != shape:
                    raise ValueError(
                        f"Repeat at {path_text(path) or 'the top level'!r}: the block turns "
                        f"{shape} into {out}; a repeated block must keep the shape"
                    )
            return shape
        case Tied(_, child, _):
            return shape_of(child, path, shape, steps)
        case Padded(child):
            if len(shape) != 1:
                raise ValueError(
                    f"Padded at {path_text(path) or 'the top level'!r} needs sequences of tokens, "
                    f"(t,), got {shape}"
                )
            return shape_of(child, path, shape, steps)
        case _:
            with where_raised(path, layer, shape):
                out = tuple(layer.output_shape(shape))
            where = path_text(path if layer.name else (*path, label_of(layer)))
            if steps is not None:
                steps.append(Step(where, layer, shape, out))
            return out


def array_paths(params: Any) -> dict[str, Any]:
    flat = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in flat}


def look_up(params: Mapping[str, Any], to: str, name: str) -> Any:
    found: Any = params
    for part in to.split("/"):
        if not isinstance(found, Mapping) or part not in found:
            raise ValueError(
                f"Tied {name!r}: there are no parameters at {to!r}; the paths are "
                f"{sorted(array_paths(params))}"
            )
        found = found[part]
    return found
