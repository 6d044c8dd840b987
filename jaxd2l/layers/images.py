"""Layers that only images have: random augmentation, and conversion to color spaces."""

from collections.abc import Sequence

import jax

from jaxd2l.geometry import Window
from jaxd2l.layers.core import Array, Context, Layer, Params, Shape, State, check_name
from jaxd2l.ops.augment import Augmentation, Compose, augment
from jaxd2l.ops.augment.core import check_step
from jaxd2l.ops.color import COLOR_SPACES, check_spaces, stack_color_spaces
from jaxd2l.records import record


@record
class Augment(Layer):
    """Every image augmented in training, each with a key of its own; at test `step.at_test`.

    What is drawn for an example depends on (key, path, index of the example in the global batch)
    only, as the mask of `Dropout`. `step` is one augmentation or a list of them (`Compose`). At
    test the images stay as they are, or are brought to the size that training sees.

    Source: D2L 14.1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxd2l import apply
      >>> from jaxd2l.ops.augment import RandomFlip, RandomShift
      >>> layer = Augment("augment", [RandomFlip(), RandomShift(2)])
      >>> x = jnp.ones((4, 8, 8, 1))
      >>> y, _ = apply(layer, {}, {}, x, key=jax.random.key(0), train=True)
      >>> y.shape, bool((apply(layer, {}, {}, x)[0] == x).all())
      ((4, 8, 8, 1), True)
    """

    name: str
    step: Augmentation | Sequence[Augmentation]

    def __post_init__(self) -> None:
        check_name(self.name, "Augment")
        if isinstance(self.step, list | tuple):
            object.__setattr__(self, "step", Compose(self.step))
        check_step(self.step, f"Augment {self.name!r}")

    def _step(self) -> Augmentation:
        assert isinstance(self.step, Augmentation)  # made so above
        return self.step

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ValueError(f"Augment: the input must be images (h, w, c), got {input_shape}")
        return self._step().output_shape(input_shape)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        if not context.train:
            return jax.vmap(self._step().at_test)(x), state
        return augment(context.key, x, self._step(), examples=context.examples), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return () if self.output_shape(input_shape) == input_shape else None  # those of a test


@record
class ColorSpaces(Layer):
    """RGB images (n, h, w, 3) in [0, 1] in several color spaces, stacked on the channels.

    `spaces` is any of "gray", "binary", "rgb", "yuv", "hsv", "hsl"; all of them are 14 channels.

    Source: `jaxd2l.ops.color.stack_color_spaces`; catalogue DA6.

    Example:
      >>> ColorSpaces(["gray", "hsv"]).output_shape((32, 32, 3))
      (32, 32, 4)
    """

    spaces: Sequence[str] = tuple(COLOR_SPACES)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spaces", check_spaces(self.spaces, "ColorSpaces"))

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape[-1:] != (3,):
            raise ValueError(
                f"ColorSpaces: the input must have 3 channels (RGB), got {input_shape}"
            )
        return (*input_shape[:-1], sum(COLOR_SPACES[name][1] for name in self.spaces))

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return stack_color_spaces(x, self.spaces), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()
