"""The effective receptive field: how much each input pixel moves a unit, measured by gradients."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.analysis.receptive import spatial_axes
from jaxd2l.checks import check_floating
from jaxd2l.geometry import as_int

Array = jax.Array

#: How many random inputs the gradient is averaged over, as in the paper.
SAMPLES = 20
#: A pixel belongs to the field, by the paper, from this share of the largest value on.
THRESHOLD = 1 - 0.9545


@dataclasses.dataclass(frozen=True, eq=False)
class EffectiveReceptiveField:
    """How much each input pixel moves a unit, with the moments and the size of that map.

    Attributes:
      map: (*spatial) of the input; not negative, sums to 1.
      unit: the position of the unit in the output, one number for each spatial axis; None where
        the whole output was taken.

    Example:
      >>> field = EffectiveReceptiveField(np.array([0.25, 0.5, 0.25]), (1,))
      >>> field.mean, [round(w, 3) for w in field.width], field.size
      ((1.0,), [2.828], 3.0)
    """

    map: np.ndarray
    unit: tuple[int, ...] | None

    @property
    def mean(self) -> tuple[float, ...]:
        """The middle of the map in pixels, along each axis."""
        return tuple(_moments(self.map, axis)[0] for axis in range(self.map.ndim))

    @property
    def width(self) -> tuple[float, ...]:
        """Four standard deviations of the map in pixels, along each axis.

        The interval mean +- 2 standard deviations holds 95.45 % of a Gaussian, which the map of a
        deep stack tends to. The spread of n uniform kernels of k pixels is exactly
        n (k^2 - 1) / 12 (the variance of the pixels' centres), so that their width is
        4 sqrt(n (k^2 - 1) / 12), while the theoretical field is n (k - 1) + 1.
        """
        return tuple(4 * _moments(self.map, axis)[1] ** 0.5 for axis in range(self.map.ndim))

    @property
    def size(self) -> float:
        """Luo's size: the side of the square (cube) of as many pixels as have more than 4.55 % of
        the largest value (of the central one in the paper). For a Gaussian it is a little more
        than `width`: 4.41 standard deviations in two dimensions, 4.97 in one.
        """
        pixels = int((self.map > THRESHOLD * self.map.max()).sum())
        return float(pixels ** (1 / self.map.ndim))


def _moments(values: np.ndarray, axis: int) -> tuple[float, float]:
    """Mean and variance of the pixel number along an axis of a map that sums to 1."""
    marginal = values.sum(tuple(i for i in range(values.ndim) if i != axis))
    pixels = np.arange(len(marginal))
    mean = float(marginal @ pixels)
    return mean, float(marginal @ (pixels - mean) ** 2)


def effective_receptive_field(
    f: Callable[[Array], Any],
    input_shape: Sequence[int],
    axes: Sequence[int] | None = None,
    *,
    unit: Sequence[int] | None = None,
    inputs: Any = None,
) -> EffectiveReceptiveField:
    """The gradient of one unit by the input: map_p = mean_x sum_c |d y_unit / d x_pc|, scaled to 1.

    y_unit is the sum over everything of the output at one position: all channels and the whole
    batch. Where the output has the rank of the input, its spatial axes are taken to be those of
    the input; where it has another rank (logits after flattening, tokens), no position is left
    and y_unit is the sum of the whole output. To look at one number, return it:
    `effective_receptive_field(lambda x: f(x)[0, 3], ...)`.

    The map lies inside the theoretical field (`jaxd2l.analysis.receptive_field`), and is usually
    much smaller. Activations make it depend on the inputs, so give real ones for a trained network.

    Args:
      f: any JAX function of one array, its parameters closed over. It is traced once, and called
        for one entry of `inputs` after another: a batch axis in `input_shape` makes the batch.
      input_shape: the shape of that array, with its batch axis if f wants one.
      axes: the spatial axes of the input; by default all but the first and the last.
      unit: the position in the output, one number for each of `axes`; n // 2 by default.
      inputs: what to average over; by default 20 draws of standard normal numbers in float32.

    Shapes:
      inputs: (samples, *input_shape).

    Raises:
      TypeError: f does not return one array of floats, or the inputs are not floats.
      ValueError: axes, unit or inputs do not fit, or the gradient is zero everywhere or not finite.

    Source: Luo, Li, Urtasun & Zemel, NIPS 2016, arXiv:1701.04128, section 3; they draw the weights
    anew, too: average `map` over networks for that.

    Example:
      >>> def two_averages(x):  # (h, w) -> (h, w); each of 3x3
      ...     for _ in range(2):
      ...         x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (3, 3), (1, 1), "SAME")
      ...     return x
      >>> field = effective_receptive_field(two_averages, (9, 9), (0, 1))
      >>> (81 * field.map[4]).round(1).tolist()
      [0.0, 0.0, 3.0, 6.0, 9.0, 6.0, 3.0, 0.0, 0.0]
      >>> [round(w, 2) for w in field.width], field.size  # the theoretical field is 5
      ([4.62, 4.62], 5.0)
    """
    where = "effective_receptive_field"
    shape = tuple(as_int(n, f"{where}: input_shape: each size", 1) for n in input_shape)
    spatial = spatial_axes(where, shape, axes)
    if inputs is None:
        inputs = jax.random.normal(jax.random.key(0), (SAMPLES, *shape), np.float32)
    check_floating(inputs, f"{where}: inputs")
    inputs = jnp.asarray(inputs)
    if inputs.shape[1:] != shape or len(inputs) == 0:
        raise ValueError(
            f"{where}: inputs must be (samples, *input_shape) = (samples, "
            f"{', '.join(map(str, shape))}), got {inputs.shape}"
        )
    out = jax.eval_shape(f, jax.ShapeDtypeStruct(shape, inputs.dtype))
    place = _place(where, out, shape, spatial, unit)
    index: list[int | slice] = [slice(None)] * len(out.shape)
    for axis, i in zip(spatial, place or (), strict=place is not None):
        index[axis] = i
    others = tuple(axis for axis in range(len(shape)) if axis not in spatial)
    total_dtype = np.float64 if inputs.dtype == np.float64 else np.float32

    @jax.jit
    def add(total: Array, x: Array) -> Array:
        gradient = jax.grad(lambda x: f(x)[tuple(index)].astype(total_dtype).sum())(x)
        return total + jnp.abs(gradient.astype(total_dtype)).sum(others)

    total = jnp.zeros([shape[axis] for axis in sorted(spatial)], total_dtype)
    for x in inputs:  # one at a time: memory for one gradient; nothing waits for the host
        total = add(total, x)
    found = np.asarray(total, np.float64)
    _check_gradient(where, found)
    order = np.argsort(np.argsort(spatial))
    return EffectiveReceptiveField(found.transpose(order) / found.sum(), place)


def _place(
    where: str, out: Any, shape: tuple[int, ...], spatial: tuple[int, ...], unit: Any
) -> tuple[int, ...] | None:
    """The position of the unit in the output of f, as `EffectiveReceptiveField.unit`."""
    if not hasattr(out, "dtype"):
        raise TypeError(
            f"{where}: f must return one array, got {jax.tree.structure(out)}; "
            f"choose one, as in lambda x: f(x)[0]"
        )
    if not jnp.issubdtype(out.dtype, np.floating):
        raise TypeError(
            f"{where}: f must return floating point numbers, got {out.dtype}, "
            f"which have no gradient; return what they are made of"
        )
    if 0 in out.shape:
        raise ValueError(f"{where}: the output {out.shape} is empty; use a larger input_shape")
    if len(out.shape) != len(shape):
        if unit is not None:
            raise ValueError(
                f"{where}: the output {out.shape} has not the rank of the input {shape}, so that "
                f"unit={unit!r} has no meaning; pick the numbers inside f"
            )
        return None
    sizes = [out.shape[axis] for axis in spatial]
    if unit is None:
        return tuple(n // 2 for n in sizes)
    place = tuple(as_int(i, f"{where}: each of unit", 0) for i in unit)
    if len(place) != len(sizes) or any(i >= n for i, n in zip(place, sizes, strict=True)):
        raise ValueError(
            f"{where}: unit must be a position in an output of size {tuple(sizes)}, got {unit!r}"
        )
    return place


def _check_gradient(where: str, total: np.ndarray) -> None:
    if not np.isfinite(total).all():
        raise ValueError(
            f"{where}: the gradient holds NaN or infinite values; look at f, "
            f"or give inputs at which its gradient is finite"
        )
    if not total.any():
        raise ValueError(
            f"{where}: the gradient is zero everywhere: the unit does not depend on the input, or "
            f"all activations on the way are in a flat part; give other inputs"
        )
