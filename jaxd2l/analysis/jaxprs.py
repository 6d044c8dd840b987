"""How the equations of a jaxpr hold other jaxprs, in every supported version of jax."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core


def opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and its constants, whether it came closed or not."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def scan_layout(eqn: core.JaxprEqn) -> tuple[int, int]:
    """How many of a scan's inputs are constants, and how many are the carry; the rest it goes over.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jax import lax
      >>> def f(w, xs):
      ...     return lax.scan(lambda carry, x: (carry * w + x, carry), 0.0, xs)
      >>> scan_layout(jax.make_jaxpr(f)(2.0, jnp.ones(3)).eqns[-1])
      (1, 1)
    """
    if "ft_in" in eqn.params:  # jax 0.12
        consts, carry, _ = eqn.params["ft_in"].unpack()
        return len(list(consts)), len(list(carry))
    return eqn.params["num_consts"], eqn.params["num_carry"]


def callee(eqn: core.JaxprEqn) -> Any:
    """The jaxpr that an equation calls once with its operands; None if it is no call.

    Calls are many (`jit`, `remat2`, `custom_vjp_call`, `shard_map`, ...) and told by what they
    hold: one jaxpr whose inputs and results are of the ranks of the equation's.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> eqn = jax.make_jaxpr(jax.jit(jnp.sin))(1.0).eqns[0]
      >>> [inner.primitive.name for inner in opened(callee(eqn))[0].eqns]
      ['sin']
    """
    if eqn.primitive.name in ("cond", "scan", "while"):
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr", "fwd_jaxpr", "call", "callee"):
        jaxpr: Any = eqn.params.get(key)
        inner, consts = opened(jaxpr)
        if not isinstance(inner, core.Jaxpr) or len(consts) != len(inner.constvars):
            continue
        if len(inner.invars) != len(eqn.invars) or len(inner.outvars) != len(eqn.outvars):
            continue
        inside, outside = (*inner.invars, *inner.outvars), (*eqn.invars, *eqn.outvars)
        if all(_rank(a) == _rank(b) for a, b in zip(inside, outside, strict=True)):
            return jaxpr
    return None


def _rank(atom: Any) -> int:
    return len(getattr(atom.aval, "shape", ()))
