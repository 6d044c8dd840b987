"""What a layer is: a record of geometry that declares its arrays and says how it acts on a batch.

A layer owns no arrays. It answers five questions about an input shape without a batch axis
(`output_shape`, `parameters`, `statistics`, `windows`, `macs`) and acts on a batch in `apply`.
Everything else (initialising, running, measuring, storing) is a function of these answers.
"""

import dataclasses
import re
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np

from jaxd2l.geometry import Window

Array = jax.Array
Shape = tuple[int, ...]
Params = dict[str, Any]
State = dict[str, Any]
Initializer = Callable[..., Array]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def check_name(name: Any, owner: str) -> None:
    """Refuse a name that cannot be one part of a path such as `stage1/conv1/kernel`.

    Example:
      >>> check_name("a/b", "Dense")
      Traceback (most recent call last):
      ValueError: Dense: the name 'a/b' must be letters, digits and '_', '.', '-' (no '/')
    """
    if not isinstance(name, str):
        raise TypeError(f"{owner}: the name must be a string, got {name!r}")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{owner}: the name {name!r} must be letters, digits and '_', '.', '-' (no '/')"
        )


def check_flags(owner: Any, *fields: str) -> None:
    """Refuse fields that are not True or False, such as an activation in the place of `bias`."""
    for field in fields:
        value = getattr(owner, field)
        if not isinstance(value, bool):
            raise TypeError(f"{type(owner).__name__}: {field} must be True or False, got {value!r}")


def check_initializers(owner: Any, *fields: str) -> None:
    """Refuse fields that are not initialisers."""
    for field in fields:
        value = getattr(owner, field)
        if not callable(value):
            raise TypeError(
                f"{type(owner).__name__}: {field} must be an initialiser such as "
                f"initializers.HeNormal(), got {value!r}"
            )


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One declared array: its shape, the initialiser that fills it, and its (fan in, fan out).

    `fan` is only needed where the layout does not give it: a kernel is `(..., in, out)`.
    """

    shape: Shape
    initializer: Initializer
    fan: tuple[int, int] | None = None

    def draw(self, key: Array, dtype: Any) -> Array:
        """The array, drawn with `key`."""
        return self.initializer(key, self.shape, dtype, self.fan)


@dataclasses.dataclass(frozen=True)
class Context:
    """What a layer may know of the call it is part of.

    Attributes:
      train: whether this is a training pass (a Python bool).
      path: names from the root to here; inside a repetition also its (traced) number.
      examples: (n,) index of each example in the global batch; random masks depend on it.
      mask: (n,) bool, False where an example only pads the batch; None when all are real.
      lengths: (n,) int, how many positions of each sequence are real; None when all are.
      extends: whether this call continues sequences, so that layers find their carry in the state.
      root: the parameters of the whole network, in which tied layers look theirs up.
    """

    train: bool
    run_key: Array | None
    examples: Array | None = None
    mask: Array | None = None
    lengths: Array | None = None
    extends: bool = False
    root: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    path: tuple[Any, ...] = ()

    def enter(self, part: Any) -> "Context":
        """The same call, one name (or repetition number) further down."""
        return dataclasses.replace(self, path=(*self.path, part))

    @property
    def key(self) -> Array:
        """This layer's own key: the caller's, folded with every name on the path.

        Raises:
          ValueError: the caller gave no key; the message names the layer.
        """
        if self.run_key is None:
            raise ValueError(
                f"layer {path_text(self.path)!r} is random when train=True: pass key=... to apply"
            )
        return fold_path(self.run_key, self.path)


def path_text(path: tuple[Any, ...]) -> str:
    """A path for people, `stage1/conv1`; the number of a repetition is left out."""
    return "/".join(part for part in path if isinstance(part, str))


def fold_path(key: Array, path: tuple[Any, ...]) -> Array:
    """`key` folded with each part of the path: crc32 of a name, a number as it is.

    Names and not positions, so inserting a layer does not re-seed its neighbours.

    Example:
      >>> key = jax.random.key(0)
      >>> bool((fold_path(key, ("a", "b")) == fold_path(fold_path(key, ("a",)), ("b",))).all())
      True
    """
    for part in path:
        key = jax.random.fold_in(key, name_number(part) if isinstance(part, str) else part)
    return key


def name_number(name: str) -> np.uint32:
    """The number that stands for a name in a key: its crc32."""
    return np.uint32(zlib.crc32(name.encode()))


def per_position(input_shape: Shape) -> tuple[Window, ...] | None:
    """The `windows` of a layer that mixes the features of a position: of (features,) it sees the
    whole input, of (h, w, c) its own position."""
    return None if len(input_shape) == 1 else ()


class Layer:
    """Base of all layers. Subclass it, decorate with `@record`, and override what differs.

    The defaults describe a layer without arrays that keeps the shape and does not cost anything;
    only `apply` must be written. A layer that has parameters, statistics or randomness needs a
    `name` field.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxd2l import records, layers, init
      >>> from jaxd2l.ops import initializers
      >>> @records.record
      ... class Affine(layers.Layer):
      ...     '''y = scale * x + shift, per feature.'''
      ...     name: str
      ...     def parameters(self, input_shape):
      ...         features = input_shape[-1:]
      ...         return {"scale": layers.Parameter(features, initializers.Constant(2.0)),
      ...                 "shift": layers.Parameter(features, initializers.Constant(1.0))}
      ...     def apply(self, params, state, x, context):
      ...         return x * params["scale"] + params["shift"], state
      ...     def windows(self, input_shape):
      ...         return ()  # each output sees only its own position
      >>> net = layers.Serial([Affine("affine"), layers.Dense("head", 2)])
      >>> params, state = init(net, jax.random.key(0), (3,))
      >>> jax.tree.map(jnp.shape, params)
      {'affine': {'scale': (3,), 'shift': (3,)}, 'head': {'bias': (2,), 'kernel': (3, 2)}}
    """

    #: What a row of the summary calls a layer without a name.
    label: ClassVar[Any] = None
    if TYPE_CHECKING:
        name: Any  #: one part of the path, or None
    else:

        def __getattr__(self, attribute):  # asked only for what is not found elsewhere
            if attribute == "name":
                return None  # a class without the field stands for layers without a name
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {attribute!r}")

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of one output, without the batch axis. Raise ValueError for unfit input."""
        return input_shape

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        """The trained arrays, by leaf name: kernel, bias, scale, embedding."""
        return {}

    def statistics(self, input_shape: Shape) -> dict[str, Parameter]:
        """The running statistics, by leaf name: mean, var."""
        return {}

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        """One window per spatial axis; () when every output sees only its own position; None when
        every output sees the whole input. The default is the safe one: the whole input.

        A layer that answers None here and to `macs` knows neither: `summarize` then reads both
        off the trace of its `apply`.
        """
        return None

    def carry(
        self, input_shape: Shape, length: int | None, dtype: Any
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """What a layer that runs along a sequence (t, ...) hands from one piece of it to the next,
        for one example, by leaf name: hidden, cell, key, value, position; {} for nothing.

        `length` is how many positions a cache must hold, None where the caller did not say.
        `layers.extend` puts these arrays, (n, *shape), into the layer's `state` and takes them from
        the new state; in `apply` they are not there, and the layer starts from nothing.
        """
        return {}

    def macs(self, input_shape: Shape) -> int | None:
        """Multiply-accumulates of one example (1 MAC = 2 FLOPs); only products with parameters.

        None where the layer does not know: `summarize` then traces it and counts the products of
        all its matrix products and convolutions, also those without parameters.
        """
        return 0

    def init(self, key: Array, input_shape: Shape, dtype: Any) -> tuple[Params, State]:
        """Draw the declared arrays, each with a key folded with its leaf name."""
        declared = self.parameters(input_shape), self.statistics(input_shape)
        params, state = (
            {name: p.draw(fold_path(key, (name,)), dtype) for name, p in part.items()}
            for part in declared
        )
        return params, state

    def apply(self, params: Params, state: State, x: Array, context: Context) -> tuple[Any, State]:
        """Act on a batch x (n, *input_shape); return the output and the new statistics."""
        raise NotImplementedError(f"{type(self).__name__} must define apply")
