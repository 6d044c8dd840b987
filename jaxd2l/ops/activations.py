"""Activation functions. All but `rbf`, `maxout` and the softmaxes act on each element alone.

Every one keeps the dtype and refuses integers. What `jax.nn` does well is called, not copied.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating
from jaxd2l.ops.softmax import log_softmax, softmax

Array = jax.Array


def identity(x: Array) -> Array:
    """f(x) = x: a stack of linear layers with it is one linear layer.

    Shapes:
      x: any shape; returned as it is.

    Source: D2L 5.1.1.

    Example:
      >>> print(identity(jnp.array([-1.0, 2.0])))
      [-1.  2.]
    """
    return x


def sigmoid(x: Array) -> Array:
    """Logistic function 1 / (1 + exp(-x)).

    Its derivative s(1 - s) is at most 1/4, so it vanishes through deep stacks. On paper it never
    reaches 0 or 1; in float32 it is exactly 1 from x = 17 and 0 from -104 (-88 where subnormal
    numbers are flushed, as on CPUs), so losses take logits.

    Shapes:
      x: any shape; returns the same shape and dtype.

    Raises:
      TypeError: x is not floating point.

    Source: D2L 5.1.2.2; equal to torch.sigmoid.

    Example:
      >>> print(sigmoid(jnp.array([-200.0, 0.0, 200.0])))
      [0.  0.5 1. ]
    """
    check_floating(x, "sigmoid: x")
    return jax.nn.sigmoid(x)


def tanh(x: Array) -> Array:
    """Hyperbolic tangent (1 - exp(-2x)) / (1 + exp(-2x)) = 2 sigmoid(2x) - 1.

    Zero-centred, derivative 1 - tanh^2 at most 1. The printed formula is right but overflows to
    NaN below x = -44 in float32; this does not.

    Shapes:
      x: any shape; returns the same shape and dtype.

    Raises:
      TypeError: x is not floating point.

    Source: D2L 5.1.2.3; equal to torch.tanh.

    Example:
      >>> print(tanh(jnp.array([-100.0, 0.0, 100.0])))
      [-1.  0.  1.]
    """
    check_floating(x, "tanh: x")
    return jnp.tanh(x)


def relu(x: Array) -> Array:
    """max(0, x). The derivative is 1 for x > 0 and 0 otherwise, also at 0.

    Shapes:
      x: any shape; returns the same shape and dtype.

    Raises:
      TypeError: x is not floating point.

    Source: Nair and Hinton 2010; D2L 5.1.2.1; equal to torch.relu.

    Example:
      >>> print(relu(jnp.array([-1.0, 0.0, 2.0])))
      [0. 0. 2.]
    """
    check_floating(x, "relu: x")
    return jax.nn.relu(x)


def relu6(x: Array) -> Array:
    """min(max(0, x), 6): bounded, so that few bits hold it. The derivative is 0 at 0 and at 6.

    Shapes:
      x: any shape; returns the same shape and dtype.

    Raises:
      TypeError: x is not floating point.

    Source: Krizhevsky 2010; Howard et al. 2017; equal to torch.nn.ReLU6.

    Example:
      >>> print(relu6(jnp.array([-1.0, 2.0, 8.0])))
      [0. 2. 6.]
    """
    check_floating(x, "relu6: x")
    return jax.nn.relu6(x)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), a smooth ReLU whose derivative is the sigmoid.

    max(0, x) <= softplus(x) <= max(0, x) + log 2, and softplus(x) - softplus(-x) = x.

    Shapes:
      x: any shape; returns the same shape and dtype.

    Raises:
      TypeError: x is not floating point.

    Source: Dugas et al. 2001. torch.nn.Softplus returns x itself above 20 (the difference is at
    most 2.1e-9).

    Example:
      >>> print(f"{softplus(jnp.array(0.0)):.4f} {softplus(jnp.array(200.0)):.4f}")
      0.6931 200.0000
    """
    check_floating(x, "softplus: x")
    return jax.nn.softplus(x)


def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    """x for x > 0, slope * x otherwise: no unit dies for good. The derivative at 0 is `slope`.

    Shapes:
      x: any shape; returns the same shape and dtype.

    Raises:
      TypeError: x is not floating point.

    Source: Maas et al. 2013; equal to torch.nn.LeakyReLU (jax.nn.leaky_relu
    has derivative 1 at 0).

    Example:
      >>> print(leaky_relu(jnp.array([-2.0, 0.0, 2.0])))
      [-0.02  0.    2.  ]
    """
    check_floating(x, "leaky_relu: x")
    return jnp.where(x > 0, x, slope * x)


def prelu(x: Array, slope: Array) -> Array:
    """Leaky ReLU with a learned slope: x for x > 0, slope * x otherwise.

    Shapes:
      x: (..., c).
      slope: () for one slope, or (c,) for one a channel; the same dtype as x.
      returns: the shape and dtype of x.

    Raises:
      TypeError: x is not floating point.
      ValueError: the slope is neither a scalar nor one number a channel.

    Source: He et al. 2015. torch.nn.PReLU has its channels on axis 1; initial slope there 0.25.

    Example:
      >>> print(prelu(jnp.array([[-2.0, -2.0]]), jnp.array([0.25, 0.5])))
      [[-0.5 -1. ]]
    """
    check_floating(x, "prelu: x")
    return jnp.where(x > 0, x, _per_channel(slope, x, "prelu: slope") * x)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Exponential linear unit: x for x > 0, alpha (exp(x) - 1) otherwise.

    Shapes:
      x: any shape; returns the same shape and dtype.

    Raises:
      TypeError: x is not floating point.

    Source: Clevert et al. 2015; equal to torch.nn.ELU.

    Example:
      >>> print(elu(jnp.array([-100.0, 0.0, 2.0])))
      [-1.  0.  2.]
    """
    check_floating(x, "elu: x")
    return jax.nn.elu(x, alpha)


def selu(x: Array) -> Array:
    """Self-normalising unit lambda * elu(x, alpha), lambda = 1.0507, alpha = 1.6733.

    The constants make mean 0 and variance 1 a fixed point of a layer with weights of variance
    1 / fan_in (`jaxd2l.ops.initializers.LecunNormal`).

    Shapes:
      x: any shape; returns the same shape and dtype.

    Raises:
      TypeError: x is not floating point.

    Source: Klambauer et al. 2017; equal to torch.nn.SELU.

    Example:
      >>> print(f"{selu(jnp.array(1.0)):.4f} {selu(jnp.array(-100.0)):.4f}")
      1.0507 -1.7581
    """
    check_floating(x, "selu: x")
    return jax.nn.selu(x)


def swish(x: Array, beta: float | Array = 1.0) -> Array:
    """x * sigmoid(beta x); with beta = 1 it is SiLU. Beta may be learned.

    Shapes:
      x: (..., c).
      beta: a number, () or (c,).
      returns: the shape and dtype of x.

    Raises:
      TypeError: x is not floating point.
      ValueError: beta is neither a scalar nor one number a channel.

    Source: Ramachandran et al. 2017; with beta = 1 equal to torch.nn.SiLU.

    Example:
      >>> print(f"{swish(jnp.array(1.0)):.4f}")
      0.7311
    """
    check_floating(x, "swish: x")
    if isinstance(beta, int | float):
        return x * jax.nn.sigmoid(beta * x)
    return x * jax.nn.sigmoid(_per_channel(beta, x, "swish: beta") * x)


def gelu(x: Array, approximate: bool = False) -> Array:
    """x * Phi(x), Phi the normal distribution function; exact unless `approximate`.

    The approximation is x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), within 5e-4 of it.

    Shapes:
      x: any shape; returns the same shape and dtype.

    Raises:
      TypeError: x is not floating point.

    Source: Hendrycks and Gimpel 2016; the default is torch.nn.GELU's (jax.nn.gelu and Flax
    approximate by default).

    Example:
      >>> print(f"{gelu(jnp.array(1.0)):.4f}")
      0.8413
    """
    check_floating(x, "gelu: x")
    return jax.nn.gelu(x, approximate=approximate)


def maxout(x: Array, pieces: int) -> Array:
    """The largest of `pieces` neighbouring features: a learned convex piecewise-linear unit.

    y[..., u] = max_j x[..., u * pieces + j]. With two pieces and weights (w, 0) it is ReLU, with
    (w, 0.01 w) leaky ReLU; the layer before it has `pieces` times the parameters.

    Shapes:
      x: (..., units * pieces).
      returns: (..., units).

    Raises:
      TypeError: x is not floating point.
      ValueError: `pieces` is below 1 or does not divide the number of features.

    Source: Goodfellow et al. 2013.

    Example:
      >>> print(maxout(jnp.array([1.0, 2.0, 5.0, 4.0]), 2))
      [2. 5.]
    """
    check_floating(x, "maxout: x")
    if jnp.ndim(x) == 0:
        raise ValueError("maxout: x must have shape (..., units * pieces), got ()")
    features = x.shape[-1]
    if pieces < 1 or features % pieces:
        raise ValueError(
            f"maxout: pieces must be at least 1 and divide the {features} features of x, "
            f"got {pieces}"
        )
    return jnp.max(x.reshape((*x.shape[:-1], features // pieces, pieces)), axis=-1)


def rbf(x: Array, centres: Array, sigma: float | Array = 1.0) -> Array:
    """Radial basis units: exp(-|x - c|^2 / (2 sigma^2)), one for each centre.

    Shapes:
      x: (..., d).
      centres: (k, d), or (d,) for one unit.
      sigma: a number, () or (k,); above 0.
      returns: (..., k), or (...) for one unit.

    Raises:
      TypeError: x is not floating point.
      ValueError: the centres have another width than x, or sigma is not one number or one a centre.

    Source: Broomhead and Lowe 1988; the output layer of LeCun et al. 1998.

    Example:
      >>> at_centre, away = rbf(jnp.zeros(2), jnp.array([[0.0, 0.0], [3.0, 4.0]]), sigma=5.0)
      >>> print(f"{at_centre:.4f} {away:.4f}")
      1.0000 0.6065
    """
    check_floating(x, "rbf: x")
    if jnp.ndim(x) == 0 or jnp.ndim(centres) not in (1, 2) or centres.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"rbf: centres must have shape (k, d) or (d,) for x of shape (..., d), "
            f"got {tuple(jnp.shape(centres))} and {tuple(jnp.shape(x))}"
        )
    single = jnp.ndim(centres) == 1
    table = centres.reshape((1,) * (x.ndim - 1) + (-1, x.shape[-1]))  # (1, ..., 1, k, d)
    squares = jnp.sum(jnp.square(x[..., None, :] - table), axis=-1)  # (..., k)
    if not isinstance(sigma, int | float):
        sigma = _per_channel(sigma, squares, "rbf: sigma")
    y = jnp.exp(-squares / (2 * sigma * sigma))
    return y[..., 0] if single else y


def gumbel_softmax(key: Array, logits: Array, temperature: float | Array, axis: int = -1) -> Array:
    """A differentiable near-sample of a categorical: softmax((logits + g) / temperature).

    g = -log(-log u), u uniform. argmax(logits + g) is an exact sample of softmax(logits); the
    result tends to that one-hot vector as the temperature tends to 0, and to uniform as it grows.

    Shapes:
      key: a random key.
      logits: any shape, the classes on `axis`.
      temperature: a number or (); above 0.
      returns: the shape and dtype of logits.

    Raises:
      TypeError: logits are not floating point.
      ValueError: a temperature given as a number is not above 0.

    Source: Jang et al. 2016, Maddison et al. 2016. torch.nn.functional.gumbel_softmax also has a
    straight-through form.

    Example:
      >>> y = gumbel_softmax(jax.random.key(0), jnp.zeros((2, 3)), 0.5)
      >>> print(y.shape, y.sum(-1).round(5))
      (2, 3) [1. 1.]
    """
    check_floating(logits, "gumbel_softmax: logits")
    if isinstance(temperature, int | float) and not temperature > 0:
        raise ValueError(f"gumbel_softmax: temperature must be above 0, got {temperature}")
    half = jnp.finfo(logits.dtype).bits < 32  # noise drawn in half precision has too few values
    wide = jnp.float32 if half else logits.dtype
    noise = jax.random.gumbel(key, logits.shape, wide).astype(logits.dtype)
    return softmax((logits + noise) / temperature, axis=axis)


def _per_channel(value: Array, x: Array, what: str) -> Array:
    """`value`, a scalar or (c,), with the rank of `x` (..., c)."""
    shape = tuple(jnp.shape(value))
    if shape == ():
        return jnp.asarray(value)
    if jnp.ndim(x) == 0 or shape != (x.shape[-1],):
        raise ValueError(
            f"{what} must be a scalar or have one number for each of the last axis of "
            f"{tuple(jnp.shape(x))}, got shape {shape}"
        )
    return jnp.reshape(value, (1,) * (x.ndim - 1) + shape)


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "elu": elu,
        "gelu": gelu,
        "identity": identity,
        "leaky_relu": leaky_relu,
        "log_softmax": log_softmax,
        "relu": relu,
        "relu6": relu6,
        "selu": selu,
        "sigmoid": sigmoid,
        "softmax": softmax,
        "softplus": softplus,
        "swish": swish,
        "tanh": tanh,
    }
)
"""The activations without parameters by name; the two softmaxes act along the last axis."""
