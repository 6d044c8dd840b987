"""docs/claims.md names tests and functions that exist, and leaves out no claim of the core."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "claims.md"


def numbers(text):
    """'9-13 16' is 9, 10, 11, 12, 13, 16."""
    ends = [tuple(map(int, part.split("-"))) for part in text.split()]
    return [n for end in ends for n in range(end[0], end[-1] + 1)]


CLAIMS = numbers("1-136 139-141 144-160 164 168 174 175")
SYSTEMS = {
    "CA": numbers("1-17"),
    "F": numbers("1-12 17 18 20-40 42 46-49 55"),
    "A": numbers("1-13"),
    "L": numbers("2 10 11 22 23"),
    "N": numbers("1-12"),
    "LO": numbers("1-8 12 13"),
    "IN": numbers("1-7"),
    "NU": numbers("1-5"),
    "TR": [3, 5, 7, 11, 12],
    "BL": [3],
    "M": numbers("1 3 7-19 26 29"),
    "R": numbers("1-3 9"),
    "RE": numbers("1-8 10 12 16"),
    "AT": numbers("2-6"),
    "NLP": [1],
    "OP": numbers("1-17"),
    "SC": numbers("1-6 8 10 13 14"),
    "T": [13],
    "ME": [5],
    "DA": [2, 3, 4],
    "TH": [7],
}


def rows(text, heading):
    """The cells of the table under a heading, without its head."""
    part = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(scope="module")
def page():
    text = PAGE.read_text("utf-8")
    return rows(text, "Claims"), rows(text, "Systems and formulas")


@functools.cache
def defined(path):
    """What a file defines, or passes on from others, at its top level; nothing is imported."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return names


def missing_test(test):
    file, _, name = test.partition("::")
    path = ROOT / "tests" / file
    return not (name.startswith("test_") and path.is_file() and name in defined(path))


def missing_function(function):
    module, _, name = function.rpartition(".")
    place = ROOT / "jaxd2l" / module.replace(".", "/")
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return not (module and path.is_file() and name in defined(path))


def test_each_claim_of_the_core_has_one_row_and_a_verdict(page):
    claims, _ = page
    assert [row[0] for row in claims] == [f"C{n}" for n in CLAIMS]
    for row in claims:
        assert len(row) == 4, row
        assert len(row[1]) > 10, row
        assert row[2] in ("true", "false", "depends", "open"), row


def test_each_system_and_formula_of_the_core_has_one_row(page):
    _, systems = page
    assert all(len(row) == 4 for row in systems)
    ids = [name for row in systems for name in row[0].split(", ")]
    assert sorted(ids) == sorted(f"{kind}{n}" for kind, ns in SYSTEMS.items() for n in ns)


def test_the_tests_and_functions_named_exist(page):
    claims, systems = page
    for row in claims + systems:
        tests = row[3].split(", ")
        assert len(set(tests)) == len(tests) > 0, row
        assert not [test for test in tests if missing_test(test)], row[0]
    for row in systems:
        assert not [f for f in row[2].split(", ") if missing_function(f)], row[0]


@pytest.mark.parametrize(
    "test",
    ["", "test_claims.py", "test_claims.py::draw", "test_claims.py::test_no", "no.py::test_a"],
)
def test_a_name_that_is_wrong_is_noticed(test):
    assert missing_test(test)
    assert not missing_test(f"{Path(__file__).name}::test_a_name_that_is_wrong_is_noticed")


@pytest.mark.parametrize("function", ["", "conv", "ops.conv.no", "ops.no.conv", "geometry.no"])
def test_a_function_that_is_wrong_is_noticed(function):
    assert missing_function(function)
    assert not missing_function("ops.conv.conv")
    assert not missing_function("geometry.conv_macs")


def test_the_page_names_each_test_in_one_way(page):
    """No test of a claim is named in plain text, where it would not be checked."""
    text = PAGE.read_text("utf-8")
    listed = {t for row in page[0] + page[1] for t in row[3].split(", ")}
    assert set(re.findall(r"test_\w+\.py::\w+", text)) == listed
