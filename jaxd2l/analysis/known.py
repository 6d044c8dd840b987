"""Values inside a jaxpr that do not depend on its inputs, computed only when somebody asks.

An analysis of a jaxpr seldom needs numbers: the start of a slice, the indices of a gather, the
counter of a loop, the matrix of a resize. `Known` puts the computation off until then.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core


class NotConcrete(Exception):
    """The value exists only at run time: it is traced, or computing it has an effect."""


class Known:
    """A value that does not depend on the inputs of the function under analysis.

    Attributes:
      structural: whether the value follows from the program text alone (literals, iota, integer
        and boolean arrays) and not from arrays of floats closed over, which are taken for
        parameters: a parameter that happens to be zero is still used.
    """

    __slots__ = ("_compute", "_inputs", "_used", "_value", "structural")

    def __init__(
        self,
        compute: Callable[..., Any],
        inputs: Sequence["Known"] = (),
        structural: bool = True,
        used: Callable[[], np.ndarray | None] | None = None,
    ) -> None:
        self._compute: Callable[..., Any] | None = compute
        self._inputs = inputs
        self._value: Any = None
        self._used = used
        self.structural = structural

    def value(self) -> Any:
        """The value, computed now together with all that it needs.

        Raises:
          NotConcrete: it cannot be computed before run time.
        """
        waiting = [self]  # not recursive: a loop makes long chains
        while waiting:
            known = waiting[-1]
            if known._compute is None:
                waiting.pop()
                continue
            missing = [other for other in known._inputs if other._compute is not None]
            if missing:
                waiting.extend(missing)
                continue
            try:
                known._value = known._compute(*(other._value for other in known._inputs))
            except NotConcrete:
                raise
            except Exception as error:  # a collective outside its mesh, a platform not at hand
                raise NotConcrete("it cannot be computed here") from error
            known._compute, known._inputs = None, ()
            waiting.pop()
        return self._value

    def array(self) -> np.ndarray:
        """The value as a NumPy array.

        Raises:
          NotConcrete: it cannot be computed before run time.
        """
        value = self.value()
        try:
            return np.asarray(value)
        except TypeError as error:  # keys of random numbers
            raise NotConcrete("it is no array of numbers") from error

    def used(self) -> np.ndarray | None:
        """Where the value is not certainly zero; None: anywhere. A parameter is nowhere certainly
        zero, its product with a constant mask is outside the mask.

        Raises:
          NotConcrete: it cannot be computed before run time.
        """
        if self.structural:
            return self.array() != 0
        if self._used is None:
            return None
        mask = self._used()
        self._used = lambda: mask
        return mask


def constant(value: Any) -> Known:
    """An array that the function closes over."""

    def compute() -> Any:
        if isinstance(value, jax.core.Tracer):
            raise NotConcrete("a traced value")
        return value

    return Known(compute, structural=_is_index(getattr(value, "dtype", None)))


def literal(value: Any) -> Known:
    """A number, or an array, that stands in the program."""
    index = np.ndim(value) == 0 or _is_index(getattr(value, "dtype", None))
    return Known(lambda: value, structural=index)


def _is_index(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "iub"


def evaluate(eqn: core.JaxprEqn, inputs: Sequence[Known]) -> list[Known]:
    """The results of an equation all of whose inputs are known, computed when asked for."""

    def compute(*values: Any) -> Any:
        if eqn.effects or "callback" in eqn.primitive.name:
            raise NotConcrete(f"{eqn.primitive} is more than a computation")
        params = eqn.primitive.get_bind_params(eqn.params)
        with jax.ensure_compile_time_eval():
            out = eqn.primitive.bind(*values, **params)
        return out if eqn.primitive.multiple_results else (out,)

    structural = all(known.structural for known in inputs) and not _arbitrary(eqn)
    results = Known(compute, inputs, structural)

    def used() -> np.ndarray | None:
        return _used(eqn, inputs)

    return [
        Known(operator.itemgetter(i), (results,), structural, used) for i in range(len(eqn.outvars))
    ]


#: Primitives whose result is zero where their one operand is.
_KEEP_ZEROS = ("convert_element_type", "copy", "neg", "abs", "stop_gradient")
#: Primitives that only move elements: the same is done to the mask.
_MOVE = ("reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "rev", "slice")


def _used(eqn: core.JaxprEqn, inputs: Sequence[Known]) -> np.ndarray | None:
    """`Known.used` of an equation's result, from that of its operands."""
    name, shape = eqn.primitive.name, tuple(getattr(eqn.outvars[0].aval, "shape", ()))
    if name == "mul":
        found = [mask for mask in (known.used() for known in inputs) if mask is not None]
        masks = [np.broadcast_to(mask, shape) for mask in found]
        return np.logical_and.reduce(masks) if masks else None
    if name in ("add", "sub", "add_any"):
        either = [known.used() for known in inputs]
        if any(mask is None for mask in either):
            return None
        return np.logical_or.reduce([np.broadcast_to(mask, shape) for mask in either])  # type: ignore[arg-type]
    if name == "select_n" and inputs[0].structural:
        which = inputs[0].array().astype(np.int64)
        cases = [known.used() for known in inputs[1:]]
        full = [np.ones(shape, bool) if mask is None else mask for mask in cases]
        return np.choose(np.broadcast_to(which, shape), full)
    if name in _KEEP_ZEROS or name in _MOVE:
        mask = inputs[0].used()
        if mask is None or name in _KEEP_ZEROS:
            return mask
        with jax.ensure_compile_time_eval():
            moved = eqn.primitive.bind(mask, **eqn.primitive.get_bind_params(eqn.params))
        return np.asarray(moved)
    return None


def _arbitrary(eqn: core.JaxprEqn) -> bool:
    """Whether random numbers or arrays closed over make the results, here or in a loop inside."""
    if eqn.primitive.name.startswith(("random_", "rng_", "threefry", "philox")):
        return True
    for param in eqn.params.values():
        for inner in param if isinstance(param, tuple | list) else (param,):
            if isinstance(inner, core.ClosedJaxpr):
                if not all(constant(const).structural for const in inner.consts):
                    return True
                inner = inner.jaxpr
            if isinstance(inner, core.Jaxpr) and any(_arbitrary(eqn) for eqn in inner.eqns):
                return True
    return False
