"""Patterns of paths such as `output/*`: `*` matches any text, "/" included (Python's fnmatch)."""

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any


def check_patterns(patterns: Any, where: str) -> tuple[str, ...]:
    """A collection of path patterns, not one string.

    Example:
      >>> check_patterns("output/*", "transfer: leave")
      Traceback (most recent call last):
      TypeError: transfer: leave: expected a list of path patterns such as ['output/*'],
      got 'output/*'
    """
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise TypeError(
            f"{where}: expected a list of path patterns such as ['output/*'], got {patterns!r}"
        )
    found = tuple(patterns)
    for pattern in found:
        if not isinstance(pattern, str):
            raise TypeError(f"{where}: a path pattern must be a string, got {pattern!r}")
    return found


def matching(path: str, patterns: Iterable[str]) -> list[str]:
    """The patterns that match a path.

    Example:
      >>> matching("output/bias", ["output/*", "*/kernel", "*bias"])
      ['output/*', '*bias']
    """
    return [pattern for pattern in patterns if fnmatch.fnmatchcase(path, pattern)]


def unmatched(patterns: Iterable[str], paths: Iterable[str], what: str) -> list[str]:
    """A line for each pattern that matches no path; `what` says what the paths are of.

    Example:
      >>> unmatched(["head/*"], ["output/bias"], "parameter")
      ["the pattern 'head/*' matches no parameter; the paths are ['output/bias']"]
    """
    known = sorted(set(paths))
    return [
        f"the pattern {pattern!r} matches no {what}; the paths are {known}"
        for pattern in patterns
        if not fnmatch.filter(known, pattern)
    ]


def refuse(where: str, problems: Sequence[str]) -> None:
    """Raise ValueError with all the problems, one a line; do nothing where there are none."""
    if problems:
        raise ValueError(f"{where}:\n  " + "\n  ".join(problems))
