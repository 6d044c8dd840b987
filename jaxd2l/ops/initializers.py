"""Initialisers: records that make an array from a key.

Each is called as `init(key, shape, dtype=float32, fan=None)`. `fan` is (fan_in, fan_out), the
number of inputs and outputs of one unit; without it `fan_in_out(shape)` reads it off our layout.
Kernels must not all be equal: units that start equal get equal gradients and stay equal for ever.
Biases may be zero.
"""

import math
import numbers
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.ops.sampling import Array, Fan, Sampled, check_dtype, sample_dtype
from jaxd2l.records import record


class Initializer(Protocol):
    """What every initialiser here is, and what a user's own function must be."""

    def __call__(
        self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, fan: Fan | None = None
    ) -> Array: ...


def fan_in_out(shape: tuple[int, ...]) -> Fan:
    """(fan_in, fan_out) of a kernel (..., in, out): dense, convolution (HWIO) or grouped.

    fan_in = prod(shape[:-1]), fan_out = prod(shape[:-2]) * shape[-1].

    Raises:
      ValueError: fewer than two axes, or one of size 0: there is no fan to read off.

    Source: Glorot and Bengio 2010; D2L 5.4.2.

    Example:
      >>> fan_in_out((784, 256)), fan_in_out((3, 3, 16, 32))
      ((784, 256), (144, 288))
    """
    if len(shape) < 2 or any(size < 1 for size in shape):
        raise ValueError(
            f"fan_in_out: a kernel must have shape (..., in, out) with sizes from 1, "
            f"got {tuple(shape)}; give fan=(fan_in, fan_out)"
        )
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


@record
class Constant:
    """Every entry equal to `value`. Right for biases (0; 1 for an LSTM forget gate), not kernels.

    Source: D2L 3.4.1, 6.3.

    Example:
      >>> print(Constant(1.0)(jax.random.key(0), (3,)))
      [1. 1. 1.]
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        _finite(self, "value")

    def __call__(
        self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, fan: Fan | None = None
    ) -> Array:
        check_dtype(self, dtype)
        return jnp.full(shape, self.value, dtype)


@record
class Normal(Sampled):
    """Normal with mean 0. The default 0.01 suits shallow networks.

    Source: D2L 3.4.1, 6.3.

    Example:
      >>> Normal(0.1)(jax.random.key(0), (2, 3)).shape
      (2, 3)
    """

    sample: ClassVar[str] = "normal"

    std: float = 0.01

    def __post_init__(self) -> None:
        _finite(self, "std", minimum=0.0)

    def stretch(self, shape: tuple[int, ...], fan: Fan | None) -> tuple[float, float]:
        return 0.0, self.std


@record
class Uniform(Sampled):
    """Uniform on [low, high)."""

    sample: ClassVar[str] = "uniform"

    low: float
    high: float

    def __post_init__(self) -> None:
        _finite(self, "low")
        _finite(self, "high")
        if not self.low < self.high:
            raise ValueError(f"Uniform: low must be below high, got {self.low} and {self.high}")

    def stretch(self, shape: tuple[int, ...], fan: Fan | None) -> tuple[float, float]:
        return self.low, self.high - self.low


@record
class XavierUniform(Sampled):
    """Uniform on +-gain sqrt(6 / (fan_in + fan_out)): variance 2 gain^2 / (fan_in + fan_out).

    Source: Glorot and Bengio 2010; D2L 5.4.2; torch.nn.init.xavier_uniform_.
    """

    sample: ClassVar[str] = "uniform"

    gain: float = 1.0

    def __post_init__(self) -> None:
        _finite(self, "gain", minimum=0.0)

    def stretch(self, shape: tuple[int, ...], fan: Fan | None) -> tuple[float, float]:
        bound = self.gain * math.sqrt(6.0 / sum(_fan(self, shape, fan)))
        return -bound, 2 * bound


@record
class XavierNormal(Sampled):
    """Normal with variance 2 gain^2 / (fan_in + fan_out).

    Source: Glorot and Bengio 2010; D2L 5.4.2; torch.nn.init.xavier_normal_. Flax truncates the
    normal at two deviations; here it is whole.
    """

    sample: ClassVar[str] = "normal"

    gain: float = 1.0

    def __post_init__(self) -> None:
        _finite(self, "gain", minimum=0.0)

    def stretch(self, shape: tuple[int, ...], fan: Fan | None) -> tuple[float, float]:
        return 0.0, self.gain * math.sqrt(2.0 / sum(_fan(self, shape, fan)))


@record
class HeNormal(Sampled):
    """Normal with variance 2 / fan_in: keeps the size of activations through ReLU layers.

    Source: He et al. 2015; torch.nn.init.kaiming_normal_. Flax truncates the normal.
    """

    sample: ClassVar[str] = "normal"

    def stretch(self, shape: tuple[int, ...], fan: Fan | None) -> tuple[float, float]:
        return 0.0, math.sqrt(2.0 / _fan(self, shape, fan)[0])


@record
class HeUniform(Sampled):
    """Uniform on +-sqrt(6 / fan_in): variance 2 / fan_in.

    Source: He et al. 2015; torch.nn.init.kaiming_uniform_ with its default a = 0.
    """

    sample: ClassVar[str] = "uniform"

    def stretch(self, shape: tuple[int, ...], fan: Fan | None) -> tuple[float, float]:
        bound = math.sqrt(6.0 / _fan(self, shape, fan)[0])
        return -bound, 2 * bound


@record
class LecunNormal(Sampled):
    """Normal with standard deviation 1 / sqrt(fan_in): a unit's output keeps the input's variance.

    n is the fan-in, not the number of units: a layer 784 -> 256 takes 1/28, the next one
    (256 -> 10) takes 1/16.

    Source: LeCun et al. 1998. Flax's default for Dense, which truncates the normal.

    Example:
      >>> print(f"{LecunNormal()(jax.random.key(0), (784, 256)).std():.3f}")  # 1/28 = 0.0357
      0.036
    """

    sample: ClassVar[str] = "normal"

    def stretch(self, shape: tuple[int, ...], fan: Fan | None) -> tuple[float, float]:
        return 0.0, math.sqrt(1.0 / _fan(self, shape, fan)[0])


@record
class FanInUniform(Sampled):
    """Uniform on +-1 / sqrt(fan_in): variance 1 / (3 fan_in).

    PyTorch's default for Linear and Conv. The bias comes from the same interval there: give it the
    kernel's fan.
    """

    sample: ClassVar[str] = "uniform"

    def stretch(self, shape: tuple[int, ...], fan: Fan | None) -> tuple[float, float]:
        bound = math.sqrt(1.0 / _fan(self, shape, fan)[0])
        return -bound, 2 * bound


@record
class Orthogonal:
    """Orthonormal columns (or rows, where there are more columns than rows) times `gain`.

    The kernel is read as a matrix (prod(shape[:-1]), shape[-1]).

    Source: Saxe et al. 2013; torch.nn.init.orthogonal_ on its own layout.

    Example:
      >>> w = Orthogonal()(jax.random.key(0), (4, 3))
      >>> print(bool(jnp.allclose(w.T @ w, jnp.eye(3), atol=1e-5)))
      True
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        _finite(self, "gain", minimum=0.0)

    def __call__(
        self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, fan: Fan | None = None
    ) -> Array:
        check_dtype(self, dtype)
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: shape must be (..., in, out), got {tuple(shape)}")
        return jax.nn.initializers.orthogonal(self.gain)(key, shape, sample_dtype(dtype)).astype(
            dtype
        )


@record
class Table:
    """Given values, such as an output bias that starts at the class frequencies.

    Example:
      >>> print(Table((1.0, 2.0))(jax.random.key(0), (2,)))
      [1. 2.]
      >>> Table((1.0, 2.0))(jax.random.key(0), (3,))
      Traceback (most recent call last):
      ValueError: Table: holds values of shape (2,), asked for shape (3,)
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        try:
            array = np.asarray(self.values, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"Table: values must be numbers in a rectangular shape, got {self.values!r}"
            ) from None
        if array.ndim == 0 or not np.isfinite(array).all():
            raise ValueError(
                f"Table: values must be a tuple of finite numbers, got {self.values!r}"
            )
        object.__setattr__(self, "values", _as_tuple(array.tolist()))

    def __call__(
        self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, fan: Fan | None = None
    ) -> Array:
        check_dtype(self, dtype)
        array = np.asarray(self.values, dtype=np.float64)
        if array.shape != tuple(shape):
            raise ValueError(
                f"Table: holds values of shape {array.shape}, asked for shape {tuple(shape)}"
            )
        return jnp.asarray(array, dtype)


def log_odds(frequencies: Any) -> Table:
    """Bias of sigmoid outputs that start at these frequencies: log(p / (1 - p)).

    Shapes:
      frequencies: (out,), each strictly between 0 and 1.

    Raises:
      ValueError: another shape or range.

    Source: Goodfellow, Bengio and Courville 2016, section 8.4.

    Example:
      >>> log_odds((0.5, 0.01))
      Table(values=(0.0, -4.59511985013459))
    """
    p = _frequencies(frequencies, "log_odds")
    if not (p < 1).all():
        raise ValueError(
            f"log_odds: frequencies must lie strictly between 0 and 1, got {p.tolist()}"
        )
    return Table(tuple((np.log(p) - np.log1p(-p)).tolist()))


def log_frequencies(frequencies: Any) -> Table:
    """Bias of a softmax output that starts at these class frequencies: log(f / sum f).

    Counts serve as well as frequencies: softmax of the result is f / sum f.

    Shapes:
      frequencies: (classes,), each above 0.

    Raises:
      ValueError: another shape or range.

    Source: Goodfellow, Bengio and Courville 2016, section 8.4.

    Example:
      >>> bias = log_frequencies((30, 10))(jax.random.key(0), (2,))
      >>> [f"{p:.4f}" for p in jax.nn.softmax(bias)]
      ['0.7500', '0.2500']
    """
    counts = _frequencies(frequencies, "log_frequencies")
    return Table(tuple((np.log(counts) - np.log(counts.sum())).tolist()))


def forget_gate_bias(features: int, value: float = 1.0) -> Table:
    """Bias of an LSTM layer that starts by remembering: `value` in the forget gate, 0 elsewhere.

    For the gates in the order input, forget, candidate, output of `layers.LSTM`, as its `bias_init`
    or by path: `init(net, key, shape, initializers={"lstm/bias": forget_gate_bias(32)})`.

    Source: Gers, Schmidhuber and Cummins 2000; Jozefowicz, Zaremba and Sutskever 2015.

    Example:
      >>> forget_gate_bias(2)
      Table(values=(0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    """
    zeros = [0.0] * features
    return Table((*zeros, *[float(value)] * features, *zeros, *zeros))


def _frequencies(values: Any, what: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{what}: frequencies must have shape (out,), got {array.shape}")
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise ValueError(
            f"{what}: frequencies must be finite and above 0, got {array.tolist()}; "
            f"add 1 to every count where a class is missing"
        )
    return array


def _as_tuple(values: Any) -> Any:
    return tuple(_as_tuple(v) for v in values) if isinstance(values, list) else values


def _finite(owner: Any, field: str, minimum: float = -math.inf) -> None:
    """Store a field of a frozen record as a finite float of at least `minimum`."""
    value, name = getattr(owner, field), type(owner).__name__
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: {field} must be a number, got {value!r}")
    if not math.isfinite(value) or value < minimum:
        wanted = "finite" if minimum == -math.inf else f"finite and at least {minimum}"
        raise ValueError(f"{name}: {field} must be {wanted}, got {value!r}")
    object.__setattr__(owner, field, float(value))


def _fan(owner: Any, shape: tuple[int, ...], fan: Fan | None) -> Fan:
    if fan is None:
        try:
            return fan_in_out(shape)
        except ValueError as error:
            raise ValueError(f"{type(owner).__name__}: {error}") from None
    if len(fan) != 2 or any(size < 1 for size in fan):
        raise ValueError(
            f"{type(owner).__name__}: fan must be (fan_in, fan_out), both from 1, got {fan!r}"
        )
    return fan
