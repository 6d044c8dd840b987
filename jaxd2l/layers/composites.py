"""The composites: the only ways in which layers are put together.

A composite with a name opens a level of the parameter dict; one without puts its children into
the level it stands in. Names of siblings must differ.
"""

from collections.abc import Sequence
from typing import Any

from jaxd2l.geometry import as_int
from jaxd2l.layers.core import Layer, check_name
from jaxd2l.records import is_record, record

COMBINE = ("add", "concat", "multiply")


def sibling_names(layer: Any) -> list[str]:
    """The names that `layer` takes up in the level of the parameter dict it stands in."""
    return level_names(layer) if layer.name is None else [layer.name]


def level_names(layer: Any) -> list[str]:
    """The names of the layers inside a composite, those of unnamed composites in it included."""
    match layer:
        case Serial(children) | Parallel(children) | Split(children):
            return [name for child in children for name in sibling_names(child)]
        case Repeat(child) | Padded(child):
            return sibling_names(child)
    return []


def _children(owner: Any, field: str) -> None:
    """Normalise a tuple of layers and check it: layers only, at least one, no name twice."""
    what = f"{type(owner).__name__}{f' {owner.name!r}' if owner.name else ''}"
    given = getattr(owner, field)
    if isinstance(given, Layer) or not isinstance(given, Sequence):
        raise TypeError(f"{what}: {field} must be a list of layers, got {given!r}")
    children = tuple(given)
    object.__setattr__(owner, field, children)
    if not children:
        raise ValueError(f"{what}: {field} is empty")
    for child in children:
        _check_layer(child, what)
    seen: set[str] = set()
    for name in (name for child in children for name in sibling_names(child)):
        if name in seen:
            raise ValueError(
                f"{what}: two layers are named {name!r}; siblings need different names"
            )
        seen.add(name)
    if owner.name is not None:
        check_name(owner.name, what)


def _check_layer(child: Any, owner: str) -> None:
    if not isinstance(child, Layer) or not is_record(child):
        hint = " (wrap a function as layers.Function(f))" if callable(child) else ""
        raise TypeError(f"{owner}: {child!r} is not a layer{hint}")


@record
class Serial(Layer):
    """Layers one after another: y = f_n(... f_2(f_1(x))).

    Example:
      >>> from jaxd2l import layers
      >>> layers.Serial([layers.Dense("hidden", 8), layers.Activation("relu")])
      Serial(layers=(Dense(name='hidden', features=8), Activation(kind='relu')))
    """

    layers: Sequence[Layer]
    name: str | None = None

    def __post_init__(self) -> None:
        _children(self, "layers")


def _check_combine(owner: Any) -> None:
    if owner.combine not in COMBINE:
        raise ValueError(
            f"{type(owner).__name__}: combine must be one of {COMBINE}, got {owner.combine!r}"
        )


@record
class Parallel(Layer):
    """Branches that all see the same input, combined by adding, concatenating (features) or
    multiplying; multiplying gives gates, and a branch `Identity()` gives a residual shortcut.

    Example:
      >>> from jaxd2l import layers, output_shape
      >>> net = layers.Parallel([layers.Dense("a", 2), layers.Dense("b", 3)], "concat")
      >>> output_shape(net, (7,))
      (5,)
    """

    branches: Sequence[Layer]
    combine: str
    name: str | None = None

    def __post_init__(self) -> None:
        _children(self, "branches")
        _check_combine(self)


@record
class Split(Layer):
    """The features divided evenly over the branches, each branch on its own part, then combined.

    Example:
      >>> from jaxd2l import layers, output_shape
      >>> net = layers.Split([layers.Identity(), layers.Dense("b", 3)], "concat")
      >>> output_shape(net, (8,))
      (7,)
    """

    branches: Sequence[Layer]
    combine: str = "concat"
    name: str | None = None

    def __post_init__(self) -> None:
        _children(self, "branches")
        _check_combine(self)


@record
class Repeat(Layer):
    """The same block `times` times, as one `lax.scan`: compiled once, parameters stacked on a
    leading axis under one path. The block must keep the shape.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxd2l import layers, init
      >>> params, _ = init(layers.Repeat(layers.Dense("hidden", 4), 3), jax.random.key(0), (4,))
      >>> jax.tree.map(jnp.shape, params)
      {'hidden': {'bias': (3, 4), 'kernel': (3, 4, 4)}}
    """

    layer: Layer
    times: int
    name: str | None = None

    def __post_init__(self) -> None:
        _check_layer(self.layer, "Repeat")
        object.__setattr__(self, "times", as_int(self.times, "Repeat: times", 1))
        if self.name is not None:
            check_name(self.name, "Repeat")


@record
class Tied(Layer):
    """A layer that uses the parameters of the layer at the path `to` instead of its own; the
    gradients of both uses add up. The layer may not have running statistics.

    `name` is where it is called from: it seeds dropout, so that both uses draw different masks.

    Example:
      >>> import jax
      >>> from jaxd2l import layers, init
      >>> hidden = layers.Dense("hidden", 4)
      >>> net = layers.Serial([hidden, layers.Tied("again", hidden, to="hidden")])
      >>> sorted(init(net, jax.random.key(0), (4,))[0])
      ['hidden']
    """

    name: str
    layer: Layer
    to: str

    def __post_init__(self) -> None:
        check_name(self.name, "Tied")
        _check_layer(self.layer, "Tied")
        if not isinstance(self.to, str) or not self.to:
            raise ValueError(
                f"Tied {self.name!r}: to must be a path such as 'a/b', got {self.to!r}"
            )


@record
class Padded(Layer):
    """A layer on sequences of tokens that end in padding: (n, t) integers in which, after the last
    real token, only `padding` follows.

    The layers inside know how long each sequence is (`Context.lengths`): recurrent layers,
    `SelfAttention`, `LastStep`, `RealSteps` and the global and k-max pools leave the rest out, so
    that appending padding changes nothing. Layers that know nothing of it read it as they read the
    rest: convolutions and pools with windows (put `RealSteps` around them, as `models.textcnn`
    does), `Flatten`, functions, and norms over positions or batches. The lengths are those of the
    tokens also behind a layer that changes the number of positions. Lengths that `apply` and
    `extend` are given take the place of those found; a sequence whose real tokens may include
    `padding` needs them where it is extended in pieces.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxd2l import apply, init, layers
      >>> net = Padded(layers.Serial([layers.Embedding("words", 9, 4), layers.LSTM("lstm", 3),
      ...                             layers.LastStep()]), padding=0)
      >>> params, state = init(net, jax.random.key(0), (5,))
      >>> short, _ = apply(net, params, state, jnp.array([[7, 8]]))
      >>> padded, _ = apply(net, params, state, jnp.array([[7, 8, 0, 0, 0]]))
      >>> bool((short == padded).all())
      True
    """

    layer: Layer
    padding: int

    def __post_init__(self) -> None:
        _check_layer(self.layer, "Padded")
        object.__setattr__(self, "padding", as_int(self.padding, "Padded: padding", 0))
