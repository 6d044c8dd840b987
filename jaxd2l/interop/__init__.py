"""Weights and networks of other libraries. Each module is imported when it is first used."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxd2l.interop import flax as flax
    from jaxd2l.interop import torch as torch

_LATER = ("flax", "torch")


def __getattr__(name: str) -> ModuleType:
    if name in _LATER:
        return importlib.import_module(f"jaxd2l.interop.{name}")
    raise AttributeError(f"module 'jaxd2l.interop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
