"""What torchvision calls the layers of its networks.

A rule maps the paths of layers that a regular expression matches in full to the name of a PyTorch
module: a template such as `layer\\1.conv\\2`, or a function of the match where numbers are shifted.
The family of a network is found from its paths.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

#: A pattern of paths, and the name of the module: a template or a function of the match.
Names = Mapping[str, str | Callable[[re.Match[str]], str]]


class Family(NamedTuple):
    """Networks that share their names.

    Attributes:
      name: of the family.
      needs: paths that all of them have.
      rules: the names, or a function that makes them from the paths, where PyTorch counts layers.
      size: pixels along each side of the images that they were made for.
    """

    name: str
    needs: tuple[str, ...]
    rules: Names | Callable[[Sequence[str]], Names]
    size: int = 224


def _minus_one(template: str) -> Callable[[re.Match[str]], str]:
    """The template with each `{1}` replaced by the number of that group, less one."""

    def name(match: re.Match[str]) -> str:
        text = re.sub(r"\{(\d)\}", lambda m: str(int(match[int(m[1])]) - 1), template)
        return match.expand(text)

    return name


def _plus_one(match: re.Match[str]) -> str:
    """The units after the first of a stage, stacked as `units`: PyTorch's 1, 2, ..."""
    return f"layer{match[1]}.{int(match[2]) + 1}.{match[3]}"


RESNET: Names = {
    r"(conv1|bn1)": r"\1",
    r"stage(\d)/unit(\d+)/(conv\d|bn\d)": _minus_one(r"layer\1.{2}.\3"),
    r"stage(\d)/\[(\d+)\]/units/(conv\d|bn\d)": _plus_one,
    r"stage(\d)/unit1/shortcut/conv": r"layer\1.0.downsample.0",
    r"stage(\d)/unit1/shortcut/bn": r"layer\1.0.downsample.1",
    r"output": "fc",
}

FAMILIES: tuple[Family, ...] = (
    Family("resnet", ("conv1", "bn1", "stage1/unit1/conv1", "output"), RESNET),
)


def family_of(paths: Sequence[str]) -> Family:
    """The family whose names cover every path.

    Raises:
      ValueError: there is none; the message names the nearest and the paths that it lacks.

    Example:
      >>> family_of(["conv1", "bn1", "stage1/unit1/conv1", "output"]).name
      'resnet'
    """
    missed: dict[str, list[str]] = {}
    for family in FAMILIES:
        names = rules_of(family, paths)
        lacks = [f"{need} (needed)" for need in family.needs if need not in paths]
        lacks += [path for path in paths if not _matches(path, names)]
        if not lacks:
            return family
        missed[family.name] = lacks
    nearest = min(missed, key=lambda name: len(missed[name]))
    raise ValueError(
        f"no table of PyTorch names covers this network; the nearest, {nearest}, lacks "
        f"{_some(missed[nearest])}. Pass names={{pattern of paths: PyTorch name}}; the paths are "
        f"{_some(paths)}"
    )


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 9} more" if len(paths) > 9 else ""
    return ", ".join(map(repr, paths[:9])) + more


def rules_of(family: Family, paths: Sequence[str]) -> Names:
    """The rules of a family for a network with these paths."""
    return family.rules(paths) if callable(family.rules) else family.rules


def _matches(path: str, names: Names) -> list[tuple[str, re.Match[str]]]:
    found = ((pattern, re.fullmatch(pattern, path)) for pattern in names)
    return [(pattern, match) for pattern, match in found if match]


def module_names(paths: Sequence[str], names: Names) -> dict[str, str]:
    """PyTorch's name of the module at each path.

    Raises:
      ValueError: a path that no rule or more than one matches; all of them are listed.
      TypeError: a rule that is neither a template nor a function.

    Example:
      >>> module_names(["conv1", "conv2"], {r"conv(\\d)": r"features.\\1"})
      {'conv1': 'features.1', 'conv2': 'features.2'}
    """
    made, problems = {}, []
    for path in paths:
        matches = _matches(path, names)
        if len(matches) != 1:
            by = f"by {[pattern for pattern, _ in matches]}" if matches else "by no rule"
            problems.append(f"{path!r} is matched {by}")
            continue
        pattern, match = matches[0]
        made[path] = _name(names[pattern], pattern, match)
    if problems:
        raise ValueError(
            "each path must be matched in full by exactly one rule of names:\n  "
            + "\n  ".join(problems)
        )
    return made


def _name(rule: Any, pattern: str, match: re.Match[str]) -> str:
    name = rule(match) if callable(rule) else rule
    if not isinstance(name, str):
        raise TypeError(f"names: {pattern!r} must give a string, got {name!r}")
    return name if callable(rule) else match.expand(name)
