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
      needs: layers that all of them have.
      rules: the names, or a function that makes them from the paths of all layers in their order,
        those without arrays included, where PyTorch counts layers.
      size: pixels along each side of the images that they were made for.
    """

    name: str
    needs: tuple[str, ...]
    rules: Names | Callable[[Sequence[str]], Names]
    size: int = 224


def _shifted(template: str, by: int) -> Callable[[re.Match[str]], str]:
    """The template with `{2}` replaced by the number that is group 2, plus `by`."""

    def name(match: re.Match[str]) -> str:
        return match.expand(
            re.sub(r"\{(\d)\}", lambda group: str(int(match[int(group[1])]) + by), template)
        )

    return name


RESNET: Names = {
    r"(conv1|bn1)": r"\1",
    r"stage(\d)/unit(\d+)/(conv\d|bn\d)": _shifted(r"layer\1.{2}.\3", -1),
    r"stage(\d)/\[(\d+)\]/units/(conv\d|bn\d)": _shifted(r"layer\1.{2}.\3", 1),  # after the first
    r"stage(\d)/unit1/shortcut/conv": r"layer\1.0.downsample.0",
    r"stage(\d)/unit1/shortcut/bn": r"layer\1.0.downsample.1",
    r"output": "fc",
}

DENSENET: Names = {
    r"conv0": "features.conv0",
    r"bn([05])": r"features.norm\1",
    r"(denseblock\d/denselayer\d+)/conv(\d)": lambda m: f"features.{_dots(m[1])}.conv{m[2]}",
    r"(denseblock\d/denselayer\d+)/bn(\d)": lambda m: f"features.{_dots(m[1])}.norm{m[2]}",
    r"(transition\d)/conv": r"features.\1.conv",
    r"(transition\d)/bn": r"features.\1.norm",
    r"output": "classifier",
}

GOOGLENET: Names = {
    r"(conv\d)/(conv|bn)": r"\1.\2",
    r"(inception\d[a-z])/branch1/(conv|bn)": r"\1.branch1.\2",
    r"(inception\d[a-z])/(branch[23])/conv(\d)/(conv|bn)": _shifted(r"\1.\2.{3}.\4", -1),
    r"(inception\d[a-z])/branch4/(conv|bn)": r"\1.branch4.1.\2",
    r"(aux\d)/conv/(conv|bn)": r"\1.conv.\2",
    r"(aux\d)/dense": r"\1.fc1",
    r"(aux\d)/output": r"\1.fc2",
    r"output": "fc",
}

INCEPTION: Names = {
    r"conv2d_(\w+)/(conv|bn)": r"Conv2d_\1.\2",
    r"mixed_(\d[a-z])/(\w+)/(conv|bn)": r"Mixed_\1.\2.\3",
    r"aux/reduce/(conv|bn)": r"AuxLogits.conv0.\1",
    r"aux/conv/(conv|bn)": r"AuxLogits.conv1.\1",
    r"aux/output": "AuxLogits.fc",
    r"output": "fc",
}

SHUFFLENET: Names = {
    r"(conv[15])/conv": r"\1.0",
    r"(conv[15])/bn": r"\1.1",
    **{
        rf"stage(\d)/unit(\d+)/{branch}/{ours}": _shifted(rf"stage\1.{{2}}.{branch}.{number}", -1)
        for branch, parts in {
            "branch1": ("depthwise/conv", "depthwise/bn", "pointwise/conv", "pointwise/bn"),
            "branch2": (
                *("pointwise1/conv", "pointwise1/bn", None),
                *("depthwise/conv", "depthwise/bn", "pointwise2/conv", "pointwise2/bn"),
            ),
        }.items()
        for number, ours in enumerate(parts)
        if ours
    },
    r"output": "fc",
}


def _dots(path: str) -> str:
    return path.replace("/", ".")


def _counted(steps: Sequence[str], names: Sequence[str], prefix: str) -> Names:
    """`prefix.0`, `prefix.1`, ... for layers or blocks in a row; what is inside keeps its names."""
    return {
        re.escape(step): _dots(f"{prefix}.{number}{step.removeprefix(name)}")
        for number, name in enumerate(names)
        for step in steps
        if step == name or step.startswith(f"{name}/")
    }


def _body_and_head(steps: Sequence[str]) -> Names:
    """AlexNet's and VGG's names: all layers to the adaptive pool, and those after the flatten."""
    head = steps.index("flatten") + 1
    return {
        **_counted(steps, steps[: head - 2], "features"),
        **_counted(steps, steps[head:], "classifier"),
    }


def _squeezenet(steps: Sequence[str]) -> Names:
    """All layers and fire modules to the dropout, and those from it on."""
    parts = [step.split("/")[0] for step in steps]
    parts = [p for i, p in enumerate(parts) if "/" not in steps[i] or p != parts[i - 1]]
    head = parts.index("dropout")
    return {
        **_counted(steps, parts[:head], "features"),
        **_counted(steps, parts[head:], "classifier"),
    }


def _mobilenet_v2(steps: Sequence[str]) -> Names:
    """The units of a block count from 0, wherever it has no `expand`; the last unit stands open."""
    units, parts = ("expand", "depthwise", "project"), ("conv", "bn")
    last = 1 + sum(step.endswith("/project/conv") for step in steps)

    def name(match: re.Match[str]) -> str:
        number, unit, part = match[1], units.index(match[2]), parts.index(match[3])
        first = int(f"block{number}/expand/conv" not in steps)
        inner = unit - first + part if match[2] == "project" else f"{unit - first}.{part}"
        return f"features.{number}.conv.{inner}"

    return {
        r"stem/conv": "features.0.0",
        r"stem/bn": "features.0.1",
        rf"block(\d+)/({'|'.join(units)})/(conv|bn)": name,
        r"head/conv": f"features.{last}.0",
        r"head/bn": f"features.{last}.1",
        r"output": "classifier.1",
    }


FAMILIES: tuple[Family, ...] = (
    Family("alexnet", ("conv5", "adaptive_avg_pool", "flatten", "dense1"), _body_and_head),
    Family("vgg", ("block1/conv1", "adaptive_avg_pool", "flatten", "dense1"), _body_and_head),
    Family("resnet", ("conv1", "bn1", "stage1/unit1/conv1", "output"), RESNET),
    Family("densenet", ("conv0", "denseblock1/denselayer1/conv2", "bn5", "output"), DENSENET),
    Family("googlenet", ("conv1/conv", "inception3a/branch1/conv", "output"), GOOGLENET),
    Family("inception_v3", ("conv2d_1a_3x3/conv", "mixed_5b/branch1x1/conv"), INCEPTION, 299),
    Family("mobilenet_v2", ("stem/conv", "block1/project/conv", "head/conv"), _mobilenet_v2),
    Family("shufflenet_v2", ("conv1/conv", "stage2/unit1/branch1/depthwise/conv"), SHUFFLENET),
    Family("squeezenet", ("conv1", "fire2/squeeze", "dropout", "output"), _squeezenet),
)


def names_of(steps: Sequence[str], paths: Sequence[str]) -> tuple[Names, Family]:
    """The names that cover every path, and the family that has them.

    `steps` are all layers in their order, `paths` those that have arrays.

    Raises:
      ValueError: there is none; the message names the nearest and the paths that it lacks.

    Example:
      >>> paths = ["conv1", "bn1", "stage1/unit1/conv1", "output"]
      >>> names_of(paths, paths)[1].name
      'resnet'
    """
    missed: dict[str, list[str]] = {}
    for family in FAMILIES:
        lacks = [f"{need} (needed)" for need in family.needs if need not in steps]
        if not lacks:
            names = family.rules(steps) if callable(family.rules) else family.rules
            lacks = [path for path in paths if not _matches(path, names)]
            if not lacks:
                return names, family
        missed[family.name] = lacks
    nearest = min(missed, key=lambda name: len(missed[name]))
    raise ValueError(
        f"no table of PyTorch's names covers this network; the nearest, {nearest}, has not "
        f"{_some(missed[nearest])}. Pass names={{pattern of paths: PyTorch's name}}; the paths "
        f"are {_some(paths)}"
    )


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 9} more" if len(paths) > 9 else ""
    return ", ".join(map(repr, paths[:9])) + more


def _matches(path: str, names: Names) -> list[tuple[str, re.Match[str]]]:
    found = [(pattern, re.fullmatch(pattern, path)) for pattern in names]
    return [(pattern, match) for pattern, match in found if match]


def current_key(key: str) -> str:
    """The key in the files of old DenseNets, `denselayer1.norm.1.weight`, as it is today.

    Example:
      >>> current_key("features.denseblock1.denselayer1.norm.1.weight")
      'features.denseblock1.denselayer1.norm1.weight'
    """
    return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$", r"\1\2", key)


def module_names(paths: Sequence[str], names: Names) -> dict[str, str]:
    """PyTorch's name of the module at each path.

    Raises:
      ValueError: a path that no rule or more than one matches; all of them are listed. A pattern
        or template that is not one.
      TypeError: a rule that is neither a template nor a function.

    Example:
      >>> module_names(["conv1", "conv2"], {r"conv(\\d)": r"features.\\1"})
      {'conv1': 'features.1', 'conv2': 'features.2'}
    """
    made, problems = {}, []
    for pattern in names:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"names: {pattern!r} is not a pattern: {error}") from None
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
    try:
        return name if callable(rule) else match.expand(name)
    except re.error as error:
        raise ValueError(f"names: {name!r} does not fit {pattern!r}: {error}") from None
