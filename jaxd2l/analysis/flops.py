"""How much any JAX function computes: multiply-adds and other operations, read off its jaxpr."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from jaxd2l.analysis.flop_rules import applications, first_order
from jaxd2l.analysis.jaxprs import callee, opened, scan_layout
from jaxd2l.analysis.known import Known, NotConcrete, constant, evaluate
from jaxd2l.analysis.trips import LoopCounter, concrete


@dataclasses.dataclass(frozen=True)
class Uncounted:
    """Something whose cost is not known before run time.

    Attributes:
      what: the primitive: "while", or one that has no rule, such as "svd".
      times: how often it occurs, the trip counts of the loops around it multiplied.
      each: what one iteration of a loop costs, its condition included; None where not even that
        is known.
    """

    what: str
    times: int
    each: "FlopCount | None" = None

    def __str__(self) -> str:
        if self.each is None:
            times = "once" if self.times == 1 else f"{self.times:,} times"
            return f"'{self.what}' {times}, at a cost that is not known"
        loops = "one loop" if self.times == 1 else f"{self.times:,} loops"
        inner = str(self.each).replace("\n", "\n  ")
        return f"an unknown number of times in {loops} ('{self.what}'): {inner}"


@dataclasses.dataclass(frozen=True)
class FlopCount:
    """What a function computes; counts add up with `+` and repeat with `*`.

    Attributes:
      multiply_adds: products that are summed: of matrix products and convolutions.
      other: all other operations.
      unknown: what could not be counted, and is in neither number.
      at_most: whether a branch is chosen at run time, where the costliest is counted.

    Example:
      >>> print(FlopCount(1000, 24) * 3)
      multiply-adds 3,000, other operations 72, FLOPs 6,072
    """

    multiply_adds: int = 0
    other: int = 0
    unknown: tuple[Uncounted, ...] = ()
    at_most: bool = False

    @property
    def flops(self) -> int | None:
        """2*multiply_adds + other; None where something is unknown."""
        return None if self.unknown else self._known_flops

    @property
    def _known_flops(self) -> int:
        return 2 * self.multiply_adds + self.other

    @property
    def _exact(self) -> bool:
        return not self.unknown and not self.at_most

    def __add__(self, more: "FlopCount") -> "FlopCount":
        return FlopCount(
            self.multiply_adds + more.multiply_adds,
            self.other + more.other,
            _merged(self.unknown + more.unknown, sum) if more.unknown else self.unknown,
            self.at_most or more.at_most,
        )

    def __mul__(self, times: int) -> "FlopCount":
        if times == 0:
            return FlopCount()
        unknown = tuple(dataclasses.replace(u, times=u.times * times) for u in self.unknown)
        return FlopCount(self.multiply_adds * times, self.other * times, unknown, self.at_most)

    def __str__(self) -> str:
        bound = {
            (False, False): "",
            (True, False): "at least ",
            (False, True): "at most ",
            (True, True): "with the costliest branches at least ",
        }[bool(self.unknown), self.at_most]
        known = (
            f"multiply-adds {self.multiply_adds:,}, other operations {self.other:,}, "
            f"FLOPs {self._known_flops:,}"
        )
        return "\nand ".join([bound + known, *map(str, self.unknown)])


def _merged(
    unknown: Sequence[Uncounted], join: Callable[[list[int]], int]
) -> tuple[Uncounted, ...]:
    times: dict[tuple[str, FlopCount | None], list[int]] = {}
    for u in unknown:
        times.setdefault((u.what, u.each), []).append(u.times)
    return tuple(Uncounted(what, join(n), each) for (what, each), n in times.items())


def count_flops(f: Callable[..., Any], *args: Any) -> FlopCount:
    """Count what `f(*args)` computes, by tracing it: nothing of it is compiled or run.

    A multiply-add (MAC) is one product and its addition to a sum, 2 FLOPs: m*n*k in a matrix
    product, outputs * taps * inputs of a group in a convolution. Products with zero padding are
    counted, as in `jaxd2l.geometry.conv_macs`; with a dilated input (a transposed convolution)
    only products of a real input with a tap, as in `conv_transpose_macs`.

    Other operations, one for each output element of elementwise functions, however hard
    (`exp`, `erf`; `select` and comparisons too; x**n: its multiplications by squaring); n-1 for a
    reduction or a pooling window of n, padding included, and for a cumulative line; n*ceil(log2 n)
    for each key of a sort, n*ceil(log2 k) for the largest k; 5*n*log2 n for a Fourier transform,
    half if real; one for each update of `scatter-add`, for each random number, and for each
    element that a device hands into `psum`. A complex number counts like a real one. Moving,
    indexing and converting values costs nothing. Cholesky, LU and triangular solves cost their
    schoolbook algorithm.

    A `scan` costs its body times its length, `shard_map` its body times the shards, a `while` its
    body times its trip count if that follows from the program alone. Where it depends on `args`,
    the loop is reported in `unknown` and its iterations are not counted; so is a primitive without
    a rule (`svd`, `eigh`, `qr`, callbacks, Pallas kernels). Of branches chosen at run time the
    costliest is counted, and `at_most` says so. What no output needs is left out, as XLA leaves it
    out; a value computed twice counts twice, so `jax.checkpoint` shows what it recomputes, and
    arithmetic on constants and indices counts as it stands in the program.

    Args:
      f: any function that JAX can trace, also a gradient or a `vmap`; what it closes over is known.
      *args: arrays, numbers, `jax.ShapeDtypeStruct`s, and pytrees of them.

    Raises:
      TypeError: `f` is not callable, or an argument is not an array.

    XLA's own count (`compiled.cost_analysis()["flops"]`) agrees on matrix products; it counts the
    body of a loop once, transcendental functions apart and not at all the products with padding.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x, w = jax.ShapeDtypeStruct((8, 20), "float32"), jax.ShapeDtypeStruct((20, 5), "float32")
      >>> print(count_flops(lambda x, w: jnp.maximum(x @ w, 0), x, w))
      multiply-adds 800, other operations 40, FLOPs 1,640
      >>> def halved(x):
      ...     return jax.lax.while_loop(lambda x: x.max() > 1, lambda x: x / 2, x)
      >>> count = count_flops(halved, jax.ShapeDtypeStruct((8,), "float32"))
      >>> count.flops is None
      True
      >>> print(count)
      at least multiply-adds 0, other operations 8, FLOPs 8
      and an unknown number of times in one loop ('while'): multiply-adds 0, other operations 16,
      FLOPs 16
    """
    if not callable(f):
        raise TypeError(f"count_flops: f must be a function, got {f!r}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(args):
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")) and not isinstance(
            leaf, bool | int | float | complex
        ):
            raise TypeError(
                f"count_flops: args{jax.tree_util.keystr(path)} must be an array or a "
                f"jax.ShapeDtypeStruct, got {leaf!r}; close over what is not an array"
            )
    jaxpr, consts = opened(jax.make_jaxpr(f)(*args))
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)
    return _Counter().jaxpr(needed, consts, [None] * len(needed.invars))[0]


# --- the interpreter --------------------------------------------------------------------------

#: For each input or result of an equation: its value where it does not depend on the arguments.
Values = Sequence[Known | None]
Counted = tuple[FlopCount, Values]

#: Loops of which the iterations differ are stepped through up to so many equations in all.
_STEPPED_EQUATIONS = 100_000
#: The counter of a loop is run by itself up to so many iterations, and operations.
_MOST_TRIPS = 1_000_000
_MOST_OPERATIONS = 1_000_000_000


class _Counter:
    """Walks through jaxprs; keeps what is left to step through, and the counters of loops."""

    def __init__(self) -> None:
        self.steps_left = _STEPPED_EQUATIONS
        self.loops: dict[int, LoopCounter] = {}  # by id(eqn), which they keep alive

    def jaxpr(self, jaxpr: Any, consts: Sequence[Any], inputs: Values) -> Counted:
        known: dict[Any, Known] = {}

        def write(variables: Sequence[Any], values: Values) -> None:
            known.update((v, k) for v, k in zip(variables, values, strict=True) if k is not None)

        def read(atom: Any) -> Known | None:
            return constant(atom.val) if isinstance(atom, core.Literal) else known.get(atom)

        write(jaxpr.constvars, [constant(c) for c in consts])
        write(jaxpr.invars, inputs)
        total = FlopCount()
        for eqn in jaxpr.eqns:
            cost, values = self.equation(eqn, [read(atom) for atom in eqn.invars])
            total += cost
            write(eqn.outvars, values)
        return total, [read(atom) for atom in jaxpr.outvars]

    def closed(self, jaxpr: Any, inputs: Values | None = None) -> Counted:
        inner, consts = opened(jaxpr)
        if inputs is None or len(inputs) != len(inner.invars):
            inputs = [None] * len(inner.invars)
        return self.jaxpr(inner, consts, inputs)

    def equation(self, eqn: core.JaxprEqn, inputs: Values) -> Counted:
        name, p = eqn.primitive.name, eqn.params
        match name:
            case "scan":
                return self.scan(eqn, inputs)
            case "while":
                return self.loop(eqn, inputs)
            case "cond":
                return self.branches(eqn, inputs)
            case "shard_map":
                shards = math.prod(p["mesh"].shape[axis] for axis in p["newly_manual_axes"])
                return self.closed(p["jaxpr"])[0] * shards, _nothing(eqn)
            case "custom_linear_solve":
                return self.closed(p["jaxprs"].solve)[0], _nothing(eqn)
            case "call_hi_primitive":
                return self.closed(_expansion(eqn), inputs)
            case _ if (called := callee(eqn)) is not None:
                return self.closed(called, inputs)
        applied = applications(eqn)
        single = first_order(eqn)
        if applied is not None:
            body, times = applied
            cost = FlopCount() if body is None else self.closed(body)[0] * times
        elif single is not None:
            cost = FlopCount(*single)
        else:
            return FlopCount(unknown=(Uncounted(name, 1),)), _nothing(eqn)
        return cost, _results(eqn, inputs)

    def can_step(self, body: Any, steps: int) -> bool:
        equations = steps * max(len(opened(body)[0].eqns), 1)
        if equations > self.steps_left:
            return False
        self.steps_left -= equations
        return True

    def scan(self, eqn: core.JaxprEqn, inputs: Values) -> Counted:
        body, length = eqn.params["jaxpr"], eqn.params["length"]
        shared, carry, xs = _scan_inputs(eqn, inputs)
        anything = [None] * (len(carry) + len(xs))
        cost = self.closed(body, [*shared, *anything])[0]
        varies = not cost._exact and any(value is not None for value in (*carry, *xs))
        if not varies or not self.can_step(body, length):
            return cost * length, _results(eqn, inputs)
        total, n_carry = FlopCount(), len(carry)
        for i in reversed(range(length)) if eqn.params["reverse"] else range(length):
            cost, out = self.closed(body, [*shared, *carry, *(_row(x, i) for x in xs)])
            total += cost
            carry = out[:n_carry]
        return total, _results(eqn, inputs)

    def loop(self, eqn: core.JaxprEqn, inputs: Values) -> Counted:
        p = eqn.params
        c, b = p["cond_nconsts"], p["body_nconsts"]
        for_test, for_body, carry = inputs[:c], inputs[c : c + b], inputs[c + b :]
        anything = [None] * len(carry)
        test = self.closed(p["cond_jaxpr"], [*for_test, *anything])[0]
        body = self.closed(p["body_jaxpr"], [*for_body, *anything])[0]
        trips = self.trips(eqn, inputs)
        if trips is None:
            unknown = Uncounted("while", 1, body + test)
            return test + FlopCount(unknown=(unknown,)), _nothing(eqn)
        if (test + body)._exact or not self.can_step(p["body_jaxpr"], trips):
            return test * (trips + 1) + body * trips, _results(eqn, inputs)
        total = self.closed(p["cond_jaxpr"], [*for_test, *carry])[0]
        for _ in range(trips):
            body, carry = self.closed(p["body_jaxpr"], [*for_body, *carry])
            total += body + self.closed(p["cond_jaxpr"], [*for_test, *carry])[0]
        return total, _results(eqn, inputs)

    def trips(self, eqn: core.JaxprEqn, inputs: Values) -> int | None:
        counter = self.loops.get(id(eqn))
        if counter is None:
            counter = self.loops[id(eqn)] = LoopCounter(eqn)
        cost = self.closed(counter.step)[0] + self.closed(counter.test)[0]
        if cost.unknown:
            return None
        limit = min(_MOST_TRIPS, _MOST_OPERATIONS // max(cost._known_flops, 1))
        return counter.trips(inputs, limit)

    def branches(self, eqn: core.JaxprEqn, inputs: Values) -> Counted:
        branches, rest = eqn.params["branches"], inputs[1:]
        try:
            return self.closed(branches[int(concrete(inputs[0]))], rest)
        except NotConcrete:
            costs = [self.closed(branch, rest)[0] for branch in branches]
        if all(cost == costs[0] for cost in costs):
            return costs[0], _nothing(eqn)
        worst = max(costs, key=lambda cost: cost._known_flops)
        unknown = _merged([u for cost in costs for u in cost.unknown], max)
        return dataclasses.replace(worst, unknown=unknown, at_most=True), _nothing(eqn)


def _nothing(eqn: core.JaxprEqn) -> Values:
    return [None] * len(eqn.outvars)


def _results(eqn: core.JaxprEqn, inputs: Values) -> Values:
    known = [value for value in inputs if value is not None]
    return evaluate(eqn, known) if len(known) == len(inputs) else _nothing(eqn)


def _scan_inputs(eqn: core.JaxprEqn, inputs: Values) -> tuple[Values, Values, Values]:
    """The inputs of a scan: constants, carry, and what it goes over."""
    consts, carry = scan_layout(eqn)
    return inputs[:consts], inputs[consts : consts + carry], inputs[consts + carry :]


def _row(x: Known | None, i: int) -> Known | None:
    return None if x is None else Known(lambda value: value[i], (x,), x.structural)


def _expansion(eqn: core.JaxprEqn) -> Any:
    """The jaxpr of a primitive of jax 0.12 that is defined by a function of its inputs."""
    primitive = eqn.params["_prim"]

    def expand(*flat: Any) -> Any:
        return primitive.expand(*jax.tree.unflatten(primitive.in_tree, flat))

    return jax.make_jaxpr(expand)(*(v.aval for v in eqn.invars))
