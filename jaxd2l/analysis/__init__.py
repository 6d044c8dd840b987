"""What can be said of a network, or of any JAX function, before it runs."""

import importlib
from typing import TYPE_CHECKING, Any

from jaxd2l.analysis.measure import Row as Row
from jaxd2l.analysis.summary import Summary as Summary
from jaxd2l.analysis.summary import summarize as summarize

if TYPE_CHECKING:
    from jaxd2l.analysis.effective import EffectiveReceptiveField as EffectiveReceptiveField
    from jaxd2l.analysis.effective import effective_receptive_field as effective_receptive_field
    from jaxd2l.analysis.flops import FlopCount as FlopCount
    from jaxd2l.analysis.flops import Uncounted as Uncounted
    from jaxd2l.analysis.flops import count_flops as count_flops
    from jaxd2l.analysis.receptive import receptive_field as receptive_field

# Imported when first used, so that `import jaxd2l` costs little more than `import jax`.
_LATER = {
    "EffectiveReceptiveField": "effective",
    "effective_receptive_field": "effective",
    "FlopCount": "flops",
    "Uncounted": "flops",
    "count_flops": "flops",
    "receptive_field": "receptive",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"jaxd2l.analysis.{_LATER[name]}"), name)
    raise AttributeError(f"module 'jaxd2l.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
