"""The interpreter `init`: the parameters and running statistics of a network."""

import fnmatch
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.layers.composites import Parallel, Repeat, Serial, Split, Tied
from jaxd2l.layers.core import Array, Initializer, Layer, Params, Shape, State, fold_path, path_text
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
            f"{sorted(array_paths(params))}"
        )
    for layer, at in tied:
        own = jax.eval_shape(lambda k, la=layer, s=at: draw.own(la.layer, ("tied",), s)[1:], key)
        if own[1]:
            raise ValueError(f"Tied {layer.name!r}: a layer with running statistics cannot be tied")
        there = look_up(params, layer.to, layer.name)
        if _shapes(there) != _shapes(own[0]):
            raise ValueError(
                f"Tied {layer.name!r}: {layer.layer!r} needs {_shapes(own[0])}, but "
                f"{layer.to!r} has {_shapes(there)}"
            )
    return params, state


def _shapes(tree: Any) -> dict[str, Shape]:
    return {path: jnp.shape(leaf) for path, leaf in array_paths(tree).items()}


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
                stacked = jax.vmap(lambda i: self(child, (*path, i), shape)[1:])
                params, state = stacked(jnp.arange(times))
                return out, params, state
            case Tied():
                self.tied.append((layer, shape))
                return shape_of(layer.layer, path, shape), params, state
            case _:
                with where_raised(path, layer, shape):
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
