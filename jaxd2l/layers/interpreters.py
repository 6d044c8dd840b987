"""The interpreters of a network record: init, apply, output_shape, walk.

Each matches on the composites and asks leaves through the protocol of `Layer`. A new analysis is
a new function like these; it edits no layer.
"""

import fnmatch
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.geometry import as_int
from jaxd2l.layers.composites import (
    Parallel,
    Repeat,
    Serial,
    Split,
    Tied,
    level_names,
    sibling_names,
)
from jaxd2l.layers.core import (
    Array,
    Context,
    Initializer,
    Layer,
    Params,
    Shape,
    State,
    fold_path,
    path_text,
)
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
def _where(path: tuple[Any, ...], layer: Layer, shape: Any) -> Iterator[None]:
    """Say in which layer an error was raised."""
    try:
        yield
    except Exception as error:
        where = path_text(path) or type(layer).__name__
        note = f"in layer {where!r}: {layer!r} with input shape {tuple(shape)}"
        if not any(n.startswith("in layer") for n in getattr(error, "__notes__", ())):
            error.add_note(note)
        raise


def _inner(path: tuple[Any, ...], layer: Layer) -> tuple[Any, ...]:
    return path if layer.name is None else (*path, layer.name)


# --- shapes -------------------------------------------------------------------------------------


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
    _shape(net, (), check_shape(input_shape), steps)
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
    return _shape(net, (), check_shape(input_shape), [])


def label_of(layer: Layer) -> str:
    """What a layer is called where it has no name: its label, or its type."""
    return layer.name or getattr(layer, "label", None) or type(layer).__name__.lower()


def _shape(layer: Layer, path: tuple[Any, ...], shape: Shape, steps: list[Step]) -> Shape:
    path = _inner(path, layer)
    match layer:
        case Serial(children):
            for child in children:
                shape = _shape(child, path, shape, steps)
            return shape
        case Parallel(branches, combine):
            return combined_shape(combine, [_shape(b, path, shape, steps) for b in branches], path)
        case Split(branches, combine):
            part = split_shape(shape, len(branches), path)
            return combined_shape(combine, [_shape(b, path, part, steps) for b in branches], path)
        case Repeat(child, times):
            for i in range(times):
                numbered = (*path[:-1], f"{path[-1]}[{i}]") if layer.name else (*path, f"[{i}]")
                out = _shape(child, numbered, shape, steps)
                if out != shape:
                    raise ValueError(
                        f"Repeat at {path_text(path) or 'the top level'!r}: the block turns "
                        f"{shape} into {out}; a repeated block must keep the shape"
                    )
            return shape
        case Tied(_, child, _):
            return _shape(child, path, shape, steps)
        case _:
            with _where(path, layer, shape):
                out = tuple(layer.output_shape(shape))
            where = path_text(path if layer.name else (*path, label_of(layer)))
            steps.append(Step(where, layer, shape, out))
            return out


# --- init ---------------------------------------------------------------------------------------


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
    return _jitted_init(net, key, shape, jnp.dtype(dtype), overrides)


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def _jitted_init(
    net: Layer, key: Array, shape: Shape, dtype: Any, overrides: tuple[tuple[str, Any], ...]
) -> tuple[Params, State]:
    used: set[str] = set()
    tied: list[tuple[Tied, Shape]] = []
    draw = _Draw(key, dtype, overrides, used, tied)
    _, params, state = draw(net, (), shape)
    unused = [pattern for pattern, _ in overrides if pattern not in used]
    if unused:
        raise ValueError(
            f"init: the pattern {unused[0]!r} matches no parameter; the paths are "
            f"{sorted(_paths(params))}"
        )
    for layer, at in tied:
        own = jax.eval_shape(lambda k, la=layer, s=at: draw.own(la.layer, ("tied",), s)[1:], key)
        if own[1]:
            raise ValueError(f"Tied {layer.name!r}: a layer with running statistics cannot be tied")
        there = _lookup(params, layer.to, layer.name)
        if _shapes(there) != _shapes(own[0]):
            raise ValueError(
                f"Tied {layer.name!r}: {layer.layer!r} needs {_shapes(own[0])}, but "
                f"{layer.to!r} has {_shapes(there)}"
            )
    return params, state


def _paths(params: Any) -> dict[str, Any]:
    flat = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in flat}


def _shapes(tree: Any) -> dict[str, Shape]:
    return {path: jnp.shape(leaf) for path, leaf in _paths(tree).items()}


def _lookup(params: Mapping[str, Any], to: str, name: str) -> Any:
    found: Any = params
    for part in to.split("/"):
        if not isinstance(found, Mapping) or part not in found:
            raise ValueError(
                f"Tied {name!r}: there are no parameters at {to!r}; the paths are "
                f"{sorted(_paths(params))}"
            )
        found = found[part]
    return found


class _Draw(NamedTuple):
    """init, one level at a time: (output shape, params, state) of a layer's own level."""

    key: Array
    dtype: Any
    overrides: tuple[tuple[str, Any], ...]
    used: set[str]
    tied: list[tuple[Tied, Shape]]

    def __call__(
        self, layer: Layer, path: tuple[Any, ...], shape: Shape
    ) -> tuple[Shape, Params, State]:
        out, params, state = self.own(layer, _inner(path, layer), shape)
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
                out = _shape(layer, path[:-1] if layer.name else path, shape, [])
                stacked = jax.vmap(lambda i: self(child, (*path, i), shape)[1:])
                params, state = stacked(jnp.arange(times))
                return out, params, state
            case Tied():
                self.tied.append((layer, shape))
                return _shape(layer.layer, path, shape, []), params, state
            case _:
                with _where(path, layer, shape):
                    out = tuple(layer.output_shape(shape))
                    params, state = layer.init(fold_path(self.key, path), shape, self.dtype)
                    if layer.name is None and (params or state):
                        raise ValueError(
                            f"{layer!r} has parameters or statistics, so it needs a name"
                        )
                    return out, self._override(layer, params, path, shape), state

    def _override(
        self, layer: Layer, params: Params, path: tuple[Any, ...], shape: Shape
    ) -> Params:
        if not self.overrides:
            return params
        declared = layer.parameters(shape)

        def draw(leaf_path: Any, leaf: Array) -> Array:
            name = jax.tree_util.keystr(leaf_path, simple=True, separator="/")
            full = f"{path_text(path)}/{name}"
            for pattern, initializer in self.overrides:
                if fnmatch.fnmatchcase(full, pattern):
                    self.used.add(pattern)
                    fan = declared[name].fan if name in declared else None
                    key = fold_path(self.key, (*path, name))
                    return initializer(key, jnp.shape(leaf), leaf.dtype, fan)
            return leaf

        return jax.tree_util.tree_map_with_path(draw, params)


# --- apply --------------------------------------------------------------------------------------


def apply(
    net: Layer,
    params: Params,
    state: State,
    x: Array,
    *,
    key: Array | None = None,
    train: bool = False,
    examples: Array | None = None,
    mask: Array | None = None,
) -> tuple[Any, State]:
    """Run a network on a batch.

    Args:
      net: the network.
      params, state: from `init`, or trees of the same structure.
      x: (n, *input_shape).
      key: needed when train=True and something random runs; the error names the layer.
      train: a Python bool; with False the state comes back unchanged.
      examples: (n,) int index of each example in the global batch, default 0..n-1. A random mask
        depends on (key, path, index), so shards of one batch draw what the whole would.
      mask: (n,) bool, False for examples that only pad the batch: batch statistics ignore them.

    Returns:
      (y, new_state).

    Raises:
      ValueError: parameters or input of another shape than the network needs; a note names the
        layer.

    Example:
      >>> from jaxd2l import layers
      >>> net = layers.Serial([layers.Flatten(), layers.Dense("head", 2)])
      >>> params, state = init(net, jax.random.key(0), (2, 2, 1))
      >>> y, state = apply(net, params, state, jnp.ones((5, 2, 2, 1)))
      >>> y.shape
      (5, 2)
    """
    check_network(net)
    if not isinstance(train, bool):
        raise TypeError(f"apply: train must be True or False (a static value), got {train!r}")
    for name, tree in (("params", params), ("state", state)):
        if not isinstance(tree, Mapping):
            raise TypeError(
                f"apply: {name} must be a dict, as init returned it, got {type(tree).__name__}"
            )
        _check_names(sibling_names(net), tree, name, ())
    if jnp.ndim(x) < 1:
        raise ValueError("apply: x needs a batch axis, (n, *input_shape); got a scalar")
    for name, value in (("examples", examples), ("mask", mask)):
        if value is not None and jnp.shape(value) != jnp.shape(x)[:1]:
            raise ValueError(
                f"apply: {name} must have shape ({jnp.shape(x)[0]},), one per example, "
                f"got {jnp.shape(value)}"
            )
    context = Context(train, key, examples, mask, params)
    y, new_state = _apply(net, params, state, jnp.asarray(x), context)
    return y, (new_state if train else state)


def _apply(
    layer: Layer, params: Params, state: State, x: Array, context: Context
) -> tuple[Any, State]:
    if layer.name is None:
        return _apply_own(layer, params, state, x, context)
    context = context.enter(layer.name)
    own, statistics = params.get(layer.name, {}), state.get(layer.name, {})
    if isinstance(layer, Serial | Parallel | Split | Repeat | Tied):
        _check_names(level_names(layer), own, "params", context.path)
        _check_names(level_names(layer), statistics, "state", context.path)
    y, new = _apply_own(layer, own, statistics, x, context)
    return y, ({layer.name: new} if new else {})


def _apply_own(
    layer: Layer, params: Params, state: State, x: Array, context: Context
) -> tuple[Any, State]:
    new: State = {}
    match layer:
        case Serial(children):
            for child in children:
                x, updated = _apply(child, params, state, x, context)
                new |= updated
            return x, new
        case Parallel(branches, combine) | Split(branches, combine):
            if isinstance(layer, Split):
                split_shape(x.shape[1:], len(branches), context.path)
                parts = jnp.split(x, len(branches), axis=-1)
            else:
                parts = [x] * len(branches)
            ys = []
            for branch, part in zip(branches, parts, strict=True):
                y, updated = _apply(branch, params, state, part, context)
                ys.append(y)
                new |= updated
            combined_shape(combine, [y.shape[1:] for y in ys], context.path)
            return _combine(combine, ys), new
        case Repeat(child, times):
            return _apply_repeat(child, times, params, state, x, context)
        case Tied(name, child, to):
            with _where(context.path, layer, x.shape[1:]):
                own = _lookup(context.root, to, name)
            y, updated = _apply_own(child, own, {}, x, context)
            if updated:
                raise ValueError(f"Tied {name!r}: a layer with running statistics cannot be tied")
            return y, {}
        case _:
            if layer.name is None:
                params, state = {}, {}  # those of the level it stands in are not its own
            with _where(context.path, layer, x.shape[1:]):
                _check_arrays(layer, params, state, x)
                return layer.apply(params, state, x, context)


def _combine(combine: str, ys: list[Array]) -> Array:
    if combine == "concat":
        return jnp.concatenate(ys, axis=-1)
    return functools.reduce(jnp.add if combine == "add" else jnp.multiply, ys)


def _apply_repeat(
    layer: Layer, times: int, params: Params, state: State, x: Array, context: Context
) -> tuple[Array, State]:
    for path, leaf in _paths((params, state)).items():
        if jnp.shape(leaf)[:1] != (times,):
            raise ValueError(
                f"Repeat at {path_text(context.path)!r}: {path} must be stacked over {times} "
                f"repetitions on its first axis, got shape {jnp.shape(leaf)}"
            )

    _shape(Repeat(layer, 1), context.path, x.shape[1:], [])  # the block must keep the shape

    def body(x: Array, step: Any) -> tuple[Array, State]:
        i, params, state = step
        return _apply(layer, params, state, x, context.enter(i))

    return jax.lax.scan(body, x, (jnp.arange(times), params, state))


def _check_names(known: list[str], tree: Mapping[str, Any], what: str, path: Any) -> None:
    """A level may hold nothing but the layers of the network: nothing is ignored silently."""
    unknown = sorted(set(tree) - set(known))
    if unknown:
        raise ValueError(
            f"apply: {what} has {unknown[0]!r} at {path_text(path) or 'the top level'!r}, where "
            f"the network has {sorted(known)}"
        )


def _check_arrays(layer: Layer, params: Params, state: State, x: Array) -> None:
    """The declared arrays must be there, in the declared shapes."""
    shape = x.shape[1:]
    layer.output_shape(shape)
    groups = (
        ("parameters", layer.parameters(shape), params),
        ("statistics", layer.statistics(shape), state),
    )
    for what, declared, given in groups:
        if not declared and type(layer).init is not Layer.init:
            continue  # it makes its own arrays, as a Flax module does
        if set(declared) != set(given):
            raise ValueError(f"{what} must be {sorted(declared)}, got {sorted(given)}")
        for name, parameter in declared.items():
            if jnp.shape(given[name]) != parameter.shape:
                raise ValueError(
                    f"{name} must have shape {parameter.shape} for input shape {shape}, "
                    f"got {jnp.shape(given[name])}"
                )
