"""Normalisation layers."""

import dataclasses
import math
from typing import Any, ClassVar

from jaxd2l.geometry import Window, as_int
from jaxd2l.layers.core import (
    Array,
    Context,
    Layer,
    Parameter,
    Params,
    Shape,
    State,
    check_flags,
    check_name,
    per_position,
)
from jaxd2l.ops import initializers, normalization
from jaxd2l.records import as_float, record

ZERO = initializers.Constant(0.0)
ONE = initializers.Constant(1.0)


def _affine(shape: Shape, scale: bool, bias: bool) -> dict[str, Parameter]:
    out = {}
    if scale:
        out["scale"] = Parameter(shape, ONE)
    if bias:
        out["bias"] = Parameter(shape, ZERO)
    return out


def _check_affine(owner: Any) -> None:
    check_flags(owner, "scale", "bias")
    _float(owner, "eps", 0)


def _float(owner: Any, field: str, minimum: float = -math.inf, maximum: float = math.inf) -> None:
    what = f"{type(owner).__name__}: {field}"
    object.__setattr__(owner, field, as_float(getattr(owner, field), what, minimum, maximum))


def _channels(owner: Layer, input_shape: Shape) -> int:
    if not input_shape:
        raise ValueError(f"{type(owner).__name__}: the input needs a feature axis, got shape ()")
    return input_shape[-1]


@record
class BatchNorm(Layer):
    """Per channel: y = scale * (x - mean) / sqrt(var + eps) + bias.

    In training mean and var are the batch's, over all axes but the last; otherwise the running
    ones, which a training pass updates as new = decay * old + (1 - decay) * batch. `unbiased=True`
    makes the running variance PyTorch's (the batch's n / (n - 1) one). A training batch of one
    example without positions gives `bias` only: nothing can be learnt from it.

    `axis_name`: in `pmap` or `shard_map`, statistics over all devices of that axis.

    Shapes: x (n, ..., c); scale, bias, mean, var (c,).

    Source: Ioffe and Szegedy 2015; D2L 8.5. PyTorch's momentum 0.1 is decay 0.9.

    Example:
      >>> sorted(BatchNorm("bn").statistics((14, 14, 6)))
      ['mean', 'var']
    """

    name: str
    decay: float = 0.9
    eps: float = 1e-5
    scale: bool = True
    bias: bool = True
    unbiased: bool = False
    axis_name: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "BatchNorm")
        _check_affine(self)
        check_flags(self, "unbiased")
        _float(self, "decay", 0, 1)

    def output_shape(self, input_shape: Shape) -> Shape:
        _channels(self, input_shape)
        return input_shape

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return _affine(input_shape[-1:], self.scale, self.bias)

    def statistics(self, input_shape: Shape) -> dict[str, Parameter]:
        return {"mean": Parameter(input_shape[-1:], ZERO), "var": Parameter(input_shape[-1:], ONE)}

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y, (mean, var) = normalization.batch_norm(
            x,
            params.get("scale"),
            params.get("bias"),
            state["mean"],
            state["var"],
            train=context.train,
            decay=self.decay,
            eps=self.eps,
            unbiased=self.unbiased,
            mask=context.mask,
            axis_name=self.axis_name,
        )
        return y, {"mean": mean, "var": var}

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()  # by itself; in training it also sees the whole batch


@record
class FixedBatchNorm(BatchNorm):
    """A batch norm that uses its running statistics in training as well, and keeps them: that of a
    frozen part of a network. `train.fix_statistics` puts it in the place of a `BatchNorm`; scale
    and bias are trained or not as the optimiser says.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxd2l import apply
      >>> statistics = {"bn": {"mean": jnp.ones(1), "var": jnp.full(1, 4.0)}}
      >>> net = FixedBatchNorm("bn", eps=0.0, scale=False, bias=False)
      >>> y, new = apply(net, {}, statistics, jnp.array([[5.0], [1.0]]), train=True)
      >>> y.ravel().tolist(), new == statistics
      ([2.0, 0.0], True)
    """

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return super().apply(params, state, x, dataclasses.replace(context, train=False))


@record
class LayerNorm(Layer):
    """Each example by itself: over the last `axes` axes (1: the features; 3: h, w and c).

    Source: Ba et al. 2016; D2L 11.7. PyTorch's eps is 1e-5 as here, Flax's 1e-6.

    Example:
      >>> LayerNorm("ln").parameters((35, 64))["scale"].shape
      (64,)
    """

    name: str
    axes: int = 1
    eps: float = 1e-5
    scale: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        check_name(self.name, "LayerNorm")
        _check_affine(self)
        object.__setattr__(self, "axes", as_int(self.axes, "LayerNorm: axes", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) < self.axes:
            raise ValueError(
                f"LayerNorm {self.name!r}: axes={self.axes}, but the input shape is {input_shape}"
            )
        return input_shape

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return _affine(input_shape[-self.axes :], self.scale, self.bias)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        axes = tuple(range(-self.axes, 0))
        y = normalization.layer_norm(
            x, params.get("scale"), params.get("bias"), axes=axes, eps=self.eps
        )
        return y, state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return per_position(input_shape) if self.axes == 1 else None


@record
class GroupNorm(Layer):
    """Each example by itself: over the positions and the channels of each group.

    One group is layer norm over (h, w, c), one channel a group is instance norm.

    Source: Wu and He 2018.

    Example:
      >>> GroupNorm("gn", 4).output_shape((8, 8, 16))
      (8, 8, 16)
    """

    name: str
    groups: int
    eps: float = 1e-5
    scale: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        check_name(self.name, "GroupNorm")
        _check_affine(self)
        object.__setattr__(self, "groups", as_int(self.groups, "GroupNorm: groups", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        channels = _channels(self, input_shape)
        if channels % self.groups:
            raise ValueError(
                f"GroupNorm {self.name!r}: groups={self.groups} must divide the {channels} channels"
            )
        return input_shape

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return _affine(input_shape[-1:], self.scale, self.bias)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = normalization.group_norm(
            x, params.get("scale"), params.get("bias"), self.groups, eps=self.eps
        )
        return y, state


@record
class InstanceNorm(Layer):
    """Each channel of each example by itself, over its positions.

    Source: Ulyanov et al. 2016. PyTorch's has no scale and bias unless asked (affine=True).

    Example:
      >>> InstanceNorm("in").output_shape((8, 8, 16))
      (8, 8, 16)
    """

    name: str
    eps: float = 1e-5
    scale: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        check_name(self.name, "InstanceNorm")
        _check_affine(self)

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return _affine(input_shape[-1:], self.scale, self.bias)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = normalization.instance_norm(x, params.get("scale"), params.get("bias"), eps=self.eps)
        return y, state


@record
class LocalResponseNorm(Layer):
    """y_i = x_i / (k + alpha * sum of x_j^2 over `size` neighbouring channels)^beta.

    Source: Krizhevsky et al. 2012, with that paper's constants. PyTorch divides alpha by size.

    Example:
      >>> LocalResponseNorm().output_shape((8, 8, 16))
      (8, 8, 16)
    """

    label: ClassVar[str] = "local_response_norm"
    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", as_int(self.size, "LocalResponseNorm: size", 1))
        for field in ("k", "alpha", "beta"):
            _float(self, field)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = normalization.local_response_norm(
            x, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta
        )
        return y, state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return per_position(input_shape)
