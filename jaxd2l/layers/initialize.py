"""The interpreter `init`: the parameters and running statistics of a network."""

import dataclasses
import fnmatch
import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.layers.composites import Padded, Parallel, Repeat, Serial, Split, Tied
from jaxd2l.layers.core import (
    Array,
    Initializer,
    Layer,
    Parameter,
    Params,
    Shape,
    State,
    fold_path,
    name_number,
    path_text,
)
from jaxd2l.layers.shapes import (
    array_paths,
    check_network,
    check_shape,
    combined_shape,
    inner_path,
    look_up,
    shape_of,
    split_shape,
    where_raised,
)
from jaxd2l.ops.initializers import Constant
from jaxd2l.ops.sampling import Sampled, check_dtype, chunks_of, sample_dtype, standard_chunks


def init(
    net: Layer,
    key: Array,
    input_shape: Any,
    *,
    dtype: Any = jnp.float32,
    initializers: Mapping[str, Initializer] | None = None,
) -> tuple[Params, State]:
    """Parameters and running statistics of a network.

    Each array is drawn with the key folded with the names on its path, so adding a layer changes
    no other layer's values.

    Args:
      net: the network.
      key: `jax.random.key(seed)`.
      input_shape: shape of one input, without the batch axis.
      dtype: of every array.
      initializers: overrides by path pattern, the first match wins:
        `{"conv*/kernel": HeNormal(), "*/bias": Constant(0.1)}`.

    Returns:
      (params, state): nested dicts of arrays, by layer name and leaf name.

    Raises:
      ValueError: a layer cannot take its input, a pattern matches no parameter, or a tied layer's
        path does not exist or has other shapes.

    Example:
      >>> from jaxd2l import layers
      >>> params, state = init(layers.Dense("head", 2), jax.random.key(0), (3,))
      >>> params["head"]["kernel"].shape, state
      ((3, 2), {})
    """
    check_network(net)
    shape = check_shape(input_shape)
    overrides = tuple((initializers or {}).items())
    for pattern, initializer in overrides:
        if not isinstance(pattern, str) or not callable(initializer):
            raise TypeError(
                f"init: initializers maps path patterns to initialisers, "
                f"got {pattern!r}: {initializer!r}"
            )
    if not isinstance(key, jax.Array):
        raise TypeError(f"init: key must be a random key, jax.random.key(seed), got {key!r}")
    planned = _plan(net, shape, jnp.dtype(dtype), overrides)
    params, state = _drawn(key, planned)
    return params, state


def declared(net: Layer, input_shape: Any, *, dtype: Any = jnp.float32) -> tuple[Params, State]:
    """The shapes and dtypes of what `init` makes, as `jax.ShapeDtypeStruct`s; nothing is drawn.

    Raises:
      ValueError: a layer cannot take its input.

    Example:
      >>> from jaxd2l import layers
      >>> params, state = declared(layers.Dense("head", 2), (3,))
      >>> params["head"]["kernel"].shape
      (3, 2)
    """
    check_network(net)
    planned = _plan(net, check_shape(input_shape), jnp.dtype(dtype), ())
    params, state = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), planned)
    return params, state


@functools.lru_cache(maxsize=64)
def _plan(
    net: Layer, shape: Shape, dtype: Any, overrides: tuple[tuple[str, Any], ...]
) -> tuple[Params, State]:
    plan = _Plan(dtype, overrides, set(), [])
    _, params, state = plan(net, (), shape)
    unused = [pattern for pattern, _ in overrides if pattern not in plan.used]
    if unused:
        raise ValueError(
            f"init: the pattern {unused[0]!r} matches no parameter; the paths are "
            f"{sorted(array_paths(params))}"
        )
    for layer, at in plan.tied:
        _, own, statistics = plan.own(layer.layer, ("tied",), at)
        if statistics:
            raise ValueError(f"Tied {layer.name!r}: a layer with running statistics cannot be tied")
        there = look_up(params, layer.to, layer.name)
        if _shapes(there) != _shapes(own):
            raise ValueError(
                f"Tied {layer.name!r}: {layer.layer!r} needs {_shapes(own)}, but "
                f"{layer.to!r} has {_shapes(there)}"
            )
    return params, state


def _shapes(tree: Any) -> dict[str, Shape]:
    return {path: leaf.shape for path, leaf in array_paths(tree).items()}


@dataclasses.dataclass(frozen=True)
class _Each:
    """In a path: the numbers of the repetitions of a block, all of them."""

    times: int


@dataclasses.dataclass(frozen=True)
class _Declared:
    """An array to be drawn: a declaration, the path that seeds it, a dtype."""

    path: tuple[Any, ...]
    parameter: Parameter
    dtype: Any

    @property
    def shape(self) -> Shape:
        return (*_times(self.path), *self.parameter.shape)


@dataclasses.dataclass(frozen=True)
class _Own:
    """An array that a layer makes itself: the leaf of that number in what its `init` returns."""

    path: tuple[Any, ...]
    layer: Layer
    input_shape: Shape
    number: int
    shape: Shape
    dtype: Any


def _times(path: tuple[Any, ...]) -> Shape:
    """The axes in front of a declared shape, one for each repetition around it."""
    return tuple(part.times for part in path if isinstance(part, _Each))


def _drawn(key: Array, tree: Any) -> Any:
    """The tree with its planned arrays drawn: those that stretch samples of one kind together."""
    leaves, structure = jax.tree.flatten(tree)
    own: dict[tuple[Any, ...], list[Array]] = {}
    together: dict[tuple[str, Any], list[int]] = {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, _Own):
            if leaf.path not in own:
                made = _made(key, leaf.layer, (), leaf.path, leaf.input_shape, leaf.dtype)
                own[leaf.path] = jax.tree.leaves(made)
            leaves[i] = own[leaf.path][leaf.number]
            continue
        initializer = leaf.parameter.initializer
        if isinstance(initializer, Sampled):
            check_dtype(initializer, leaf.dtype)
            together.setdefault((initializer.sample, sample_dtype(leaf.dtype)), []).append(i)
        elif isinstance(initializer, Constant):
            leaves[i] = initializer(key, leaf.shape, leaf.dtype)
        else:
            drawn = [leaf.parameter.draw(_key(key, row), leaf.dtype) for row in _rows(leaf.path)]
            leaves[i] = jnp.stack(drawn).reshape(leaf.shape)
    for (kind, dtype), members in together.items():
        rows, counts = [], []
        for i in members:
            own_rows = _rows(leaves[i].path)
            rows += own_rows
            counts += [chunks_of(math.prod(leaves[i].parameter.shape))] * len(own_rows)
        chunks = _chunks(key, kind, tuple(rows), tuple(counts), dtype)
        start = 0
        for i in members:
            parameter, times = leaves[i].parameter, _times(leaves[i].path)
            values = _cut(chunks, start, parameter, times, leaves[i].dtype)
            start += math.prod(times) * chunks_of(math.prod(parameter.shape))
            leaves[i] = values
    return jax.tree.unflatten(structure, leaves)


def _rows(path: tuple[Any, ...]) -> list[tuple[int, ...]]:
    """The numbers to be folded into the key, for each repetition."""
    parts = [range(p.times) if isinstance(p, _Each) else (int(name_number(p)),) for p in path]
    return list(itertools.product(*parts))


def _key(key: Array, row: Any) -> Array:
    return functools.reduce(jax.random.fold_in, row, key)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _chunks(
    key: Array, kind: str, rows: tuple[tuple[int, ...], ...], counts: tuple[int, ...], dtype: Any
) -> Array:
    """The samples of all rows, one after the other: (sum(counts), CHUNK)."""
    keys, order = [], []
    for length in sorted({len(row) for row in rows}):
        of_length = [i for i, row in enumerate(rows) if len(row) == length]
        numbers = np.array([rows[i] for i in of_length], np.uint32)  # (rows, parts of the path)
        keys.append(jax.vmap(functools.partial(_key, key))(jnp.asarray(numbers)))
        order += of_length
    return standard_chunks(kind, jnp.concatenate(keys)[np.argsort(order)], counts, dtype)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _cut(chunks: Array, start: int, parameter: Parameter, times: Shape, dtype: Any) -> Array:
    """The array whose samples begin at chunk `start`."""
    initializer: Any = parameter.initializer
    count, repetitions = chunks_of(math.prod(parameter.shape)), math.prod(times)
    mine = jax.lax.dynamic_slice_in_dim(chunks, start, repetitions * count)
    values = jax.vmap(lambda c: initializer.from_chunks(c, parameter.shape, dtype, parameter.fan))(
        mine.reshape(repetitions, count, chunks.shape[1])
    )
    return values.reshape(*times, *parameter.shape)


def _made(
    key: Array,
    layer: Layer,
    before: tuple[Any, ...],
    rest: tuple[Any, ...],
    shape: Shape,
    dtype: Any,
) -> tuple[Params, State]:
    """What the layer's own `init` makes, stacked over the repetitions around it."""
    for i, part in enumerate(rest):
        if isinstance(part, _Each):
            make = functools.partial(
                _made, key, layer, rest=rest[i + 1 :], shape=shape, dtype=dtype
            )
            front = (*before, *rest[:i])
            return jax.vmap(lambda n, make=make, front=front: make((*front, n)))(
                jnp.arange(part.times)
            )
    return layer.init(fold_path(key, (*before, *rest)), shape, dtype)


class _Plan(NamedTuple):
    """What init has to make, one level at a time: (output shape, params, state) of a layer."""

    dtype: Any
    overrides: tuple[tuple[str, Any], ...]
    used: set[str]
    tied: list[tuple[Tied, Shape]]

    def __call__(
        self, layer: Layer, path: tuple[Any, ...], shape: Shape
    ) -> tuple[Shape, Params, State]:
        out, params, state = self.own(layer, inner_path(path, layer), shape)
        if layer.name is not None:
            params = {layer.name: params} if params else {}
            state = {layer.name: state} if state else {}
        return out, params, state

    def own(self, layer: Layer, path: tuple[Any, ...], shape: Shape) -> tuple[Shape, Params, State]:
        params: Params = {}
        state: State = {}
        match layer:
            case Serial(children):
                for child in children:
                    shape, p, s = self(child, path, shape)
                    params |= p
                    state |= s
                return shape, params, state
            case Parallel(branches, combine) | Split(branches, combine):
                if isinstance(layer, Split):
                    shape = split_shape(shape, len(branches), path)
                outs = []
                for branch in branches:
                    out, p, s = self(branch, path, shape)
                    outs.append(out)
                    params |= p
                    state |= s
                return combined_shape(combine, outs, path), params, state
            case Repeat(child, times):
                out = shape_of(layer, path[:-1] if layer.name else path, shape)
                return out, *self(child, (*path, _Each(times)), shape)[1:]
            case Padded(child):
                return shape_of(layer, path, shape), *self(child, path, shape)[1:]
            case Tied():
                self.tied.append((layer, shape))
                return shape_of(layer.layer, path, shape), params, state
            case _:
                with where_raised(path, layer, shape):
                    out = tuple(layer.output_shape(shape))
                    params, state = self.leaf(layer, path, shape)
                    if layer.name is None and (params or state):
                        raise ValueError(
                            f"{layer!r} has parameters or statistics, so it needs a name"
                        )
                    return out, self._override(layer, params, path, shape), state

    def leaf(self, layer: Layer, path: tuple[Any, ...], shape: Shape) -> tuple[Params, State]:
        if type(layer).init is not Layer.init:
            call = functools.partial(
                _made, layer=layer, before=(), rest=path, shape=shape, dtype=self.dtype
            )
            leaves, structure = jax.tree.flatten(jax.eval_shape(call, jax.random.key(0)))
            own = [
                _Own(path, layer, shape, i, leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)
            ]
            made: tuple[Params, State] = jax.tree.unflatten(structure, own)
            return made
        declared = layer.parameters(shape), layer.statistics(shape)
        params, state = (
            {name: _Declared((*path, name), p, self.dtype) for name, p in part.items()}
            for part in declared
        )
        return params, state

    def _override(
        self, layer: Layer, params: Params, path: tuple[Any, ...], shape: Shape
    ) -> Params:
        if not self.overrides:
            return params
        declared = layer.parameters(shape)

        def plan(leaf_path: Any, leaf: Any) -> Any:
            name = jax.tree_util.keystr(leaf_path, simple=True, separator="/")
            full = f"{path_text(path)}/{name}"
            for pattern, initializer in self.overrides:
                if not fnmatch.fnmatchcase(full, pattern):
                    continue
                self.used.add(pattern)
                if name in declared:
                    parameter = dataclasses.replace(declared[name], initializer=initializer)
                else:  # an array of a layer that makes its own
                    parameter = Parameter(leaf.shape[len(_times(path)) :], initializer)
                return _Declared((*path, name), parameter, leaf.dtype)
            return leaf

        return jax.tree_util.tree_map_with_path(plan, params)
