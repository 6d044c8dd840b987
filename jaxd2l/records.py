"""Records: frozen, hashable, printable values that pass through `jit` and can be stored as JSON.

A network and everything it is made of (layers, initialisers) is a record. Two records are equal
when their fields are, so an equal network that was built twice is traced once. Only types that
were declared with `record` are ever rebuilt from a file: nothing is imported by name.
"""

import dataclasses
import json
import math
import numbers
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")

_types: dict[str, type] = {}


def _repr(self: Any) -> str:
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    shown = []
    for field in dataclasses.fields(self):
        others = {name: value for name, value in fields.items() if name != field.name}
        if field.default is dataclasses.MISSING or not _gives(self, others):
            shown.append(f"{field.name}={fields[field.name]!r}")
    return f"{type(self).__name__}({', '.join(shown)})"


def _gives(value: Any, fields: dict[str, Any]) -> bool:
    """Whether these fields are enough to make `value`: what is left out is its default, which
    `__post_init__` may have written in another form (stride 1 as (1, 1))."""
    try:
        return bool(type(value)(**fields) == value)
    except Exception:  # a default may be refused beside the other fields
        return False


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass, static under `jit`, that `dump` and `load` know.

    Fields may hold None, bool, int, float, str, records, and tuples of these (other hashable
    values work too, but then the record cannot be written to a file). Normalise and validate in
    `__post_init__`.

    `repr` leaves out the fields that have their default.

    Raises:
      ValueError: another class of the same name is registered from another module, or a field is
        called "type", which is how `dump` writes the class.

    Example:
      >>> from jaxd2l.records import dump, load, record
      >>> @record
      ... class Point:
      ...     x: int
      ...     y: int = 0
      >>> Point(1)
      Point(x=1)
      >>> load(dump(Point(1, 2))) == Point(1, 2)
      True
    """
    if "__repr__" not in cls.__dict__:
        cls.__repr__ = _repr  # type: ignore[method-assign, assignment]
    made = dataclasses.dataclass(frozen=True)(cls)
    if any(field.name == "type" for field in dataclasses.fields(made)):  # type: ignore[arg-type]
        raise ValueError(f"{made.__name__}: a record cannot have a field called 'type'")
    known = _types.get(made.__name__)
    if known is not None and known.__module__ != made.__module__:
        raise ValueError(
            f"a record named {made.__name__!r} is already defined in {known.__module__}; "
            f"choose another class name"
        )
    jax.tree_util.register_static(made)
    made._is_record = True  # type: ignore[attr-defined]
    _types[made.__name__] = made
    return made


def is_record(value: Any) -> bool:
    """True for instances (not classes) of types declared with `record`.

    Example:
      >>> is_record(3)
      False
    """
    return "_is_record" in vars(type(value))  # its own: a subclass must be declared too


def as_float(value: Any, what: str, minimum: float = -math.inf, maximum: float = math.inf) -> float:
    """`value` as a finite Python float between `minimum` and `maximum`, both allowed.

    Raises:
      TypeError: not a real number (a bool or an array is not one).
      ValueError: NaN, infinite or outside the bounds; the message starts with `what`.

    Example:
      >>> as_float(1, "decay", 0, 1)
      1.0
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{what} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or not minimum <= number <= maximum:
        bounds = [f">= {minimum:g}"] if minimum > -math.inf else []
        bounds += [f"<= {maximum:g}"] if maximum < math.inf else []
        raise ValueError(f"{what} must be {' and '.join(bounds) or 'finite'}, got {number}")
    return number


def _encode(value: Any, where: str) -> Any:
    if is_record(value):
        fields = {
            f.name: _encode(getattr(value, f.name), f"{where}.{f.name}")
            for f in dataclasses.fields(value)
        }
        return {"type": type(value).__name__, **fields}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_encode(v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise TypeError(
        f"{where} holds {value!r}, which cannot be written to a file: only None, bool, int, "
        f"float, str, tuples and records can. Keep such a network in code."
    )


def _decode(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v, f"{where}[{i}]") for i, v in enumerate(value))
    if not isinstance(value, dict):
        return value
    name = value.get("type")
    cls = _types.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(
            f"{where}: unknown record type {name!r}; import the module that defines it first"
        )
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(value) - known - {"type"})
    if unknown:
        raise ValueError(f"{where}: {name} has no field {unknown[0]!r} (it has {sorted(known)})")
    fields = {k: _decode(v, f"{where}.{k}") for k, v in value.items() if k != "type"}
    try:
        return cls(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: not a valid {name}: {error}") from error


def dump(value: Any) -> str:
    """A record as a JSON string; `load` gives an equal record back.

    Raises:
      TypeError: a field holds something that JSON and `load` cannot give back, such as a function.

    Example:
      >>> from jaxd2l.layers import Flatten
      >>> dump(Flatten())
      '{"type": "Flatten"}'
    """
    return json.dumps(_encode(value, type(value).__name__), allow_nan=True)


def load(text: str) -> Any:
    """The record that `dump` wrote.

    Raises:
      ValueError: not JSON, an unknown record type, a field that does not exist, or values that the
        record refuses. Nothing but registered records is built.

    Example:
      >>> import jaxd2l.layers
      >>> load('{"type": "Reshape", "shape": [2, 3]}')
      Reshape(shape=(2, 3))
    """
    try:
        return _decode(json.loads(text), "record")
    except RecursionError:
        raise ValueError("record: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"record: not JSON: {error}") from None
