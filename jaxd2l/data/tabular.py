"""Tables: CSV files as typed columns, missing values, and their way to a matrix of numbers.

A table is a plain dict from a column's name to its values: float64 with NaN for what is missing, or
an object array of str with None for what is missing.
"""

import csv
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np

Table = dict[str, np.ndarray]

MISSING = ("", "NA", "NaN")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _lines(file: BinaryIO, name: str, max_bytes: int) -> Iterator[str]:
    number, left = 0, max_bytes
    while raw := file.readline(left + 1):
        number, left = number + 1, left - len(raw)
        if left < 0:
            raise ValueError(
                f"{name}: more than the limit of {max_bytes:,} bytes; if that is right, raise "
                f"max_bytes"
            )
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: not UTF-8 text: {error.reason}") from error
        if "\0" in line:
            raise ValueError(f"{name}, line {number}: a NUL byte; this is not a text file")
        yield line


def _rows(file: BinaryIO, name: str, max_bytes: int) -> Iterator[tuple[int, list[str]]]:
    """The rows with the number of their last line; blank lines are left out."""
    reader = csv.reader(_lines(file, name, max_bytes), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: not valid CSV: {error}") from error


def is_number(text: str) -> bool:
    """Whether a table takes this text for a number: what Python takes, less the surprises.

    Example:
      >>> [is_number(text) for text in ("-1.5e3", "1_000", "inf")]
      [True, False, False]
    """
    return _NUMBER.fullmatch(text) is not None


def _numbers(
    values: Sequence[str | None], lines: Sequence[int], where: str, required: bool
) -> np.ndarray | None:
    """The column as float64, or None where a value is not a number and numbers are not required."""
    result = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if value is None:
            continue
        if not is_number(value):
            if not required:
                return None
            raise ValueError(f"{where} must be a number on line {lines[i]}, got {value!r}")
        result[i] = float(value)
        if not math.isfinite(result[i]):
            raise ValueError(f"{where}: the number {value!r} on line {lines[i]} is too large")
    return result


def _check_names(names: Sequence[str], name: str, line: int) -> None:
    for i, title in enumerate(names):
        if not title:
            raise ValueError(f"{name}, line {line}: column {i + 1} has no name")
        if title in names[:i]:
            raise ValueError(f"{name}, line {line}: two columns are named {title!r}")


def read_csv(
    path: str | os.PathLike[str],
    numeric: Collection[str] = (),
    categorical: Collection[str] = (),
    missing: Collection[str] = MISSING,
    max_bytes: int = 256 << 20,
) -> Table:
    """A CSV file (UTF-8, a header line, commas, double quotes) as typed columns, in its order.

    A column whose every value is a number or missing becomes float64 with NaN, any other an object
    array of str with None. `numeric` names columns that must be numbers, `categorical` columns
    that stay text though they look like numbers. Space around a value is dropped. A byte order
    mark and blank lines are passed over.

    Raises:
      ValueError: an empty file, no rows, a row of another length than the header, names that are
        missing or repeated, text that is not UTF-8 or holds NUL, bad quoting, a value in a
        `numeric` column that is no number, a number beyond float64, an unknown column name, a file
        larger than `max_bytes`. The message names the file and the line.
      OSError: the file cannot be opened.

    Source: D2L 2.2.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        rows = _rows(file, name, max_bytes)
        line, header = next(rows, (0, []))
        if not header:
            raise ValueError(f"{name}: empty: there is no header line")
        names = [title.strip() for title in header]
        _check_names(names, name, line)
        for wanted in (*numeric, *categorical):
            if wanted not in names:
                raise ValueError(f"{name}: no column {wanted!r}; it has {names}")
        absent = set(missing)
        lines: list[int] = []
        columns: list[list[str | None]] = [[] for _ in names]
        for line, row in rows:
            if len(row) != len(names):
                raise ValueError(
                    f"{name}, line {line}: {len(row)} values, but the header has {len(names)}"
                )
            lines.append(line)
            for column, value in zip(columns, row, strict=True):
                text = value.strip()
                column.append(None if text in absent else text)
    if not lines:
        raise ValueError(f"{name}: a header, but no rows")
    table: Table = {}
    for title, column in zip(names, columns, strict=True):
        numbers = None
        if title not in categorical:
            numbers = _numbers(column, lines, f"{name}: column {title!r}", title in numeric)
        table[title] = np.array(column, object) if numbers is None else numbers
    return table


def _is_numeric(column: np.ndarray) -> bool:
    return column.dtype.kind == "f"


def check_columns(table: Mapping[str, np.ndarray], where: str) -> int:
    """Refuse a table without columns, or with columns of unequal length; gives its rows.

    Example:
      >>> check_columns({"a": np.zeros(2), "b": np.zeros(2)}, "to_matrix")
      2
    """
    if not table:
        raise ValueError(f"{where}: the table has no columns")
    lengths = {title: len(column) for title, column in table.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{where}: columns of unequal length: {lengths}")
    return next(iter(lengths.values()))


def take_rows(table: Mapping[str, np.ndarray], rows: np.ndarray | Sequence[int]) -> Table:
    """The rows at the indices `rows`, in that order, or where a mask of bools is True (copies).

    Raises:
      ValueError: no columns, or columns of unequal length.
      IndexError: an index outside the table.

    Example:
      >>> take_rows({"a": np.array([1.0, 2.0, 3.0])}, [2, 0])
      {'a': array([3., 1.])}
    """
    check_columns(table, "take_rows")
    return {title: column[np.asarray(rows)] for title, column in table.items()}


def drop_columns(table: Mapping[str, np.ndarray], names: Collection[str]) -> Table:
    """The table without the columns called `names`.

    Raises:
      ValueError: a name that the table does not have.

    Example:
      >>> list(drop_columns({"Id": np.zeros(1), "rooms": np.zeros(1)}, ["Id"]))
      ['rooms']
    """
    unknown = [name for name in names if name not in table]
    if unknown:
        raise ValueError(f"drop_columns: no column {unknown[0]!r}; the table has {list(table)}")
    return {title: column for title, column in table.items() if title not in names}


def join_rows(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Table:
    """The rows of one table, then those of another with the same columns.

    A column without any value has no kind of its own: it takes that of its namesake.

    Raises:
      ValueError: other columns, or a column of numbers here and of text there.

    Example:
      >>> join_rows({"a": np.array([1.0])}, {"a": np.array([2.0])})
      {'a': array([1., 2.])}
    """
    if set(first) != set(second):
        differing = sorted(set(first) ^ set(second))
        raise ValueError(f"join_rows: only one of the tables has the columns {differing}")
    joined: Table = {}
    for title in first:
        parts = [first[title], second[title]]
        if not all(map(_is_numeric, parts)):
            for i, part in enumerate(parts):
                if _is_numeric(part):
                    if not np.isnan(part).all():
                        raise ValueError(
                            f"join_rows: column {title!r} holds numbers in one table and text in "
                            f"the other; read it with categorical=[{title!r}]"
                        )
                    parts[i] = np.full(len(part), None, object)
        joined[title] = np.concatenate(parts)
    return joined


def is_missing(column: np.ndarray) -> np.ndarray:
    """Where a column has no value: NaN among numbers, None in text.

    Example:
      >>> is_missing(np.array(["Pave", None], object))
      array([False,  True])
    """
    if _is_numeric(column):
        return np.isnan(column)
    return np.array([value is None for value in column], bool)


def drop_missing_rows(table: Mapping[str, np.ndarray]) -> Table:
    """The rows that lack nothing.

    Raises:
      ValueError: no columns, columns of unequal length, or no row is left.

    Source: D2L 2.2.2 (deletion, the other way beside `fill_missing`).

    Example:
      >>> drop_missing_rows({"a": np.array([1.0, np.nan]), "b": np.array(["x", "y"], object)})
      {'a': array([1.]), 'b': array(['x'], dtype=object)}
    """
    rows = check_columns(table, "drop_missing_rows")
    lacking = np.zeros(rows, bool)
    for column in table.values():
        lacking |= is_missing(column)
    if lacking.all():
        raise ValueError(
            "drop_missing_rows: every row lacks something; drop columns or use fill_missing"
        )
    return take_rows(table, ~lacking)


def drop_missing_columns(table: Mapping[str, np.ndarray], most: int = 0) -> Table:
    """The columns in which at most `most` values are missing.

    Raises:
      ValueError: no column is left.

    Source: D2L 2.2.5 (an exercise drops the column with the most missing values).

    Example:
      >>> list(drop_missing_columns({"a": np.array([1.0, np.nan]), "b": np.array([1.0, 2.0])}))
      ['b']
    """
    kept = {title: column for title, column in table.items() if is_missing(column).sum() <= most}
    if not kept:
        raise ValueError(
            f"drop_missing_columns: every column lacks more than {most} values; raise most or use "
            f"fill_missing"
        )
    return kept


def fill_missing(
    table: Mapping[str, np.ndarray], values: Mapping[str, float] | None = None
) -> tuple[Table, dict[str, float]]:
    """NaN in numeric columns replaced by the column's mean; gives (table, means).

    Give the means of the training part back as `values` for test data. Other columns stay.

    Raises:
      ValueError: a column without any value, or (with `values`) one whose mean is not given.

    Source: D2L 2.2.2.

    Example:
      >>> table, means = fill_missing({"rooms": np.array([np.nan, 2.0, 4.0])})
      >>> table["rooms"], means
      (array([3., 2., 4.]), {'rooms': 3.0})
    """
    filled: Table = {}
    used: dict[str, float] = {}
    for title, column in table.items():
        filled[title] = column
        if not _is_numeric(column):
            continue
        absent = is_missing(column)
        if values is None:
            if absent.all():
                raise ValueError(f"fill_missing: column {title!r} has no values; leave it out")
            used[title] = float(column[~absent].mean())
        elif title in values:
            used[title] = float(values[title])
        else:
            raise ValueError(f"fill_missing: values has nothing for column {title!r}")
        filled[title] = np.where(absent, used[title], column)
    return filled, used


def one_hot_columns(
    table: Mapping[str, np.ndarray], categories: Mapping[str, Sequence[str]] | None = None
) -> tuple[Table, dict[str, tuple[str, ...]]]:
    """Each text column as columns of 0 and 1: `name_value`, `name_nan`; gives (table, categories).

    Every text column gets a column for what is missing, after its categories in sorted order. Give
    the categories of the training part back for test data: a value that is new there raises.
    Numeric columns stay as they are.

    Raises:
      ValueError: a value or a column that `categories` does not have, or two columns of one name.

    Source: D2L 2.2.2 (there `get_dummies(dummy_na=True)`).

    Example:
      >>> table, _ = one_hot_columns({"Alley": np.array(["Pave", None], object)})
      >>> table
      {'Alley_Pave': array([1., 0.]), 'Alley_nan': array([0., 1.])}
    """
    result: Table = {}
    known: dict[str, tuple[str, ...]] = {}

    def put(title: str, column: np.ndarray) -> None:
        if title in result:
            raise ValueError(f"one_hot_columns: two columns would be named {title!r}")
        result[title] = column

    for title, column in table.items():
        if _is_numeric(column):
            put(title, column)
            continue
        present = {value for value in column if value is not None}
        if categories is None:
            known[title] = tuple(sorted(present))
        elif title in categories:
            known[title] = tuple(categories[title])
            new = sorted(present - set(known[title]))
            if new:
                raise ValueError(
                    f"one_hot_columns: column {title!r} has the new value {new[0]!r}; "
                    f"its categories are {known[title]}"
                )
        else:
            raise ValueError(f"one_hot_columns: categories has nothing for column {title!r}")
        for value in known[title]:
            put(f"{title}_{value}", (column == value).astype(np.float64))
        put(f"{title}_nan", is_missing(column).astype(np.float64))
    return result, known


def to_matrix(table: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The numeric columns side by side; gives (matrix, names).

    Shapes:
      matrix: (n, number of columns) float32.

    Raises:
      ValueError: no columns, columns of unequal length, values that are missing or beyond float32.
      TypeError: a text column (see `one_hot_columns`).

    Source: D2L 2.2.3.

    Example:
      >>> to_matrix({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])})
      (array([[1., 3.],
             [2., 4.]], dtype=float32), ('a', 'b'))
    """
    check_columns(table, "to_matrix")
    columns = []
    for title, column in table.items():
        if not _is_numeric(column):
            raise TypeError(f"to_matrix: column {title!r} is text; use one_hot_columns first")
        with np.errstate(over="ignore"):
            columns.append(column.astype(np.float32))
        if not np.isfinite(columns[-1]).all():
            raise ValueError(
                f"to_matrix: column {title!r} has values that are missing or beyond float32; "
                f"use fill_missing first"
            )
    return np.stack(columns, axis=1), tuple(table)
