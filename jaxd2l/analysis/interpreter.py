"""Follows what values see through a jaxpr: calls, loops and branches; the rest are rules."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jax.extend import core

from jaxd2l.analysis import rules_indexing as rules_indexing  # these three enter their rules
from jaxd2l.analysis import rules_products as rules_products
from jaxd2l.analysis import rules_windows as rules_windows
from jaxd2l.analysis.jaxprs import callee, opened, scan_layout
from jaxd2l.analysis.known import Known, NotConcrete, constant, evaluate, literal
from jaxd2l.analysis.rules import RULES, Rule, shape_of, spread_over
from jaxd2l.analysis.seen import Seen
from jaxd2l.analysis.seen_ops import joined, union

#: What is known of a value: one `Seen` per tracked input axis, or that it does not depend on the
#: input.
Value: TypeAlias = tuple[Seen, ...] | Known

#: Equations that a loop may cost before its iterations are no longer followed one by one.
_PATIENCE = 200_000
#: Rounds of a loop of unknown length before what still grows is taken to see everything.
_ROUNDS = 3


def follow(
    jaxpr: core.ClosedJaxpr, values: Sequence[Value], pixels: Sequence[int]
) -> tuple[list[Value], list[str]]:
    """The values of the results of a jaxpr whose inputs have these, and what is to be warned of.

    Args:
      pixels: the sizes of the input axes that are tracked.
    """
    follower = _Follower(tuple(pixels))
    return follower.closed(jaxpr, values), list(follower.warnings)


class _Follower:
    """What does not change on the way through a jaxpr and those inside it."""

    def __init__(self, pixels: tuple[int, ...]) -> None:
        self.pixels = pixels
        self.warnings: dict[str, None] = {}  # a set that keeps the order

    def warn(self, what: str) -> None:
        """Note something that is not known, once."""
        self.warnings[f"{what}; its results are taken to see the whole input"] = None

    def whole(self, var: Any) -> Value:
        """A value that may depend on anything."""
        return tuple(Seen.whole(n, shape_of(var)) for n in self.pixels)

    def closed(self, jaxpr: Any, inputs: Sequence[Value]) -> list[Value]:
        """Follow a jaxpr, with or without constants of its own."""
        jaxpr, consts = opened(jaxpr)
        env: dict[core.Var, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            env[var] = self.whole(var) if _is_reference(var) else constant(const)

        def read(atom: Any) -> Value:
            return literal(atom.val) if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            results = self.results(eqn, [read(atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def results(self, eqn: core.JaxprEqn, operands: list[Value]) -> Sequence[Value]:
        """The values of an equation's results."""
        called = callee(eqn)
        if called is not None:
            return self.call(eqn, called, operands)
        if any(_is_reference(var) for var in eqn.outvars):
            return [self.whole(var) for var in eqn.outvars]  # what is written to it is not followed
        if all(isinstance(operand, Known) for operand in operands):
            return evaluate(eqn, operands)  # type: ignore[arg-type]
        name = eqn.primitive.name
        if name == "cond":
            return self.cond(eqn, operands)
        if name == "scan":
            return self.scan(eqn, operands)
        if name == "while":
            return self.loop(eqn, operands)
        if name == "custom_linear_solve":
            return self.linear_solve(eqn, operands)
        if name in _ONE_TO_ONE:
            return operands
        function = RULES.get(name)
        if function is None:
            if eqn.outvars:
                self.warn(f"what the primitive {name!r} reads is not known")
            return [self.whole(var) for var in eqn.outvars]
        try:
            return self.ruled(function, eqn, operands)
        except Exception as error:  # a use of the primitive that the rule does not foresee
            self.warn(f"the primitive {name!r} could not be followed ({error!r})")
            return [self.whole(var) for var in eqn.outvars]

    def ruled(self, rule: Rule, eqn: core.JaxprEqn, operands: list[Value]) -> list[Value]:
        """The results by a rule, for one tracked axis after the other."""
        columns: list[list[Seen]] = []  # one per axis, one entry per result
        for axis in range(len(self.pixels)):
            found = rule(eqn, [o if isinstance(o, Known) else o[axis] for o in operands])
            columns.append([found] * len(eqn.outvars) if isinstance(found, Seen) else found)
            for seen, var in zip(columns[-1], eqn.outvars, strict=True):
                if seen.shape != shape_of(var):
                    raise ValueError(f"the rule gives {seen.shape} for {var.aval}")
        return list(zip(*columns, strict=True))

    # --- calls and branches -------------------------------------------------------------------

    def call(self, eqn: core.JaxprEqn, called: Any, operands: list[Value]) -> list[Value]:
        """A jaxpr called once."""
        inner, _ = opened(called)
        inside = [
            _viewed(value, shape_of(outer), shape_of(own))
            for value, outer, own in zip(operands, eqn.invars, inner.invars, strict=True)
        ]
        return [
            _viewed(value, shape_of(own), shape_of(outer))
            for value, own, outer in zip(
                self.closed(called, inside), inner.outvars, eqn.outvars, strict=True
            )
        ]

    def cond(self, eqn: core.JaxprEqn, operands: list[Value]) -> list[Value]:
        """One of several jaxprs; all of them, unless it is known which."""
        which, *rest = operands
        branches = eqn.params["branches"]
        index = _number(which) if isinstance(which, Known) and which.structural else None
        if index is not None:
            return self.closed(branches[index], rest)
        results = []
        outcomes = [self.closed(branch, rest) for branch in branches]
        for var, *possible in zip(eqn.outvars, *outcomes, strict=True):
            value = possible[0]
            for other in possible[1:]:
                value = _either(value, other)
            if isinstance(value, Known):
                value = _opaque()
            results.append(_also(value, which, shape_of(var)))
        return results

    def linear_solve(self, eqn: core.JaxprEqn, operands: list[Value]) -> list[Value]:
        """The solver that came with the equation, called with its constants and right-hand side."""
        counts = eqn.params["const_lengths"]
        before = counts.matvec + counts.vecmat
        consts, right = operands[before : before + counts.solve], operands[sum(counts) :]
        return self.closed(eqn.params["jaxprs"].solve, [*consts, *right])

    # --- loops --------------------------------------------------------------------------------

    def scan(self, eqn: core.JaxprEqn, operands: list[Value]) -> list[Value]:
        """A known number of iterations, followed step by step until nothing changes any more."""
        params = eqn.params
        body, length = params["jaxpr"], params["length"]
        num_consts, num_carry = scan_layout(eqn)
        consts, rest = operands[:num_consts], operands[num_consts:]
        carry, xs = rest[:num_carry], rest[num_carry:]
        shapes = [shape_of(var) for var in eqn.outvars]
        if not length:
            nothing = [tuple(Seen.nothing(n, s) for n in self.pixels) for s in shapes[num_carry:]]
            return [*carry, *nothing]
        if length * _cost(body) > _PATIENCE:
            rows = [_any_row(x) for x in xs]
            carry, widened = self.after_any_steps(
                lambda c: self.closed(body, [*consts, *c, *rows])[:num_carry],
                carry,
                eqn.outvars[:num_carry],
            )
            if widened or not all(isinstance(x, Known) or _steady(x) for x in xs):
                self.warn(f"a scan of {length} steps is too long to follow step by step")
            ys = self.closed(body, [*consts, *carry, *rows])[num_carry:]
            return [*carry, *(_spread_rows(y, length) for y in ys)]
        steady = all(_steady(x) for x in xs)
        rows_of_ys: list[list[Value]] = []
        for i in reversed(range(length)) if params["reverse"] else range(length):
            out = self.closed(body, [*consts, *carry, *(_row(x, i) for x in xs)])
            rows_of_ys.append(out[num_carry:])
            settled = steady and all(_same(a, b) for a, b in zip(carry, out, strict=False))
            carry = out[:num_carry]
            if settled:
                rows_of_ys.extend([rows_of_ys[-1]] * (length - len(rows_of_ys)))
                break
        if params["reverse"]:
            rows_of_ys.reverse()
        ys = [
            self.stacked([row[i] for row in rows_of_ys], shape)
            for i, shape in enumerate(shapes[num_carry:])
        ]
        return [*carry, *ys]

    def stacked(self, rows: list[Value], shape: tuple[int, ...]) -> Value:
        """The rows that a scan puts out as one array."""
        known = [row for row in rows if isinstance(row, Known)]
        if len(known) == len(rows):
            return Known(
                lambda *values: np.stack([np.asarray(v) for v in values]),
                known,
                all(row.structural for row in known),
            )
        result = []
        for axis, pixels in enumerate(self.pixels):
            seens = [
                Seen.nothing(pixels, shape[1:]) if isinstance(row, Known) else row[axis]
                for row in rows
            ]
            if all(seen == seens[0] for seen in seens):
                result.append(seens[0].inserted(0, len(rows)))
            else:
                result.append(joined([seen.inserted(0) for seen in seens], 0))
        return tuple(result)

    def loop(self, eqn: core.JaxprEqn, operands: list[Value]) -> list[Value]:
        """A while loop: followed as long as its condition is known, then any number of times."""
        test, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
        first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        test_consts, body_consts = operands[:first], operands[first : first + second]
        carry = operands[first + second :]
        spent, cost = 0, _cost(body) + _cost(test) + 1
        while spent < _PATIENCE:
            going = _number(self.closed(test, [*test_consts, *carry])[0])
            if going is None:
                break
            if not going:
                return carry
            carry = self.closed(body, [*body_consts, *carry])
            spent += cost
        carry, widened = self.after_any_steps(
            lambda c: self.closed(body, [*body_consts, *c]), carry, eqn.outvars
        )
        if widened and spent >= _PATIENCE:
            self.warn("a while loop is too long to follow step by step")
        condition = self.closed(test, [*test_consts, *carry])[0]
        return [
            _also(value, condition, shape_of(var))
            for value, var in zip(carry, eqn.outvars, strict=True)
        ]

    def after_any_steps(
        self, step: Callable[[list[Value]], list[Value]], carry: list[Value], like: Sequence[Any]
    ) -> tuple[list[Value], bool]:
        """What the carry may be after any number of steps: what still grows after a few rounds is
        taken to see the whole input; and whether anything was.
        """
        widened = False
        carry = [_opaque() if isinstance(value, Known) else value for value in carry]
        for attempt in range(_ROUNDS + len(carry) + 1):
            grown = False
            after = [_either(a, b) for a, b in zip(carry, step(carry), strict=True)]
            for i, (old, new) in enumerate(zip(carry, after, strict=True)):
                if isinstance(new, Known) or _same(old, new):
                    continue
                carry[i] = new if attempt < _ROUNDS else self.whole(like[i])
                grown, widened = True, attempt >= _ROUNDS
            if not grown:
                break
        return carry, widened


_ONE_TO_ONE = ("optimization_barrier", "device_put", "layout_constraint")


def _is_reference(var: Any) -> bool:
    """Whether a variable is a mutable reference."""
    return hasattr(var.aval, "inner_aval")


def _viewed(value: Value, before: tuple[int, ...], shape: tuple[int, ...]) -> Value:
    """A value as a shard of it, or the other way round: other sizes of axes along which all see
    the same. Along other axes a shard may be any part.
    """
    if before == shape:
        return value
    if isinstance(value, Known):
        return _opaque()
    seens = []
    for seen in value:
        for axis, size in enumerate(shape):
            if seen.shape[axis] != size:
                seen = seen.hull(axis).resized(axis, size)
        seens.append(seen)
    return tuple(seens)


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


def _number(value: Value) -> int | None:
    """The value of a scalar; None where it depends on the input or exists at run time only."""
    if isinstance(value, Known):
        try:
            return int(value.array())
        except NotConcrete:
            pass
    return None


def _cost(jaxpr: Any) -> int:
    """How many equations following a jaxpr once takes, roughly."""
    inner, _ = opened(jaxpr)
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


def _steady(xs: Value) -> bool:
    return isinstance(xs, tuple) and all(seen.same_along(0) for seen in xs)


def _spread_rows(value: Value, length: int) -> Value:
    if isinstance(value, Known):
        return _opaque()
    return tuple(seen.inserted(0, length) for seen in value)
