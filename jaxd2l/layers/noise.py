"""A layer that adds noise in training."""

from jaxd2l.geometry import Window
from jaxd2l.layers.core import (
    Array,
    Context,
    Layer,
    Params,
    Shape,
    State,
    check_flags,
    check_name,
)
from jaxd2l.ops.noise import gaussian_noise, multiplicative_noise
from jaxd2l.records import as_float, record


@record
class GaussianNoise(Layer):
    """Add scale e, e ~ N(0, 1), in training; nothing else. First in a network: input noise.

    With `multiplicative=True` it is x (1 + scale e), which with scale = sqrt(rate / (1 - rate)) is
    Gaussian dropout. The noise of an example depends on (key, path, index of the example in the
    global batch) only, as the mask of `Dropout`.

    Source: Bishop 1995; Srivastava et al. 2014, section 10.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxd2l import apply
      >>> layer, x = GaussianNoise("noise", 0.5), jnp.zeros((100, 100))
      >>> y, _ = apply(layer, {}, {}, x, key=jax.random.key(0), train=True)
      >>> round(float(y.std()), 2), bool((apply(layer, {}, {}, x)[0] == x).all())
      (0.5, True)
    """

    name: str
    scale: float
    multiplicative: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "GaussianNoise")
        check_flags(self, "multiplicative")
        what = f"GaussianNoise {self.name!r}: scale (a standard deviation)"
        object.__setattr__(self, "scale", as_float(self.scale, what, 0))

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        if not context.train or self.scale == 0:
            return x, state
        noisy = multiplicative_noise if self.multiplicative else gaussian_noise
        return noisy(x, self.scale, context.key, examples=context.examples), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()
