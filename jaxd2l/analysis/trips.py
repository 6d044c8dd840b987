"""How often a `while` goes round, where the program alone decides it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.interpreters import partial_eval

from jaxd2l.analysis.jaxprs import opened
from jaxd2l.analysis.known import Known, NotConcrete


def concrete(value: Known | None) -> Any:
    """What `value` is.

    Raises:
      NotConcrete: it depends on the arguments, or exists only at run time.
    """
    if value is None:
        raise NotConcrete("it depends on the arguments")
    return value.value()


class LoopCounter:
    """The part of a `while` that decides when it ends: usually a counter and a comparison.

    Attributes:
      eqn: the equation.
      test, step: jaxprs of the condition, and of as much of the body as the condition needs.
      needed: for each input of the equation, whether they need it.

    Example:
      >>> def f(x):
      ...     return lax.while_loop(lambda c: c[0] < 6, lambda c: (c[0] + 2, c[1] @ c[1]), (0, x))
      >>> loop = jax.make_jaxpr(f)(jnp.ones((2, 2))).eqns[-1]
      >>> counter = LoopCounter(loop)
      >>> [eqn.primitive.name for eqn in counter.step.eqns]
      ['add']
      >>> counter.trips([Known(lambda: 0), None], limit=100)
      3
    """

    def __init__(self, eqn: core.JaxprEqn) -> None:
        p = eqn.params
        self.eqn = eqn
        c, b = p["cond_nconsts"], p["body_nconsts"]
        (test, test_consts), (body, body_consts) = opened(p["cond_jaxpr"]), opened(p["body_jaxpr"])
        used = partial_eval.dce_jaxpr(test, [True])[1][c:]
        while True:  # what the condition needs, and what that needs in the body
            uses = partial_eval.dce_jaxpr(body, used)[1][b:]
            more = [u or v for u, v in zip(used, uses, strict=True)]
            if more == used:
                break
            used = more
        self.test: Any
        self.step: Any
        self.test, in_test = partial_eval.dce_jaxpr(test, [True], [False] * c + used)
        self.step, in_step = partial_eval.dce_jaxpr(body, used, [False] * b + used)
        self.needed = [*in_test[:c], *in_step]
        n_test, n_step = sum(in_test[:c]), sum(in_step[:b])
        dtypes = [v.aval.dtype for v in self.step.invars[n_step:]]

        def trips(limit: Any, *values: Any) -> Any:
            for_test, for_step = values[:n_test], values[n_test : n_test + n_step]

            def going(state: Any) -> Any:
                (more,) = jax.core.eval_jaxpr(self.test, test_consts, *for_test, *state[1])
                return (state[0] < limit) & more

            def advance(state: Any) -> Any:
                counter = jax.core.eval_jaxpr(self.step, body_consts, *for_step, *state[1])
                return state[0] + 1, _typed(counter, dtypes)

            start = _typed(values[n_test + n_step :], dtypes)
            return lax.while_loop(going, advance, (jnp.int32(0), start))[0]

        self._trips = jax.jit(trips)

    def trips(self, inputs: Sequence[Known | None], limit: int) -> int | None:
        """How often the loop goes round, from the inputs of the equation; only this part is run.

        None where that depends on an input that is not known or has effects, or is `limit` or more.
        """
        if self.test.effects or self.step.effects:
            return None
        try:
            values = [concrete(v) for v, u in zip(inputs, self.needed, strict=True) if u]
        except NotConcrete:
            return None
        with jax.ensure_compile_time_eval():
            trips = int(self._trips(jnp.int32(limit), *values))
        return trips if trips < limit else None


def _typed(values: Sequence[Any], dtypes: Sequence[Any]) -> list[Any]:
    """`values` without weak types, which a loop may not change."""
    return [
        value
        if jax.dtypes.issubdtype(dtype, jax.dtypes.extended)
        else lax.convert_element_type(value, dtype)
        for value, dtype in zip(values, dtypes, strict=True)
    ]
