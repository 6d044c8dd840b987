"""Dense layers and their relatives."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxd2l.geometry import Window, as_int
from jaxd2l.layers.core import (
    Array,
    Context,
    Initializer,
    Layer,
    Parameter,
    Params,
    Shape,
    State,
    check_flags,
    check_initializers,
    check_name,
    fold_path,
    per_position,
)
from jaxd2l.ops import activations, initializers, linear
from jaxd2l.records import as_float, is_record, record

ZERO = initializers.Constant(0.0)


def _features(input_shape: Shape, owner: str) -> int:
    if not input_shape:
        raise ValueError(f"{owner}: the input needs a feature axis, got the shape ()")
    return input_shape[-1]


def _positions(input_shape: Shape) -> int:
    return math.prod(input_shape[:-1])


@record
class Dense(Layer):
    """y = x W + b over the last axis.

    Shapes: x (n, ..., in), kernel (in, features), bias (features,).

    Source: D2L 3.1. PyTorch's Linear stores W transposed; Flax's Dense stores it as here.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(Dense("hidden", 120), (400,))
      (120,)
    """

    name: str
    features: int
    bias: bool = True
    kernel_init: Initializer = initializers.XavierUniform()
    bias_init: Initializer = ZERO

    def __post_init__(self) -> None:
        check_name(self.name, "Dense")
        check_flags(self, "bias")
        check_initializers(self, "kernel_init", "bias_init")
        object.__setattr__(self, "features", as_int(self.features, "Dense: features", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        _features(input_shape, "Dense")
        return (*input_shape[:-1], self.features)

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        shape = (_features(input_shape, "Dense"), self.features)
        bias = {"bias": Parameter((self.features,), self.bias_init, shape)} if self.bias else {}
        return {"kernel": Parameter(shape, self.kernel_init), **bias}

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return linear.dense(x, params["kernel"], params.get("bias")), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return per_position(input_shape)

    def macs(self, input_shape: Shape) -> int:
        return _positions(input_shape) * input_shape[-1] * self.features


@record
class CosineDense(Layer):
    """The cosine of the angle between x and each column of W: bounded, blind to magnitudes.

    Shapes: x (n, ..., in), kernel (in, features). Source: Luo et al. 2017, cosine normalisation.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(CosineDense("cosine", 7), (3,))
      (7,)
    """

    name: str
    features: int
    kernel_init: Initializer = initializers.XavierUniform()

    def __post_init__(self) -> None:
        check_name(self.name, "CosineDense")
        check_initializers(self, "kernel_init")
        object.__setattr__(self, "features", as_int(self.features, "CosineDense: features", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        _features(input_shape, "CosineDense")
        return (*input_shape[:-1], self.features)

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return {"kernel": Parameter((input_shape[-1], self.features), self.kernel_init)}

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return linear.cosine_dense(x, params["kernel"]), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return per_position(input_shape)

    def macs(self, input_shape: Shape) -> int:
        return _positions(input_shape) * input_shape[-1] * self.features


@record
class ConstantDense(Layer):
    """y = x W with a fixed random W in [0, 1), drawn from `seed` and never trained.

    W is made anew from the record in every trace, so it is no parameter and no state.

    Source: D2L 6.1.3 (constant parameters).

    Example:
      >>> from jaxd2l import init
      >>> init(ConstantDense(20, seed=1), jax.random.key(0), (20,))
      ({}, {})
    """

    label: ClassVar[str] = "constant_dense"
    features: int
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", as_int(self.features, "ConstantDense: features", 1))
        object.__setattr__(self, "seed", as_int(self.seed, "ConstantDense: seed", 0))

    def output_shape(self, input_shape: Shape) -> Shape:
        _features(input_shape, "ConstantDense")
        return (*input_shape[:-1], self.features)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        kernel = jax.random.uniform(
            jax.random.key(self.seed), (x.shape[-1], self.features), jnp.float32
        )
        return linear.dense(x, kernel.astype(x.dtype)), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return per_position(input_shape)

    def macs(self, input_shape: Shape) -> int:
        return _positions(input_shape) * input_shape[-1] * self.features


@record
class Maxout(Layer):
    """The largest of `pieces` affine maps: y_j = max_k (x W_jk + b_jk).

    Shapes: x (n, ..., in), kernel (in, features * pieces), bias (features * pieces,).
    Source: Goodfellow et al. 2013. With two pieces it contains ReLU and leaky ReLU.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(Maxout("maxout", 10, pieces=3), (4,))
      (10,)
    """

    name: str
    features: int
    pieces: int = 2
    kernel_init: Initializer = initializers.XavierUniform()
    bias_init: Initializer = ZERO

    def __post_init__(self) -> None:
        check_name(self.name, "Maxout")
        check_initializers(self, "kernel_init", "bias_init")
        object.__setattr__(self, "features", as_int(self.features, "Maxout: features", 1))
        object.__setattr__(self, "pieces", as_int(self.pieces, "Maxout: pieces", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        _features(input_shape, "Maxout")
        return (*input_shape[:-1], self.features)

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        fan_in, total = input_shape[-1], self.features * self.pieces
        fan = (fan_in, self.features)
        return {
            "kernel": Parameter((fan_in, total), self.kernel_init, fan),
            "bias": Parameter((total,), self.bias_init, fan),
        }

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = linear.dense(x, params["kernel"], params["bias"])
        return activations.maxout(y, self.pieces), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return per_position(input_shape)

    def macs(self, input_shape: Shape) -> int:
        return _positions(input_shape) * input_shape[-1] * self.features * self.pieces


@record
class PReLU(Layer):
    """max(0, x) + slope * min(0, x) with one learned slope per feature.

    Shapes: x (n, ..., c), slope (c,). Source: He et al. 2015. PyTorch's default is one slope in
    all, and starts at 0.25 as here.

    Example:
      >>> PReLU("prelu").parameters((4, 4, 3))["slope"].shape
      (3,)
    """

    name: str
    slope_init: Initializer = initializers.Constant(0.25)

    def __post_init__(self) -> None:
        check_name(self.name, "PReLU")
        check_initializers(self, "slope_init")

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return {"slope": Parameter((_features(input_shape, "PReLU"),), self.slope_init)}

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return activations.prelu(x, params["slope"]), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()


@record
class RBF(Layer):
    """Radial basis units: y_j = exp(-|x - c_j|^2 / (2 sigma^2)), with a learned centre each.

    Shapes: x (n, ..., in), centres (features, in).

    Source: Broomhead and Lowe 1988; the output layer of LeCun et al. 1998.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(RBF("rbf", 10, sigma=2.0), (84,))
      (10,)
    """

    name: str
    features: int
    sigma: float = 1.0
    centres_init: Initializer = initializers.Normal(1.0)

    def __post_init__(self) -> None:
        check_name(self.name, "RBF")
        check_initializers(self, "centres_init")
        object.__setattr__(self, "features", as_int(self.features, "RBF: features", 1))
        object.__setattr__(self, "sigma", as_float(self.sigma, "RBF: sigma", 0))
        if self.sigma == 0:
            raise ValueError(f"RBF {self.name!r}: sigma must be above 0, got 0")

    def output_shape(self, input_shape: Shape) -> Shape:
        _features(input_shape, "RBF")
        return (*input_shape[:-1], self.features)

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        shape = (self.features, input_shape[-1])
        return {"centres": Parameter(shape, self.centres_init, (shape[1], shape[0]))}

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return activations.rbf(x, params["centres"], self.sigma), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return per_position(input_shape)

    def macs(self, input_shape: Shape) -> int:
        return _positions(input_shape) * input_shape[-1] * self.features


@record
class Embedding(Layer):
    """Rows of a table by index: (n, ...) integers -> (n, ..., features).

    Indices out of range cannot raise on the device (JAX clamps them): check them on the host
    with `jaxd2l.ops.linear.check_tokens`.

    Shapes: embedding (size, features). Source: D2L 15.4.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(Embedding("words", 1000, 64), (35,))
      (35, 64)
    """

    name: str
    size: int
    features: int
    embedding_init: Initializer = initializers.Normal(1.0)

    def __post_init__(self) -> None:
        check_name(self.name, "Embedding")
        check_initializers(self, "embedding_init")
        object.__setattr__(self, "size", as_int(self.size, "Embedding: size", 1))
        object.__setattr__(self, "features", as_int(self.features, "Embedding: features", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.features)

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        shape = (self.size, self.features)
        return {"embedding": Parameter(shape, self.embedding_init)}

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return linear.embedding(x, params["embedding"]), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()


@record
class WeightNorm(Layer):
    """A layer whose kernel is g * v / |v|: direction and length are trained apart.

    `layer` is any layer with a `kernel` (Dense, Conv, ...); its kernel becomes `direction` (same
    shape) and `scale` (one length per output), which starts at |v|, so nothing changes at first.

    Source: Salimans and Kingma 2016. PyTorch calls them weight_v and weight_g.

    Example:
      >>> from jaxd2l import init
      >>> params, _ = init(WeightNorm(Dense("head", 2)), jax.random.key(0), (3,))
      >>> sorted(params["head"])
      ['bias', 'direction', 'scale']
    """

    layer: Layer

    def __post_init__(self) -> None:
        if not is_record(self.layer) or not isinstance(self.layer, Layer) or not self.layer.name:
            raise TypeError(f"WeightNorm: expected a named layer, got {self.layer!r}")

    @property
    def name(self) -> str:  # type: ignore[override]
        return str(self.layer.name)

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.layer.output_shape(input_shape)

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        declared = dict(self.layer.parameters(input_shape))
        if "kernel" not in declared:
            raise ValueError(f"WeightNorm: {self.layer!r} has no kernel")
        kernel = declared.pop("kernel")
        scale = Parameter(kernel.shape[-1:], initializers.Constant(1.0))
        return {"direction": kernel, "scale": scale, **declared}

    def statistics(self, input_shape: Shape) -> dict[str, Parameter]:
        return self.layer.statistics(input_shape)

    def init(self, key: Array, input_shape: Shape, dtype: object) -> tuple[Params, State]:
        params, state = super().init(key, input_shape, dtype)
        kernel = self.parameters(input_shape)["direction"]
        # drawn with the key of the kernel it stands for
        params["direction"] = direction = kernel.draw(fold_path(key, ("kernel",)), dtype)
        params["scale"] = jnp.sqrt(jnp.sum(direction**2, axis=tuple(range(direction.ndim - 1))))
        return params, state

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        inner = {k: v for k, v in params.items() if k not in ("direction", "scale")}
        inner["kernel"] = linear.weight_norm(params["direction"], params["scale"])
        return self.layer.apply(inner, state, x, context)

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return self.layer.windows(input_shape)

    def macs(self, input_shape: Shape) -> int | None:
        return self.layer.macs(input_shape)
