"""Follows what values see through a jaxpr: calls, loops and branches; the rest are rules."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jax.extend import core

from jaxd2l.analysis import rules_indexing as rules_indexing  # enters its rules
from jaxd2l.analysis.known import Known, NotConcrete, constant, evaluate
from jaxd2l.analysis.rules import RULES, shape_of, spread_over
from jaxd2l.analysis.seen import Seen, joined, union

#: What is known of a value: one `Seen` per tracked input axis, or that it does not depend on the
#: input.
Value: TypeAlias = tuple[Seen, ...] | Known

#: Equations that a loop may cost before its iterations are no longer followed one by one.
_PATIENCE = 400_000
#: Rounds of a loop of unknown length before what still grows is taken to see everything.
_ROUNDS = 3


def follow(jaxpr: core.Jaxpr, consts: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    """The values of a jaxpr's results."""
    env: dict[core.Var, Value] = {}

    def read(atom: Any) -> Value:
        return constant(atom.val) if isinstance(atom, core.Literal) else env[atom]

    env.update(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, inputs, strict=True))
    for eqn in jaxpr.eqns:
        for var, value in zip(
            eqn.outvars, _results(eqn, [read(a) for a in eqn.invars]), strict=True
        ):
            env[var] = value
    return [read(atom) for atom in jaxpr.outvars]


def _closed(jaxpr: Any, inputs: Sequence[Value]) -> list[Value]:
    """`follow` for a jaxpr with or without its constants."""
    if isinstance(jaxpr, core.ClosedJaxpr):
        return follow(jaxpr.jaxpr, [constant(c) for c in jaxpr.consts], inputs)
    return follow(jaxpr, [], inputs)


def _results(eqn: core.JaxprEqn, operands: list[Value]) -> Sequence[Value]:
    name = eqn.primitive.name
    callee = _callee(eqn)
    if callee is not None:
        return _call(eqn, callee, operands)
    if all(isinstance(operand, Known) for operand in operands):
        return evaluate(eqn, operands)  # type: ignore[arg-type]
    if name in _CONTROL:
        return _CONTROL[name](eqn, operands)
    if name in _ONE_TO_ONE:
        return operands
    function = RULES.get(name)
    tracked = next(operand for operand in operands if isinstance(operand, tuple))
    if function is None:
        if eqn.outvars:
            warnings.warn(
                f"receptive_field: what the primitive {name!r} reads is not known; its results are "
                f"taken to see the whole input",
                stacklevel=2,
            )
        return [_whole(tracked, var) for var in eqn.outvars]
    results: list[list[Seen]] = []
    for axis in range(len(tracked)):
        found = function(eqn, [o if isinstance(o, Known) else o[axis] for o in operands])
        if isinstance(found, Seen):
            found = [found] * len(eqn.outvars)
        results.append(found)
    for var, *seens in zip(eqn.outvars, *results, strict=True):
        for seen in seens:
            if seen.shape != shape_of(var):
                raise AssertionError(f"the rule of {name!r} gives {seen.shape} for {var.aval}")
    return list(zip(*results, strict=True))


_ONE_TO_ONE = ("optimization_barrier", "device_put", "layout_constraint")


def _whole(like: tuple[Seen, ...], var: Any) -> Value:
    return tuple(Seen.whole(seen.pixels, shape_of(var)) for seen in like)


# --- calls ----------------------------------------------------------------------------------------


def _callee(eqn: core.JaxprEqn) -> Any:
    """The jaxpr that the equation calls once with its operands; None if it is no call."""
    if eqn.primitive.name in _CONTROL:
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        jaxpr = eqn.params.get(key)
        inner = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
        if (
            isinstance(inner, core.Jaxpr)
            and len(inner.invars) == len(eqn.invars)
            and len(inner.outvars) == len(eqn.outvars)
            and not inner.constvars
            and all(
                len(shape_of(a)) == len(shape_of(b))
                for a, b in zip(
                    (*inner.invars, *inner.outvars), (*eqn.invars, *eqn.outvars), strict=True
                )
            )
        ):
            return jaxpr
    return None


def _call(eqn: core.JaxprEqn, callee: Any, operands: list[Value]) -> list[Value]:
    inner = callee.jaxpr if isinstance(callee, core.ClosedJaxpr) else callee
    inside = [_viewed(v, shape_of(a)) for v, a in zip(operands, inner.invars, strict=True)]
    results = _closed(callee, inside)
    return [_viewed(v, shape_of(a)) for v, a in zip(results, eqn.outvars, strict=True)]


def _viewed(value: Value, shape: tuple[int, ...]) -> Value:
    """A value as a shard of it, or the other way round: other sizes of axes along which all see
    the same. Along other axes a shard may be any part.
    """
    if isinstance(value, Known):
        return value
    seens = []
    for seen in value:
        for axis, size in enumerate(shape):
            if seen.shape[axis] != size:
                seen = seen.hull(axis).resized(axis, size)
        seens.append(seen)
    return tuple(seens)


# --- several possibilities ------------------------------------------------------------------------


def _opaque() -> Known:
    """A value that does not depend on the input, and is not known either."""

    def compute() -> Any:
        raise NotConcrete("it differs from iteration to iteration")

    return Known(compute, structural=False)


def _either(a: Value, b: Value) -> Value:
    """A value that is one or the other."""
    if a is b:
        return a
    if isinstance(a, Known):
        return _opaque() if isinstance(b, Known) else b
    if isinstance(b, Known):
        return a
    return tuple(union([x, y]) for x, y in zip(a, b, strict=True))


def _also(value: Value, condition: Value, shape: tuple[int, ...]) -> Value:
    """A value that in addition depends on a condition."""
    if isinstance(condition, Known):
        return value
    spread = tuple(spread_over(seen, shape) for seen in condition)
    return _either(value, spread)


def _same(a: Value, b: Value) -> bool:
    return a is b or (isinstance(a, tuple) and isinstance(b, tuple) and a == b)


def _bool_or_int(value: Value) -> int | None:
    if isinstance(value, Known):
        try:
            return int(value.array())
        except NotConcrete:
            pass
    return None


def _cond(eqn: core.JaxprEqn, operands: list[Value]) -> list[Value]:
    which, *rest = operands
    branches = eqn.params["branches"]
    index = _bool_or_int(which)
    if index is not None:
        return _closed(branches[min(max(index, 0), len(branches) - 1)], rest)
    outcomes = [_closed(branch, rest) for branch in branches]
    results = []
    for var, *possible in zip(eqn.outvars, *outcomes, strict=True):
        value = possible[0]
        for other in possible[1:]:
            value = _either(value, other)
        if isinstance(value, Known):
            value = _opaque()
        results.append(_also(value, which, shape_of(var)))
    return results


# --- loops ----------------------------------------------------------------------------------------


def _cost(jaxpr: Any) -> int:
    """How many equations following a jaxpr once takes, roughly."""
    inner = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    total = len(inner.eqns)
    for eqn in inner.eqns:
        repeats = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        for param in eqn.params.values():
            for one in param if isinstance(param, tuple | list) else (param,):
                if isinstance(one, core.ClosedJaxpr | core.Jaxpr):
                    total += repeats * _cost(one)
    return total


def _row(value: Value, i: int) -> Value:
    """`value[i]` of what a scan goes over."""
    if isinstance(value, Known):
        return Known(lambda array: array[i], (value,), value.structural)
    return tuple(seen.without(0, i) for seen in value)


def _any_row(value: Value) -> Value:
    if isinstance(value, Known):
        return _opaque()
    return tuple(seen.hull(0).without(0) for seen in value)


def _widened(
    step: Callable[[list[Value]], list[Value]], carry: list[Value], shapes: list[tuple[int, ...]]
) -> list[Value]:
    """What the carry may be after any number of steps."""
    carry = [_opaque() if isinstance(value, Known) else value for value in carry]
    for attempt in range(_ROUNDS + len(carry) + 1):
        new = [_either(a, b) for a, b in zip(carry, step(carry), strict=True)]
        new = [
            old if isinstance(old, Known) and isinstance(v, Known) else v
            for old, v in zip(carry, new, strict=True)
        ]
        grown = [not _same(a, b) for a, b in zip(carry, new, strict=True)]
        if not any(grown):
            return carry
        if attempt >= _ROUNDS:
            new = [
                tuple(Seen.whole(s.pixels, shape) for s in v)
                if more and isinstance(v, tuple)
                else v
                for v, more, shape in zip(new, grown, shapes, strict=True)
            ]
        carry = new
    return carry


def _scan(eqn: core.JaxprEqn, operands: list[Value]) -> list[Value]:
    body, length = eqn.params["jaxpr"], eqn.params["length"]
    num_consts, num_carry = eqn.params["num_consts"], eqn.params["num_carry"]
    consts = operands[:num_consts]
    carry = operands[num_consts : num_consts + num_carry]
    xs = operands[num_consts + num_carry :]
    out_shapes = [shape_of(var) for var in eqn.outvars]
    tracked = next(o for o in operands if isinstance(o, tuple))
    if not length:
        empty = tuple(Seen.nothing(s.pixels, ()) for s in tracked)
        return carry + [
            tuple(spread_over(s, shape) for s in empty) for shape in out_shapes[num_carry:]
        ]
    if length * _cost(body) > _PATIENCE:
        rows = [_any_row(x) for x in xs]
        last = _widened(
            lambda c: _closed(body, [*consts, *c, *rows])[:num_carry], carry, out_shapes[:num_carry]
        )
        ys = _closed(body, [*consts, *last, *rows])[num_carry:]
        return last + [_spread_rows(y, length) for y in ys]
    rows_of_ys: list[list[Value]] = []
    order = reversed(range(length)) if eqn.params["reverse"] else range(length)
    steady = all(_steady(x) for x in xs)
    for _, i in enumerate(order):
        out = _closed(body, [*consts, *carry, *(_row(x, i) for x in xs)])
        new = out[:num_carry]
        rows_of_ys.append(out[num_carry:])
        if steady and all(_same(a, b) for a, b in zip(carry, new, strict=True)):
            missing = length - len(rows_of_ys)
            rows_of_ys.extend([out[num_carry:]] * missing)
            break
        carry = new
    if eqn.params["reverse"]:
        rows_of_ys.reverse()
    columns = zip(*rows_of_ys, strict=True) if len(out) > num_carry else ()
    return carry + [
        _stacked(list(column), shape)
        for column, shape in zip(columns, out_shapes[num_carry:], strict=True)
    ]


def _steady(xs: Value) -> bool:
    return isinstance(xs, tuple) and all(seen.same_along(0) for seen in xs)


def _spread_rows(value: Value, length: int) -> Value:
    if isinstance(value, Known):
        return _opaque()
    return tuple(seen.inserted(0, length) for seen in value)


def _stacked(rows: list[Value], shape: tuple[int, ...]) -> Value:
    """The rows that a scan puts out as one array."""
    if all(isinstance(row, Known) for row in rows):
        known = [row for row in rows if isinstance(row, Known)]
        return Known(
            lambda *values: np.stack([np.asarray(v) for v in values]),
            known,
            all(row.structural for row in known),
        )
    tracked = next(row for row in rows if isinstance(row, tuple))
    result = []
    for axis, some in enumerate(tracked):
        seens = [
            Seen.nothing(some.pixels, shape[1:]) if isinstance(row, Known) else row[axis]
            for row in rows
        ]
        if all(seen == seens[0] for seen in seens):
            result.append(seens[0].inserted(0, len(rows)))
        else:
            result.append(joined([seen.inserted(0) for seen in seens], 0))
    return tuple(result)


def _while(eqn: core.JaxprEqn, operands: list[Value]) -> list[Value]:
    test, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
    first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    test_consts, body_consts = operands[:first], operands[first : first + second]
    carry = operands[first + second :]
    shapes = [shape_of(var) for var in eqn.outvars]
    spent, cost = 0, _cost(body) + _cost(test) + 1
    while spent < _PATIENCE:
        going = _closed(test, [*test_consts, *carry])[0]
        outcome = None if _shaped(going) else _bool_or_int(going)
        if outcome is None:
            break
        if not outcome:
            return carry
        carry = _closed(body, [*body_consts, *carry])
        spent += cost
    carry = _widened(lambda c: _closed(body, [*body_consts, *c]), carry, shapes)
    going = _closed(test, [*test_consts, *carry])[0]
    return [_also(value, going, shape) for value, shape in zip(carry, shapes, strict=True)]


def _shaped(value: Value) -> bool:
    """Whether a loop's condition depends on the input, so that nobody knows it."""
    return isinstance(value, tuple)


_CONTROL: dict[str, Callable[[core.JaxprEqn, list[Value]], list[Value]]] = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
}
