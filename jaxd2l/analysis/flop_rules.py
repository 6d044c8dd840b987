"""What one equation of a jaxpr costs by itself: (multiply-adds, other operations)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from jaxd2l.ops.conv_primitive import conv_p

Cost = tuple[int, int]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: These move, select by position, retype or name values; they cost nothing. A loss of digits
#: (`convert_element_type`, `reduce_precision`) counts as retyping, a message between devices as
#: moving, and printing is the host's affair.
MOVES = _names(
    """
    after_all all_gather all_gather_invariant all_to_all axis_index bitcast_convert_type
    broadcast_in_dim broadcast_to complex concatenate convert_element_type copy copy_p
    create_token debug_callback debug_print device_put dynamic_slice dynamic_update_slice empty
    empty2 expand_dims from_edtype gather get imag iota layout_constraint lu_pivots_to_permutation
    name new_ref optimization_barrier pad pbroadcast pcast platform_index ppermute pvary
    ragged_all_to_all random_clone random_unwrap random_wrap real reduce_precision ref reshape
    reshard rev sharding_constraint slice split squeeze stack stop_gradient swap tile to_edtype
    transpose unstack
    """
)

#: One operation for each element of the outputs, transcendental and special functions too.
ELEMENTWISE = _names(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
    clamp clz conj cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt
    igamma igamma_grad_a igammac is_finite le le_to lgamma log log1p log2 logistic lt lt_to max
    min mul mulhi ne neg nextafter not or polygamma population_count pow random_bits
    random_fold_in random_seed random_split regularized_incomplete_beta rem rng_uniform round
    rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square
    sub tan tanh threefry2x32 xor zeta
    """
)

#: One operation for each element that a device hands in: the combining, not the message.
COLLECTIVES = _names(
    """
    pmax pmin psum psum_invariant reduce_scatter unreduced_psum unreduced_reduce_scatter
    """
)

_REDUCTIONS = _names(
    """
    argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor
    """
)
_CUMULATIVE = _names("cumlogsumexp cummax cummin cumprod cumsum")
_WINDOWS = _names("reduce_window_max reduce_window_min reduce_window_sum select_and_gather_add")


def first_order(eqn: core.JaxprEqn) -> Cost | None:
    """The cost of an equation that holds no jaxpr; None where there is no rule for it.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.zeros((2, 3))
      >>> first_order(jax.make_jaxpr(lambda x: x @ x.T)(x).eqns[-1])
      (12, 0)
    """
    name = eqn.primitive.name
    if name in MOVES:
        return 0, 0
    if name in ELEMENTWISE:
        return 0, sum(_size(v) for v in eqn.outvars)
    if name in COLLECTIVES:
        return 0, sum(_size(v) for v in eqn.invars)
    if eqn.primitive is conv_p:
        return _our_convolution(eqn)
    rule = _RULES.get(name)
    return None if rule is None else rule(eqn)


def applications(eqn: core.JaxprEqn) -> tuple[Any, int] | None:
    """The jaxpr on scalars that an equation applies (None: it only moves values), and how often.

    None for an equation that is not of this kind.
    """
    name = eqn.primitive.name
    if name == "reduce":
        return eqn.params["jaxpr"], _size(eqn.invars[0]) - _size(eqn.outvars[0])
    if name == "reduce_window":
        taps = math.prod(eqn.params["window_dimensions"])
        return eqn.params["jaxpr"], _size(eqn.outvars[0]) * (taps - 1)
    if name.startswith("scatter") and "update_jaxpr" in eqn.params:
        return eqn.params["update_jaxpr"], _size(eqn.invars[2])
    return None


def _shape(v: Any) -> tuple[int, ...]:
    return tuple(v.aval.shape)


def _size(v: Any) -> int:
    return math.prod(getattr(v.aval, "shape", ()))


def _sizes(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[a] for a in axes)


# --- products ---------------------------------------------------------------------------------


def _dot_general(eqn: core.JaxprEqn) -> Cost:
    (contract, _), _ = eqn.params["dimension_numbers"]
    return _size(eqn.outvars[0]) * _sizes(_shape(eqn.invars[0]), contract), 0


def _ragged_dot(eqn: core.JaxprEqn) -> Cost:
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (_, contract), (_, batch) = numbers.dot_dimension_numbers
    used = {*contract, *batch, *numbers.rhs_group_dimensions}
    right = _shape(eqn.invars[1])
    free = [a for a in range(len(right)) if a not in used]
    return _size(eqn.invars[0]) * _sizes(right, free), 0


def _convolution(eqn: core.JaxprEqn) -> Cost:
    numbers = eqn.params["dimension_numbers"]
    return _products(eqn, numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)


def _our_convolution(eqn: core.JaxprEqn) -> Cost:
    last = len(_shape(eqn.invars[0])) - 1
    spatial = range(1, last)
    kernel = (last, last - 1, *range(last - 1))
    return _products(eqn, (0, last, *spatial), kernel, (0, last, *spatial))


def _products(
    eqn: core.JaxprEqn, lhs: Sequence[int], rhs: Sequence[int], out: Sequence[int]
) -> Cost:
    """Specs are (batch, features, *space), of the kernel (out, in, *space)."""
    left, right, result = (_shape(v) for v in (*eqn.invars, *eqn.outvars))
    p = eqn.params
    if max(p["lhs_dilation"], default=1) == 1:
        pairs = [result[o] * right[r] for o, r in zip(out[2:], rhs[2:], strict=True)]
    else:
        pairs = [
            _meetings(left[i], right[r], result[o], *window)
            for i, r, o, *window in zip(
                lhs[2:],
                rhs[2:],
                out[2:],
                p["window_strides"],
                p["rhs_dilation"],
                p["lhs_dilation"],
                (low for low, _ in p["padding"]),
                strict=True,
            )
        ]
    return result[out[0]] * result[out[1]] * right[rhs[1]] * math.prod(pairs), 0


def _meetings(
    size: int, taps: int, outputs: int, stride: int, dilation: int, spread: int, low: int
) -> int:
    """Pairs of an output and a tap that meet an input, not a hole between inputs or padding."""
    places = np.add.outer(np.arange(outputs) * stride, np.arange(taps) * dilation) - low
    met = (places >= 0) & (places <= (size - 1) * spread) & (places % spread == 0)
    return int(met.sum())


# --- reductions, sorting, transforms ----------------------------------------------------------


def _reduction(eqn: core.JaxprEqn) -> Cost:
    return 0, max(_size(eqn.invars[0]) - _size(eqn.outvars[0]), 0)


def _cumulative(eqn: core.JaxprEqn) -> Cost:
    shape = _shape(eqn.invars[0])
    length = shape[eqn.params["axis"]]
    return 0, math.prod(shape) // length * (length - 1) if length else 0


def _window(eqn: core.JaxprEqn) -> Cost:
    return 0, _size(eqn.outvars[0]) * (math.prod(eqn.params["window_dimensions"]) - 1)


def _select_and_scatter_add(eqn: core.JaxprEqn) -> Cost:
    return 0, _size(eqn.invars[0]) * math.prod(eqn.params["window_dimensions"])


def _sort(eqn: core.JaxprEqn) -> Cost:
    shape = _shape(eqn.invars[0])
    depth = _log2(shape[eqn.params["dimension"]])
    return 0, math.prod(shape) * depth * eqn.params["num_keys"]


def _top_k(eqn: core.JaxprEqn) -> Cost:
    return 0, _size(eqn.invars[0]) * max(_log2(eqn.params["k"]), 1)


def _log2(n: int) -> int:
    return (n - 1).bit_length() if n > 1 else 0


def _fft(eqn: core.JaxprEqn) -> Cost:
    lengths = eqn.params["fft_lengths"]
    points = math.prod(lengths)
    ends: list[Any] = [eqn.invars[0], eqn.outvars[0]]
    real = [v for v in ends if v.aval.dtype.kind == "f"]
    whole = (real or ends)[0]
    lines = _size(whole) // points if points else 0
    return 0, round(lines * (2.5 if real else 5) * points * math.log2(max(points, 1)))


def _integer_pow(eqn: core.JaxprEqn) -> Cost:
    y = abs(eqn.params["y"])
    products = y.bit_length() - 1 + y.bit_count() - 1 if y else 0
    return 0, _size(eqn.outvars[0]) * (products + (eqn.params["y"] < 0))


def _each(operations: Callable[[core.JaxprEqn], int]) -> Callable[[core.JaxprEqn], Cost]:
    return lambda eqn: (0, _size(eqn.outvars[0]) * operations(eqn))


# --- linear algebra: the schoolbook algorithms --------------------------------------------------


def _cholesky(eqn: core.JaxprEqn) -> Cost:
    *batch, n, _ = _shape(eqn.invars[0])
    matrices = math.prod(batch)
    # column j: j products for each of its n-j entries, then one root and n-j-1 quotients
    return matrices * (n * (n * n - 1) // 6), matrices * (n * (n + 1) // 2)


def _triangular_solve(eqn: core.JaxprEqn) -> Cost:
    n = _shape(eqn.invars[0])[-1]
    values = _size(eqn.invars[1])
    return values * (n - 1) // 2, 0 if eqn.params["unit_diagonal"] else values


def _lu(eqn: core.JaxprEqn) -> Cost:
    *batch, m, n = _shape(eqn.invars[0])
    matrices = math.prod(batch)
    steps = range(min(m, n))
    # step k: m-k-1 comparisons for the pivot, as many quotients, and the update of the rest
    products = sum((m - k - 1) * (n - k - 1) for k in steps)
    return matrices * products, matrices * sum(2 * (m - k - 1) for k in steps)


_RULES: dict[str, Callable[[core.JaxprEqn], Cost]] = {
    "addupdate": lambda eqn: (0, _size(eqn.invars[1])),
    "approx_top_k": _top_k,
    "cholesky": _cholesky,
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "fft": _fft,
    "integer_pow": _integer_pow,
    "lu": _lu,
    "one_minus_square": _each(lambda eqn: 2),
    "polynomial": _each(lambda eqn: 2 * (len(eqn.invars) - 2)),
    "ragged_dot_general": _ragged_dot,
    "rng_bit_generator": lambda eqn: (0, _size(eqn.outvars[1])),
    "select_and_scatter_add": _select_and_scatter_add,
    "sort": _sort,
    "top_k": _top_k,
    "triangular_solve": _triangular_solve,
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(_CUMULATIVE, _cumulative),
    **dict.fromkeys(_WINDOWS, _window),
}
