"""Convolution as a bilinear primitive that is closed under transposition.

`bilinear_conv(x, w)` is `lax.conv_general_dilated` with channels last, and one thing more: its
gradients are again convolutions with channels last. XLA on CPU gives such convolutions to a fast
library everywhere, but the permuted ones that differentiating `lax.conv_general_dilated` makes
only outside of loops: inside `lax.scan` or `lax.cond` a training step of two 3x3 convolutions
takes ten to forty times longer. Because the primitive is linear in each argument and its two
transposes are the primitive itself, every composition of jvp, vjp and vmap works.

With the input spread by d = lhs_dilation and padded by (lo, hi), the kernel spread by r =
rhs_dilation and moved by s = window_strides,

    y[i] = sum_j x_d[i*s + j*r - lo] w[j],      y (n, *out, o), x (n, *space, c), w (*k, c/g, o)

    dx[m] = sum_j' g_s[m*d + j'*r - (r*(k-1) - lo)] w[k-1-j']     s and d change places
    dw[j] = sum_i x_d[j*r + i*s - lo] g[i]                        s and r change places
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

Array = jax.Array

conv_p = jax.extend.core.Primitive("conv")


def _dilated(size: int, dilation: int) -> int:
    return (size - 1) * dilation + 1 if size else 0


def _front(x: Array, axis: int | None) -> Array:
    assert axis is not None
    return x.transpose(axis, *(i for i in range(x.ndim) if i != axis)) if axis else x


def _varying(x: Array) -> frozenset[str]:
    """The mesh axes over which `x` differs, inside a shard_map that tracks them."""
    aval = jax.typeof(x)
    kind = getattr(aval, "mat", None)  # jax 0.10.2 and later
    return kind.varying if kind is not None else getattr(aval, "vma", frozenset())


def _bind(x: Array, w: Array, **params: Any) -> Array:
    every = _varying(x) | _varying(w)
    if every:
        x, w = (
            lax.pcast(a, tuple(sorted(every - _varying(a))), to="varying")
            if every - _varying(a)
            else a
            for a in (x, w)
        )
    return conv_p.bind(x, w, **params)


def bilinear_conv(
    x: Array,
    w: Array,
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
) -> Array:
    """Cross-correlation of `x` (n, *space, c) with `w` (*k, c/groups, out), any number of axes.

    The arguments are those of `lax.conv_general_dilated`; padding may be negative. This is the
    inner function: it checks nothing. Use `jaxd2l.ops.conv`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, w = jnp.arange(4.0).reshape(1, 4, 1), jnp.ones((2, 1, 1))
      >>> bilinear_conv(x, w, window_strides=(1,), padding=((0, 0),)).ravel().tolist()
      [1.0, 3.0, 5.0]
    """
    ones = (1,) * len(window_strides)
    return _bind(
        x,
        w,
        window_strides=tuple(window_strides),
        padding=tuple((lo, hi) for lo, hi in padding),
        lhs_dilation=ones if lhs_dilation is None else tuple(lhs_dilation),
        rhs_dilation=ones if rhs_dilation is None else tuple(rhs_dilation),
        feature_group_count=feature_group_count,
        precision=jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        out_sharding=None,
    )


def _lax_conv(x: Array, w: Array, **params: Any) -> Array:
    last = x.ndim - 1
    spec = (0, last, *range(1, last))
    numbers = lax.ConvDimensionNumbers(spec, (last, last - 1, *range(last - 1)), spec)
    return lax.conv_general_dilated(x, w, dimension_numbers=numbers, **params)


_STATIC = (
    "window_strides",
    "padding",
    "lhs_dilation",
    "rhs_dilation",
    "feature_group_count",
    "precision",
    "out_sharding",
)


@conv_p.def_abstract_eval
def _abstract(x: Any, w: Any, *, precision: Any, **params: Any) -> Any:
    last = x.ndim - 1
    spec = (0, last, *range(1, last))
    out, _ = lax.conv_general_dilated_p.abstract_eval(
        x,
        w,
        dimension_numbers=lax.ConvDimensionNumbers(spec, (last, last - 1, *range(last - 1)), spec),
        batch_group_count=1,
        precision=None,
        preferred_element_type=None,
        **params,
    )
    return out


mlir.register_lowering(conv_p, mlir.lower_fun(_lax_conv, multiple_results=False))

# XLA on CPU is slow at grouped convolutions, so few groups become separate convolutions there.
# Milliseconds on two cores, grouped -> separate, forward and gradient of both arguments:
#   5 seeds by vmap, 5x5  1->6 @28 batch 64    9.4 -> 6.1     212 -> 18   (lax.map 6.4, 19)
#   5 seeds by vmap, 5x5 6->16 @14 batch 64    1.5 -> 1.5     6.9 -> 7.0  (lax.map 1.6, 8.0)
#   4 groups, 3x3 64->64 @28 batch 32          122 -> 8.6     173 -> 25
#   16 groups of the same                       50 -> 20      145 -> 45
# At 64 groups (depthwise) the two run alike, 46 and 48, and compiling takes many times longer.
_FEW_GROUPS = 16


def _cpu_conv(x: Array, w: Array, **params: Any) -> Array:
    groups = params["feature_group_count"]
    if not 1 < groups <= _FEW_GROUPS:
        return _lax_conv(x, w, **params)
    params["feature_group_count"] = 1
    xs = _front(x.reshape(*x.shape[:-1], groups, -1), x.ndim - 1)
    ws = _front(w.reshape(*w.shape[:-1], groups, -1), w.ndim - 1)
    y = jnp.stack([_lax_conv(xs[i], ws[i], **params) for i in range(groups)], axis=-2)
    return y.reshape(*y.shape[:-2], w.shape[-1])  # (n, *space, g, out/g) -> (n, *space, out)


mlir.register_lowering(conv_p, mlir.lower_fun(_cpu_conv, multiple_results=False), platform="cpu")


@partial(jax.jit, static_argnames=_STATIC)
def _compiled(x: Array, w: Array, **params: Any) -> Array:
    return conv_p.bind(x, w, **params)


@conv_p.def_impl
def _eager(x: Array, w: Array, **params: Any) -> Array:
    with jax.disable_jit(False):  # or the call would come back here without end
        return _compiled(x, w, **params)


# --- transposes -----------------------------------------------------------------------------


def swap_channels(w: Array, groups: int) -> Array:
    """`w` (*k, c/groups, out) with inputs and outputs exchanged within groups: (*k, out/groups, c).

    Example:
      >>> import jax.numpy as jnp
      >>> swap_channels(jnp.zeros((3, 3, 2, 6)), 2).shape
      (3, 3, 3, 4)
    """
    if groups == 1:
        return w.swapaxes(-1, -2)
    *k, inner, out = w.shape
    split = w.reshape(*k, inner, groups, out // groups)  # (*k, c/g, g, out/g)
    return split.swapaxes(-1, -3).reshape(*k, out // groups, groups * inner)  # (*k, out/g, c)


def _sharding_like(value: Any, order: Sequence[int]) -> NamedSharding | None:
    """The explicit sharding of an abstract value, its axes permuted; None where none is."""
    sharding = value.aval.sharding
    if all(entry is None for entry in sharding.spec) and not _explicit(sharding.mesh):
        return None
    return NamedSharding(sharding.mesh, PartitionSpec(*(sharding.spec[i] for i in order)))


def _explicit(mesh: Any) -> bool:
    return any(kind == jax.sharding.AxisType.Explicit for kind in mesh.axis_types)


def _transpose_x(
    g: Array,
    x: Any,
    w: Array,
    *,
    window_strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    lhs_dilation: tuple[int, ...],
    rhs_dilation: tuple[int, ...],
    feature_group_count: int,
    precision: Any,
    out_sharding: Any,
) -> Array:
    rank = len(window_strides)
    pads = []
    for axis in range(rank):
        size = _dilated(x.aval.shape[1 + axis], lhs_dilation[axis])
        kernel = _dilated(w.shape[axis], rhs_dilation[axis])
        grad = _dilated(g.shape[1 + axis], window_strides[axis])
        low = padding[axis][0]
        pads.append((kernel - 1 - low, size - grad + low))
    return _bind(
        g,
        swap_channels(lax.rev(w, tuple(range(rank))), feature_group_count),
        window_strides=lhs_dilation,
        padding=tuple(pads),
        lhs_dilation=window_strides,
        rhs_dilation=rhs_dilation,
        feature_group_count=feature_group_count,
        precision=precision,
        out_sharding=_sharding_like(x, range(rank + 2)),
    )


def _transpose_w(
    g: Array,
    x: Array,
    w: Any,
    *,
    window_strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    lhs_dilation: tuple[int, ...],
    rhs_dilation: tuple[int, ...],
    feature_group_count: int,
    precision: Any,
    out_sharding: Any,
) -> Array:
    rank = len(window_strides)
    axes = tuple(range(1, rank + 1))
    pads = []
    for axis in range(rank):
        size = _dilated(x.shape[1 + axis], lhs_dilation[axis])
        kernel = _dilated(w.aval.shape[axis], rhs_dilation[axis])
        grad = _dilated(g.shape[1 + axis], window_strides[axis])
        low = padding[axis][0]
        pads.append((low, kernel - 1 + grad - size - low))
    groups = feature_group_count
    if groups == 1:
        moved = x.transpose(rank + 1, *axes, 0)  # (c, *space, n)
    else:
        n, *space, c = x.shape
        split = x.reshape(n, *space, groups, c // groups)
        split = split.transpose(rank + 2, *axes, rank + 1, 0)  # (c/g, *space, g, n)
        moved = split.reshape(c // groups, *space, groups * n)
    out = _bind(
        moved,
        g.transpose(*axes, 0, rank + 1),  # (*out, n, o)
        window_strides=rhs_dilation,
        padding=tuple(pads),
        lhs_dilation=lhs_dilation,
        rhs_dilation=window_strides,
        feature_group_count=groups,
        precision=precision,
        out_sharding=_sharding_like(w, (rank, *range(rank), rank + 1)),
    )  # (c/g, *k, o)
    return out.transpose(*axes, 0, rank + 1)


ad.defbilinear(conv_p, _transpose_x, _transpose_w)


# --- batching -------------------------------------------------------------------------------


def _batch(args: Sequence[Array], dims: Sequence[int | None], **params: Any) -> tuple[Array, int]:
    (x, w), (x_dim, w_dim) = args, dims
    groups = params["feature_group_count"]
    if w_dim is None:
        x = _front(x, x_dim)
        b, n, *rest = x.shape
        out = _bind(x.reshape(b * n, *rest), w, **params)
        return out.reshape(b, n, *out.shape[1:]), 0
    w = _front(w, w_dim)
    b, *k, inner, o = w.shape
    w = w.reshape(b, *k, inner, groups, o // groups)
    if x_dim is None:  # the copies are further outputs of each group
        order = (*range(1, w.ndim - 1), 0, w.ndim - 1)
        out = _bind(x, w.transpose(order).reshape(*k, inner, groups * b * (o // groups)), **params)
        out = out.reshape(*out.shape[:-1], groups, b, o // groups)
        out = _front(out, out.ndim - 2)
        return out.reshape(*out.shape[:-2], o), 0
    # the copies are further groups
    x = _front(x, x_dim)
    n, *space, c = x.shape[1:]
    x = x.transpose(*range(1, x.ndim - 1), 0, x.ndim - 1).reshape(n, *space, b * c)
    w = w.reshape(b, *k, inner, o)
    w = w.transpose(*range(1, w.ndim - 1), 0, w.ndim - 1).reshape(*k, inner, b * o)
    out = _bind(x, w, **(params | {"feature_group_count": b * groups}))
    out = out.reshape(*out.shape[:-1], b, o)
    return _front(out, out.ndim - 2), 0


batching.primitive_batchers[conv_p] = _batch
