"""The interpreter behind `summarize`: one pass over a network that measures each of its layers."""

import dataclasses
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import jax

from jaxd2l.geometry import ReceptiveField, Window
from jaxd2l.layers.basic import Flatten, Identity, Reshape
from jaxd2l.layers.composites import Padded, Parallel, Repeat, Serial, Split, Tied
from jaxd2l.layers.core import Layer, Shape, path_text
from jaxd2l.layers.initialize import declared
from jaxd2l.layers.shapes import combined_shape, inner_path, label_of, numbered, split_shape

if TYPE_CHECKING:
    from jaxd2l.analysis.traced import Traced

#: The receptive field along each spatial axis; None when every output sees the whole input.
Fields = tuple[ReceptiveField, ...] | None

#: Layers whose output is their input, at most under another shape: they take no memory.
_VIEWS = (Identity, Flatten, Reshape)


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of a summary. Sizes are of one example; the fields have one entry per axis.

    Attributes:
      path: where the layer stands, `stage1/conv1`.
      kind: its type.
      output_shape: without the batch axis.
      parameters: how many trained numbers.
      macs: multiply-accumulates of one example (1 MAC = 2 FLOPs), products with parameters, but all
        products of a function or Flax module; None where they are not known.
      receptive_field: pixels from the first to the last that one unit sees, per axis; None when
        it sees the whole input.
      jump: pixels between neighbouring units (the effective stride), per axis; 0 where all units
        see the same, None where they follow no pattern.
      start: the first pixel that unit 0 sees (negative: in the padding), per axis; None if it sees
        nothing.
      exceeds_input: the layer combines units that each see more than the network's input already,
        so it adds depth, not context; see `summarize`.
      activation_bytes: of the array that the layer makes; 0 where it makes none but passes its
        input on (identity, flatten, reshape).
    """

    path: str
    kind: str
    output_shape: Shape
    parameters: int
    macs: int | None
    receptive_field: tuple[int, ...] | None
    jump: tuple[int | Fraction | None, ...] | None
    start: tuple[int | None, ...] | None
    exceeds_input: bool
    activation_bytes: int

    @property
    def flops(self) -> int | None:
        """2 * macs: a multiplication and an addition each; None where they are not known."""
        return None if self.macs is None else 2 * self.macs


@dataclasses.dataclass
class _Buffer:
    """An array in memory, and how many still have to read it."""

    bytes: int
    readers: int = 1


@dataclasses.dataclass(frozen=True)
class _Map:
    """What flows from layer to layer: a feature map.

    `extent` is the network's input along the axes of `fields`.
    """

    shape: Shape
    fields: Fields
    extent: Shape
    buffer: _Buffer


class Measure:
    """A network measured: rows, running statistics, bytes of arrays, most bytes alive at once."""

    def __init__(self, net: Layer, shape: Shape, dtype: Any) -> None:
        self.dtype = dtype
        self.traced: dict[Any, Traced] = {}
        self.rows: list[Row] = []
        self.statistics = 0
        self.parameter_bytes = 0
        self.alive = 0
        self.most_alive = 0
        start = _Map(shape, (ReceptiveField(),) * len(shape[:-1]), shape[:-1], self._new(shape))
        self.input_bytes = start.buffer.bytes
        self._layer(net, (), start, tied=False)

    def _layer(self, layer: Layer, path: tuple[str, ...], x: _Map, tied: bool) -> _Map:
        path = inner_path(path, layer)
        match layer:
            case Serial(children):
                for child in children:
                    x = self._layer(child, path, x, tied)
                return x
            case Parallel(branches, combine) | Split(branches, combine):
                return self._branches(layer, branches, combine, path, x, tied)
            case Repeat(child, times):
                for i in range(times):
                    x = self._layer(child, numbered(layer, path, i), x, tied)
                return x
            case Tied(_, child, _):
                return self._layer(child, path, x, True)
            case Padded(child):
                return self._layer(child, path, x, tied)
            case _:
                return self._leaf(layer, path, x, tied)

    def _branches(
        self, layer: Layer, branches: Any, combine: str, path: Any, x: _Map, tied: bool
    ) -> _Map:
        x.buffer.readers += len(branches) - 1
        part = x
        if isinstance(layer, Split):
            part = dataclasses.replace(x, shape=split_shape(x.shape, len(branches), path))
        ends = [self._layer(branch, path, part, tied) for branch in branches]
        out = combined_shape(combine, [end.shape for end in ends], path)
        fields = _union(ends, out)
        joined, made = ends[0].buffer, 0  # one branch alone is passed on
        if len(ends) > 1:
            joined = self._new(out)
            made = joined.bytes
            for end in ends:
                self._read(end.buffer)
        self._row((*path, combine), type(layer).__name__, out, fields, made=made)
        return _Map(out, fields, ends[0].extent, joined)

    def _leaf(self, layer: Layer, path: tuple[str, ...], x: _Map, tied: bool) -> _Map:
        out = tuple(layer.output_shape(x.shape))
        windows, macs = layer.windows(x.shape), layer.macs(x.shape)
        fields, extent, exceeds = x.fields, x.extent, False
        own: Fields = None
        if macs is None:
            found = self._traced(layer, x.shape, out)
            own, macs = found.fields, found.macs
        if windows is None:
            fields, extent, exceeds = _followed(own, x, out)
        elif windows and fields is not None:
            exceeds = _exceeded(x) and any(map(_combines, windows))
            fields = _grown(x, windows, out)
        elif fields is not None:  # an embedding: what was the feature axis is now a spatial one
            new = len(out) - len(x.shape)
            fields += (ReceptiveField(),) * new
            extent += x.shape[-1:] * new
        parameters = 0 if tied else self._arrays(layer, x.shape)
        made = x.buffer
        if not isinstance(layer, _VIEWS):
            made = self._new(out)
            self._read(x.buffer)
        where = path if layer.name else (*path, label_of(layer))
        self._row(
            where,
            type(layer).__name__,
            out,
            fields,
            parameters,
            macs,
            exceeds,
            0 if made is x.buffer else made.bytes,
        )
        return _Map(out, fields, extent, made)

    def _traced(self, layer: Layer, shape: Shape, out: Shape) -> "Traced":
        """Followed once for all repetitions of a layer."""
        from jaxd2l.analysis.traced import traced  # seldom needed

        key = (id(layer), shape)
        if key not in self.traced:
            self.traced[key] = traced(layer, shape, out)
        return self.traced[key]

    def _row(
        self,
        path: tuple[str, ...],
        kind: str,
        out: Shape,
        fields: Fields,
        parameters: int = 0,
        macs: int | None = 0,
        exceeds: bool = False,
        made: int = 0,
    ) -> None:
        self.rows.append(
            Row(
                path_text(path),
                kind,
                out,
                parameters,
                macs,
                None if fields is None else tuple(f.size for f in fields),
                None if fields is None else tuple(f.jump for f in fields),
                None if fields is None else tuple(f.start for f in fields),
                exceeds,
                made,
            )
        )

    def _arrays(self, layer: Layer, shape: Shape) -> int:
        """How many parameters a leaf has; its statistics and bytes are added up."""
        params: Any = layer.parameters(shape)
        state: Any = layer.statistics(shape)
        if type(layer).init is not Layer.init:  # it makes its own arrays, as a Flax module does
            params, state = declared(layer, shape, dtype=self.dtype)
        params, state = (jax.tree.leaves(tree, is_leaf=_has_shape) for tree in (params, state))
        sizes = [math.prod(a.shape) for a in params], [math.prod(a.shape) for a in state]
        self.statistics += sum(sizes[1])
        for array, size in zip((*params, *state), (*sizes[0], *sizes[1]), strict=True):
            self.parameter_bytes += size * getattr(array, "dtype", self.dtype).itemsize
        return sum(sizes[0])

    # Memory: a layer's output is made while its input is still there.

    def _new(self, shape: Shape) -> _Buffer:
        buffer = _Buffer(math.prod(shape) * self.dtype.itemsize)
        self.alive += buffer.bytes
        self.most_alive = max(self.most_alive, self.alive)
        return buffer

    def _read(self, buffer: _Buffer) -> None:
        """The last reader frees it."""
        buffer.readers -= 1
        if not buffer.readers:
            self.alive -= buffer.bytes


def _combines(window: Window) -> bool:
    """Whether some output reads more than one unit."""
    phases = window.stride if window.transposed else 1
    return any(len(window.reads(unit)) > 1 for unit in range(phases))


def _has_shape(value: Any) -> bool:
    return hasattr(value, "shape")


def _exceeded(x: _Map) -> bool:
    """Whether each unit sees more than the network's input already, on every axis."""
    pairs = zip(x.fields or (), x.extent, strict=True)
    return bool(x.fields) and all(field.size > n for field, n in pairs)


def _grown(x: _Map, windows: tuple[Window, ...], out: Shape) -> Fields:
    if x.fields is None or len(x.fields) != len(windows):
        return None
    axes = zip(x.fields, windows, out, x.extent, strict=False)
    return _known(tuple(_slid(*axis) for axis in axes), x.extent)


def _slid(field: ReceptiveField, window: Window, units: int, pixels: int) -> ReceptiveField:
    if field.shift is not None:
        return field.then(window)
    return _tidy(ReceptiveField().then(window).listed(units).after(field), pixels)


def _followed(own: Fields, x: _Map, out: Shape) -> tuple[Fields, Shape, bool]:
    """Fields, extent and whether the input is exceeded, of a layer that sees `own` of its input."""
    if x.fields is None or own is None:
        return None, x.extent, False
    opens = len(out) - len(x.shape)  # a new axis, as an embedding does
    if len(x.shape) == 1 and not opens:  # features alone: to combine some may be to combine all
        alike = own == (ReceptiveField(),)
        return (x.fields if alike else None), x.extent, False
    if len(x.fields) != len(x.shape[:-1]):
        return None, x.extent, False
    extent = x.extent + x.shape[-1:] * opens
    inner = x.fields + (ReceptiveField(),) * opens
    axes = zip(own, inner, x.shape, out, extent, strict=False)
    fields = _known(tuple(_composed(*axis) for axis in axes), extent)
    return fields, extent, fields is not None and _exceeded(x) and any(f.size > 1 for f in own)


def _composed(
    own: ReceptiveField, inner: ReceptiveField, size: int, units: int, pixels: int
) -> ReceptiveField:
    """What a layer sees of the `pixels` through a map of `size` units that see `inner`."""
    if own == ReceptiveField.whole(size):
        return ReceptiveField.whole(pixels)
    if inner.shift is None:
        own = own.listed(units)
    return _tidy(own.after(inner), pixels)


def _tidy(field: ReceptiveField, pixels: int) -> ReceptiveField:
    """Where there is no pattern of padding to continue, what is seen of the image only."""
    if field.shift:
        return field
    last = pixels - 1
    seen = [
        None if i is None or i[1] < 0 or i[0] > last else (max(i[0], 0), min(i[1], last))
        for i in field.intervals
    ]
    if all(i == (0, last) for i in seen):
        return ReceptiveField.whole(pixels)
    return field if field.shift is None else ReceptiveField(tuple(seen), 0)


def _known(fields: tuple[ReceptiveField, ...], extent: Shape) -> Fields:
    """The fields, or None if every unit sees the whole input."""
    whole = [field == ReceptiveField.whole(n) for field, n in zip(fields, extent, strict=True)]
    return None if whole and all(whole) else fields


def _union(ends: list[_Map], out: Shape) -> Fields:
    """What a join sees: the union of its branches; None, the whole input, if one sees that."""
    joined = ends[0].fields
    for end in ends[1:]:
        if joined is None or end.fields is None or len(end.fields) != len(joined):
            return None
        units: tuple[int | None, ...] = out[:-1]
        if len(joined) != len(units):
            units = (None,) * len(joined)  # flattened: the features hold the units of all axes
        axes = zip(joined, end.fields, units, end.extent, strict=True)
        unions = [_joined(*axis) for axis in axes]
        joined = None if None in unions else tuple(f for f in unions if f is not None)
    return None if joined is None else _known(joined, ends[0].extent)


def _joined(
    a: ReceptiveField, b: ReceptiveField, units: int | None, pixels: int
) -> ReceptiveField | None:
    """The union along an axis, unit by unit where the branches do not step alike."""
    if a.jump != b.jump or a.shift is None:
        if units is None:
            return None
        a, b = a.listed(units), b.listed(units)
    return _tidy(a.union(b), pixels)
