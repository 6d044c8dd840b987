"""How records of text become plain JSON, as the `meta` of a checkpoint holds it, and back."""

import json
from typing import Any, Self

from jaxd2l import records


class Stored:
    """Gives a record `to_json` and `from_json`."""

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON (dict, list, str, int), which `from_json` reads."""
        made: dict[str, Any] = json.loads(records.dump(self))
        return made

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The record that `to_json` wrote.

        Raises:
          ValueError: not of this kind, or values that the record refuses.
        """
        made = records.load(json.dumps(value))
        if not isinstance(made, cls):
            raise ValueError(f"from_json: wanted a {cls.__name__}, got {type(made).__name__}")
        return made
