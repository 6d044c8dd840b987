"""What the results of each primitive see, given what its operands see along one input axis.

A rule takes the equation and its operands, each `Seen` or, where it does not depend on the input,
`Known`, at least one of them `Seen`; it gives the `Seen` of the first result. Results of a
primitive that has several all see that, with their own shapes, unless the rule gives a list.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from jax.extend import core

from jaxd2l.analysis.known import Known, NotConcrete
from jaxd2l.analysis.seen import Seen
from jaxd2l.analysis.seen_ops import joined, masked, reshaped, transposed, union

Operand: TypeAlias = Seen | Known
Rule: TypeAlias = Callable[[core.JaxprEqn, Sequence[Operand]], Seen | list[Seen]]

_Rule = TypeVar("_Rule", bound=Rule)

RULES: dict[str, Rule] = {}

ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt
    ceil clamp clz complex conj convert_element_type copy cos cosh digamma div eq eq_to erf
    erf_inv erfc exp exp2 expm1 floor from_edtype ge gt igamma igamma_grad_a igammac imag
    integer_pow is_finite le le_to lgamma log log1p log2 logistic lt lt_to max min mul mulhi
    name ne neg nextafter not one_minus_square or pbroadcast pin pmax pmin polygamma
    ppermute polynomial population_count pow preduced psum psum_invariant pvary random_clone
    random_fold_in random_gamma random_gamma_grad random_seed real reduce_precision
    reduced_vary_cast regularized_incomplete_beta rem reshard round rsqrt
    sharding_constraint shift_left shift_right_arithmetic shift_right_logical sign sin sinh
    sqrt square stage stop_gradient sub tan tanh threefry2x32 to_edtype unpin unreduced_psum
    vary_unreduced_cast with_memory_space_constraint xor zeta
"""


def rule(*names: str) -> Callable[[_Rule], _Rule]:
    """Enter a rule for these primitives."""

    def enter(function: _Rule) -> _Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of an input or a result of an equation."""
    return tuple(getattr(atom.aval, "shape", ()))


def out_shape(eqn: core.JaxprEqn) -> tuple[int, ...]:
    """The shape of the first result."""
    return shape_of(eqn.outvars[0])


def spread_over(seen: Seen, shape: tuple[int, ...]) -> Seen:
    """All elements of an array of `shape` see what all elements of this one see."""
    for axis in range(len(seen.shape)):
        seen = seen.hull(axis)
    if math.prod(shape) == 0 or math.prod(seen.shape) == 0:
        return Seen.nothing(seen.pixels, shape)
    return Seen.uniform(seen.pixels, shape, seen.lo.item(), seen.hi.item())


def fitted(seen: Seen, shape: tuple[int, ...]) -> Seen:
    """An operand as it meets a result of `shape`: its axes of size 1 repeated, or a scalar."""
    if len(seen.shape) != len(shape):
        return spread_over(seen, shape)
    for axis, size in enumerate(shape):
        if seen.shape[axis] != size:  # 1: primitives accept x - x[..., :1] as it stands
            seen = seen.hull(axis).resized(axis, size)
    return seen


def seen_only(operands: Sequence[Operand]) -> list[Seen]:
    """The operands that depend on the input."""
    return [operand for operand in operands if isinstance(operand, Seen)]


def elementwise(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    """Each element of the result sees what the elements at its place see."""
    shape = out_shape(eqn)
    return union([fitted(seen, shape) for seen in seen_only(operands)])


rule(*ELEMENTWISE.split())(elementwise)


@rule("all_gather")
def _all_gather(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    """Inside `shard_map`, where shards see what all shards see."""
    seen, shape, axis = seen_only(operands)[0], out_shape(eqn), eqn.params["all_gather_dimension"]
    if eqn.params["tiled"]:
        return seen.hull(axis).resized(axis, shape[axis])
    return seen.inserted(axis, shape[axis])


@rule("bitcast_convert_type")
def _bitcast(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    (seen,), shape = seen_only(operands), out_shape(eqn)
    if len(shape) > len(seen.shape):
        return seen.inserted(len(seen.shape), shape[-1])
    return seen.hull(len(shape)).without(len(shape)) if len(shape) < len(seen.shape) else seen


@rule("select_n")
def _select(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    shape = out_shape(eqn)
    which, *cases = operands
    if isinstance(which, Seen) or not which.structural:
        return elementwise(eqn, operands)
    try:
        chosen = which.array().astype(np.int64)
    except NotConcrete:
        return elementwise(eqn, operands)
    chosen = _narrowed(chosen) if chosen.shape else chosen.reshape((1,) * len(shape))
    parts = [
        masked(case, chosen == i) if (chosen == i).any() else Seen.nothing(case.pixels, shape)
        for i, case in enumerate(cases)
        if isinstance(case, Seen)
    ]
    return union(parts)


def _narrowed(values: np.ndarray) -> np.ndarray:
    """The same with size 1 along the axes on which nothing changes."""
    for axis in range(values.ndim):
        if values.shape[axis] and (values == values.take([0], axis)).all():
            values = values.take([0], axis)
    return values


def not_zero(operand: Operand) -> np.ndarray | None:
    """Where an operand is not certainly zero; None: anywhere."""
    if isinstance(operand, Known):
        try:
            return operand.used()
        except (NotConcrete, RecursionError):  # a product of a thousand masks
            pass
    return None


# --- shapes ---------------------------------------------------------------------------------------


@rule("broadcast_in_dim")
def _broadcast(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    seen, shape = seen_only(operands)[0], out_shape(eqn)
    if math.prod(shape) == 0:
        return Seen.nothing(seen.pixels, shape)
    places = dict(zip(eqn.params["broadcast_dimensions"], range(len(seen.shape)), strict=True))
    for axis in reversed(range(len(seen.shape))):
        wide = shape[eqn.params["broadcast_dimensions"][axis]]
        if seen.shape[axis] != wide:
            seen = seen.without(axis).inserted(axis, wide)
    for axis, size in enumerate(shape):
        if axis not in places:
            seen = seen.inserted(axis, size)
    return seen


@rule("reshape", "squeeze")
def _reshape(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    seen = seen_only(operands)[0]
    if eqn.primitive.name == "reshape" and eqn.params.get("dimensions") is not None:
        seen = transposed(seen, eqn.params["dimensions"])
    return reshaped(seen, out_shape(eqn))


@rule("random_bits", "random_split", "random_unwrap")
def _from_keys(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    """Each key of an array of keys becomes numbers or keys, on further axes."""
    seen = seen_only(operands)[0]
    for size in out_shape(eqn)[len(seen.shape) :]:
        seen = seen.inserted(len(seen.shape), size)
    return seen


@rule("random_wrap")
def _to_keys(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    """The last axes hold the numbers of a key."""
    seen = seen_only(operands)[0]
    return reduced(seen, range(len(out_shape(eqn)), len(seen.shape)))


@rule("broadcast_to", "tile")
def _tile(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    """The axes of the operand are the last ones; each is repeated as a whole, or broadcast."""
    seen, shape = seen_only(operands)[0], out_shape(eqn)
    for _ in range(len(shape) - len(seen.shape)):
        seen = seen.inserted(0)
    for axis, size in enumerate(shape):
        if not size or not seen.shape[axis]:
            return Seen.nothing(seen.pixels, shape)
        if seen.shape[axis] != size:
            seen = joined([seen] * (size // seen.shape[axis]), axis)
    return seen


@rule("stack")
def _stack(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    pixels, axis = seen_only(operands)[0].pixels, eqn.params["axis"]
    parts = [
        (o if isinstance(o, Seen) else Seen.nothing(pixels, shape_of(atom))).inserted(axis)
        for o, atom in zip(operands, eqn.invars, strict=True)
    ]
    return joined(parts, axis)


@rule("unstack")
def _unstack(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> list[Seen]:
    seen, axis = seen_only(operands)[0], eqn.params["axis"]
    return [seen.without(axis, i) for i in range(seen.shape[axis])]


@rule("transpose")
def _transpose(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    return transposed(seen_only(operands)[0], eqn.params["permutation"])


@rule("rev")
def _rev(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    seen = seen_only(operands)[0]
    for axis in eqn.params["dimensions"]:
        size = seen.shape[axis]
        seen = seen.window(axis, size, start=size - 1, stride=-1)
    return seen


@rule("slice")
def _slice(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    seen, shape = seen_only(operands)[0], out_shape(eqn)
    strides = eqn.params["strides"] or (1,) * len(shape)
    for axis, (start, stride) in enumerate(zip(eqn.params["start_indices"], strides, strict=True)):
        seen = seen.window(axis, shape[axis], start, stride)
    return seen


@rule("split")
def _split(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> list[Seen]:
    seen, axis, start, parts = seen_only(operands)[0], eqn.params["axis"], 0, []
    for size in eqn.params["sizes"]:
        parts.append(seen.window(axis, size, start))
        start += size
    return parts


@rule("pad")
def _pad(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    operand, value = operands
    shape, parts = out_shape(eqn), []
    if isinstance(operand, Seen):
        for axis, (low, _, interior) in enumerate(eqn.params["padding_config"]):
            operand = operand.window(axis, shape[axis], -low, spread=interior + 1)
        parts.append(operand)
    if isinstance(value, Seen):
        parts.append(spread_over(value, shape))
    return union(parts)


@rule("concatenate")
def _concatenate(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    pixels = seen_only(operands)[0].pixels
    parts = [
        operand if isinstance(operand, Seen) else Seen.nothing(pixels, shape_of(atom))
        for operand, atom in zip(operands, eqn.invars, strict=True)
    ]
    return joined(parts, eqn.params["dimension"])


# --- reductions -----------------------------------------------------------------------------------


def reduced(seen: Seen, axes: Sequence[int]) -> Seen:
    """The axes taken away: each element sees what all along them see."""
    for axis in sorted(axes, reverse=True):
        seen = seen.hull(axis)
        if not seen.shape[axis]:
            rest = seen.shape[:axis] + seen.shape[axis + 1 :]
            seen = Seen.nothing(seen.pixels, rest)
        else:
            seen = seen.without(axis)
    return seen


@rule(
    *(f"reduce_{kind}" for kind in ("sum", "prod", "max", "min", "and", "or", "xor")),
    *("argmax", "argmin"),
)
def _reduce(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    return reduced(seen_only(operands)[0], eqn.params["axes"])


@rule("reduce")
def _generic_reduce(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    """Operands, then as many initial values, with a jaxpr of the program's own."""
    shape, half = out_shape(eqn), len(operands) // 2
    arrays = [reduced(s, eqn.params["dimensions"]) for s in seen_only(operands[:half])]
    return union(arrays + [spread_over(s, shape) for s in seen_only(operands[half:])])


@rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _cumulative(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    return seen_only(operands)[0].accumulated(eqn.params["axis"], eqn.params["reverse"])


@rule("sort")
def _sort(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    return union(seen_only(operands)).hull(eqn.params["dimension"])


@rule("top_k", "approx_top_k")
def _top_k(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    seen, shape = seen_only(operands)[0], out_shape(eqn)
    axis = eqn.params.get("axis", eqn.params.get("reduction_dimension", -1)) % len(shape)
    return seen.hull(axis).resized(axis, shape[axis])


@rule("fft")
def _fft(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    seen, shape = seen_only(operands)[0], out_shape(eqn)
    for axis in range(len(shape) - len(eqn.params["fft_lengths"]), len(shape)):
        seen = seen.hull(axis).resized(axis, shape[axis])
    return seen


@rule("cholesky", "lu", "qr", "geqrf", "householder_product", "eigh", "eig", "svd", "schur")
@rule("lu_pivots_to_permutation", "hessenberg")
def _matrices(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> list[Seen]:
    """Every matrix of a batch of them is mixed; the leading axes are the batch."""
    core_axes = 1 if eqn.primitive.name == "lu_pivots_to_permutation" else 2
    batch = max(len(shape_of(atom)) for atom in eqn.invars) - core_axes
    return [
        union([_batched(seen, batch, shape_of(out)) for seen in seen_only(operands)])
        for out in eqn.outvars
    ]


def _batched(seen: Seen, batch: int, shape: tuple[int, ...]) -> Seen:
    """The first `batch` axes kept, and for the others those of `shape`, along which all see all."""
    seen = reduced(seen, range(batch, len(seen.shape)))
    for axis in range(batch, len(shape)):
        seen = seen.inserted(axis, shape[axis])
    return seen


@rule("triangular_solve", "tridiagonal_solve")
def _solve(eqn: core.JaxprEqn, operands: Sequence[Operand]) -> Seen:
    """The last operand holds the right-hand sides, each solved for itself."""
    shape = out_shape(eqn)
    parts = [_batched(seen, len(shape) - 2, shape) for seen in seen_only(operands[:-1])]
    for right in seen_only(operands[-1:]):
        axis = len(shape) - (2 if eqn.params.get("left_side", True) else 1)
        parts.append(right.hull(axis))
    return union(parts)
