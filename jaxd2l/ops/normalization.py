"""Normalisation over the batch, or within an example (layer, group, instance, local response).

Statistics are those of shifted values, x minus a value or a rough mean of it: the result is the
same, and an input with mean 1e4 and deviation 1 loses no digits. The variance comes from
deviations, never from E[x^2] - E[x]^2. Half precision is computed in float32; results have the
dtype of x. The output has mean 0 and variance 1 before scale and bias; it is Gaussian only if the
input was.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxd2l.checks import check_floating, check_rank
from jaxd2l.geometry import as_int

Array = jax.Array


def _wide(x: Array) -> Array:
    """Half precision as float32; other floats as they are."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def _check_vector(v: Any, shape: tuple[int, ...], what: str, name: str) -> None:
    if v is None:
        return
    if jnp.shape(v) != shape:
        raise ValueError(
            f"{what}: {name} must have shape {shape} to fit x, got {tuple(jnp.shape(v))}"
        )
    check_floating(v, f"{what}: {name}")


def _along(v: Array, like: Array) -> Array:
    """(c,) as (1, ..., 1, c), in the dtype and rank of `like`."""
    return jnp.asarray(v, like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))


def _affine(x: Array, gain: Array | None, bias: Array | None) -> Array:
    if gain is not None:
        x = x * gain
    if bias is not None:
        x = x + bias
    return x


def _first(x: Array, axes: Iterable[int]) -> Array:
    """The first element along each of `axes`, which stay, with size 1."""
    for axis in axes:
        x = lax.slice_in_dim(x, 0, 1, axis=axis)
    return x


def _batch_moments(
    x: Array, valid: Array | None, axis_name: Any
) -> tuple[Array, Array, Array, Array | float]:
    """Deviations of x (n, ..., c) from the mean; mean (c,); biased variance (c,); the count."""

    def everywhere(v: Any) -> Any:
        return v if axis_name is None else lax.psum(v, axis_name)

    def total(v: Array) -> Array:
        if valid is not None:
            v = jnp.where(valid.reshape((-1,) + (1,) * (v.ndim - 1)), v, jnp.zeros_like(v))
        return everywhere(jnp.sum(v, axis=tuple(range(v.ndim - 1))))

    examples: Array | float
    at_least_one: Array | float
    if valid is None:
        examples = at_least_one = float(x.shape[0] * everywhere(1))
    else:
        examples = everywhere(jnp.sum(valid.astype(x.dtype)))
        at_least_one = jnp.maximum(examples, 1)
    positions = math.prod(x.shape[1:-1])
    # The mean over one position of each example is near enough to shift by.
    shift = lax.stop_gradient(total(_first(x, range(1, x.ndim - 1))) / at_least_one)  # (c,)
    shifted = x - _along(shift, x)
    centre = total(shifted) / (at_least_one * positions)
    deviations = shifted - _along(centre, x)
    var = total(deviations * deviations) / (at_least_one * positions)
    return deviations, shift + centre, var, examples * positions


def batch_norm(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    mean: Array,
    var: Array,
    *,
    train: bool,
    decay: float = 0.9,
    eps: float = 1e-5,
    unbiased: bool = False,
    mask: Array | None = None,
    axis_name: Any = None,
) -> tuple[Array, tuple[Array, Array]]:
    """Normalise each feature over the batch and all positions; returns `(y, (mean, var))`.

        y = scale * (x - m) / sqrt(v + eps) + bias
        train:  m, v = mean and biased variance of this batch
                mean = decay*mean + (1 - decay)*m,  var = decay*var + (1 - decay)*v
        else:   m, v = mean, var, which come back unchanged

    `unbiased=True` puts v*N/(N-1) into the running variance, as PyTorch does (N values a feature;
    v itself where N is 1). `mask` marks the valid examples of a padded batch: the statistics are
    those of the valid ones alone, and the rest are normalised with them; a batch with none leaves
    mean and var as they are. With one value a feature in training (a batch of one, without
    positions) the output is `bias` whatever x is; PyTorch raises there. `axis_name` (of `pmap`,
    `vmap` or `shard_map`) takes the statistics of the examples of all devices together.

    Shapes:
      x: (n, ..., c).
      scale, bias: (c,) or None (1 and 0).
      mean, var: (c,).
      mask: (n,) bool, or None: all are valid.
      result: y (n, ..., c), mean (c,), var (c,).

    Raises:
      TypeError: an array is not floating point, or the mask not bool.
      ValueError: shapes that do not fit, decay outside [0, 1], eps below 0.

    Source: Ioffe and Szegedy 2015, D2L 8.5. PyTorch's momentum is 1 - decay and its running
    variance unbiased; Flax's momentum is decay, 0.99 by default.

    Example:
      >>> x = jnp.arange(120.).reshape(20, 6)
      >>> mean, var = jnp.zeros(6), jnp.ones(6)
      >>> y, (mean, var) = batch_norm(x, None, None, mean, var, train=True, decay=0.0)
      >>> mean
      Array([57., 58., 59., 60., 61., 62.], dtype=float32)
    """
    if jnp.ndim(x) < 2:
        raise ValueError(f"batch_norm: x must have shape (n, ..., c), got {tuple(jnp.shape(x))}")
    check_floating(x, "batch_norm: x")
    features = (x.shape[-1],)
    for name, v in (("scale", scale), ("bias", bias), ("mean", mean), ("var", var)):
        _check_vector(v, features, "batch_norm", name)
    decay, eps = float(decay), float(eps)
    if not 0 <= decay <= 1:
        raise ValueError(f"batch_norm: decay must lie in [0, 1], got {decay}")
    if not eps >= 0:
        raise ValueError(f"batch_norm: eps must not be negative, got {eps}")
    if mask is not None:
        if jnp.shape(mask) != x.shape[:1]:
            raise ValueError(
                f"batch_norm: mask must have shape {x.shape[:1]}, one bool an example, "
                f"got {tuple(jnp.shape(mask))}"
            )
        if jnp.result_type(mask) != jnp.bool_:
            raise TypeError(f"batch_norm: mask must be bool, got {jnp.result_type(mask)}")
        mask = jnp.asarray(mask)
    x, mean, var = jnp.asarray(x), jnp.asarray(mean), jnp.asarray(var)

    wide = _wide(x)
    if train:
        deviations, m, v, count = _batch_moments(wide, mask, axis_name)
        kept = v
        if unbiased:
            kept = v * (count / jnp.maximum(jnp.asarray(count, v.dtype) - 1, 1))
        new_mean = decay * mean + (1 - decay) * m.astype(mean.dtype)
        new_var = decay * var + (1 - decay) * kept.astype(var.dtype)
        if mask is not None:
            new_mean = jnp.where(count > 0, new_mean, mean)
            new_var = jnp.where(count > 0, new_var, var)
    else:
        deviations, v = wide - _along(mean, wide), var.astype(wide.dtype)
        new_mean, new_var = mean, var
    gain = lax.rsqrt(v + eps)  # (c,)
    if scale is not None:
        gain = gain * jnp.asarray(scale, gain.dtype)
    y = _affine(deviations, _along(gain, wide), None if bias is None else _along(bias, wide))
    return y.astype(x.dtype), (new_mean, new_var)


def _normalise(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """(x - mean) / sqrt(var + eps) over `axes`."""
    shifted = x - lax.stop_gradient(_first(x, axes))
    deviations = shifted - jnp.mean(shifted, axis=axes, keepdims=True)
    var = jnp.mean(deviations * deviations, axis=axes, keepdims=True)
    return deviations * lax.rsqrt(var + eps)


def layer_norm(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    *,
    axes: int | Sequence[int] = -1,
    eps: float = 1e-5,
) -> Array:
    """Normalise each example by itself, over its features (`axes=-1`) or over any of its axes.

        y = scale * (x - m) / sqrt(v + eps) + bias,  m, v over `axes`

    For images `axes=(1, 2, 3)` takes all of (h, w, c). There are no running statistics; neither
    the batch size nor the other examples matter, and training and evaluation are the same.

    Shapes:
      x: (..., c).
      scale, bias: the sizes of `axes` in ascending order, or None (1 and 0).
      result: as x.

    Raises:
      TypeError: an array is not floating point.
      ValueError: axes that x has not, or scale or bias of another shape.

    Source: Ba et al. 2016, D2L 11.7. PyTorch `layer_norm` agrees; Flax's eps is 1e-6.

    Example:
      >>> layer_norm(jnp.array([[1., 2., 3.]]), None, None, eps=0.0).round(4)
      Array([[-1.2247,  0.    ,  1.2247]], dtype=float32)
    """
    check_floating(x, "layer_norm: x")
    rank = jnp.ndim(x)
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    if not given or any(not -rank <= a < rank for a in given):
        raise ValueError(f"layer_norm: axes must be axes of x {tuple(jnp.shape(x))}, got {axes}")
    over = tuple(sorted({a % rank for a in given}))
    if len(over) != len(given):
        raise ValueError(f"layer_norm: axes must differ, got {axes}")
    for name, v in (("scale", scale), ("bias", bias)):
        _check_vector(v, tuple(x.shape[a] for a in over), "layer_norm", name)
    x = jnp.asarray(x)
    wide = _wide(x)
    full = tuple(n if a in over else 1 for a, n in enumerate(x.shape))

    def spread(v: Array | None) -> Array | None:
        return None if v is None else jnp.asarray(v, wide.dtype).reshape(full)

    return _affine(_normalise(wide, over, eps), spread(scale), spread(bias)).astype(x.dtype)


def _group_norm(
    x: Array, scale: Array | None, bias: Array | None, groups: int, eps: float, what: str
) -> Array:
    check_floating(x, f"{what}: x")
    c = x.shape[-1]
    for name, v in (("scale", scale), ("bias", bias)):
        _check_vector(v, (c,), what, name)
    x = jnp.asarray(x)
    wide = _wide(x)
    grouped = wide.reshape(*x.shape[:-1], groups, c // groups)  # (n, *spatial, groups, c/groups)
    over = (*range(1, x.ndim - 1), x.ndim)
    y = _normalise(grouped, over, eps).reshape(x.shape)  # (n, *spatial, c)
    return _affine(
        y,
        None if scale is None else _along(scale, y),
        None if bias is None else _along(bias, y),
    ).astype(x.dtype)


def group_norm(
    x: Array, scale: Array | None, bias: Array | None, groups: int, *, eps: float = 1e-5
) -> Array:
    """Normalise each example over all positions and the channels of each group.

    One group is layer norm over (h, w, c) with a scale per channel; as many groups as channels is
    instance norm.

    Shapes:
      x: (n, *spatial, c).
      scale, bias: (c,) or None (1 and 0).
      result: as x.

    Raises:
      TypeError: an array is not floating point, or groups no integer.
      ValueError: groups does not divide c, or scale or bias of another shape.

    Source: Wu and He 2018. PyTorch `group_norm` agrees; Flax's eps is 1e-6.

    Example:
      >>> group_norm(jnp.array([[1., 3., 10., 30.]]), None, None, 2).round(4)
      Array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    if jnp.ndim(x) < 2:
        raise ValueError(f"group_norm: x must have shape (n, *spatial, c), got {jnp.shape(x)}")
    groups = as_int(groups, "group_norm: groups", 1)
    if x.shape[-1] % groups:
        raise ValueError(f"group_norm: groups {groups} must divide the {x.shape[-1]} channels")
    return _group_norm(x, scale, bias, groups, eps, "group_norm")


def instance_norm(x: Array, scale: Array | None, bias: Array | None, *, eps: float = 1e-5) -> Array:
    """Normalise each channel of each example over its positions.

    Shapes:
      x: (n, *spatial, c), at least one spatial axis.
      scale, bias: (c,) or None (1 and 0).
      result: as x.

    Raises:
      TypeError: an array is not floating point.
      ValueError: x has no spatial axis, or scale or bias of another shape.

    Source: Ulyanov et al. 2016. PyTorch `instance_norm` agrees (it has no scale or bias unless
    `affine=True`).

    Example:
      >>> instance_norm(jnp.array([1., 3.]).reshape(1, 2, 1), None, None).round(4).reshape(2)
      Array([-1.,  1.], dtype=float32)
    """
    check_rank(x, (3, 4, 5), "instance_norm: x", "(n, *spatial, c) with 1 to 3 spatial axes")
    return _group_norm(x, scale, bias, x.shape[-1], eps, "instance_norm")


def local_response_norm(
    x: Array, *, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> Array:
    """Divide each value by a power of the energy of its neighbours among the channels.

        y[c] = x[c] / (k + alpha * sum over j of x[j]^2)^beta,
        j from c - size//2 to c + (size - 1)//2, as far as there are such channels

    Shapes:
      x: (..., c); result: as x.

    Raises:
      TypeError: x is not floating point, or size no integer.
      ValueError: size below 1, or k not above 0 (a power of 0 has no gradient).

    Source: Krizhevsky et al. 2012 (AlexNet), whose constants are the defaults. PyTorch divides
    alpha by size: there `LocalResponseNorm(size, alpha*size, beta, k)` is this function.

    Example:
      >>> x = jnp.array([[2., 0., 2.]])
      >>> local_response_norm(x, size=3, k=4.0, alpha=1.0, beta=1.0)
      Array([[0.25, 0.  , 0.25]], dtype=float32)
    """
    if jnp.ndim(x) < 1:
        raise ValueError("local_response_norm: x must have shape (..., c), got ()")
    check_floating(x, "local_response_norm: x")
    size = as_int(size, "local_response_norm: size", 1)
    if not k > 0:
        raise ValueError(f"local_response_norm: k must be above 0, got {k}")
    x = jnp.asarray(x)
    wide = _wide(x)
    ones = (1,) * (x.ndim - 1)
    sides = ((0, 0),) * (x.ndim - 1) + ((size // 2, (size - 1) // 2),)
    energy = lax.reduce_window(wide * wide, 0.0, lax.add, (*ones, size), (*ones, 1), sides)
    return (wide * (k + alpha * energy) ** -beta).astype(x.dtype)
