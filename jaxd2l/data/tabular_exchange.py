"""Tables from pandas, and tables as CSV files."""

import csv
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxd2l.checkpoint.atomic import replacing
from jaxd2l.data.tabular import MISSING, Table, check_columns, is_missing, is_number


def from_pandas(frame: Any) -> Table:
    """A pandas `DataFrame` as a table: numbers and bools as float64, everything else as text.

    What pandas calls missing (NaN, None, NaT, NA) is missing here too. The index is left out.
    Needs pandas, the extra "pandas".

    Raises:
      TypeError: not a `DataFrame`, or a column that is neither numbers nor text.
      ValueError: no columns, names repeated or not text, or an infinite number.
      ImportError: pandas is not installed.

    Source: D2L 2.2.1.

    Example:
      >>> import pandas
      >>> from_pandas(pandas.DataFrame({"rooms": [3, 4], "Alley": ["Pave", None]}))
      {'rooms': array([3., 4.]), 'Alley': array(['Pave', None], dtype=object)}
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("from_pandas needs pandas: pip install 'jaxd2l[pandas]'") from error
    if not isinstance(frame, pandas.DataFrame):
        raise TypeError(f"from_pandas: expected a pandas.DataFrame, got {type(frame).__name__}")
    names = list(frame.columns)
    if not names:
        raise ValueError("from_pandas: the frame has no columns")
    for i, title in enumerate(names):
        if not isinstance(title, str) or not title:
            raise ValueError(f"from_pandas: names of columns must be text, got {title!r}")
        if title in names[:i]:
            raise ValueError(f"from_pandas: two columns are named {title!r}")
    table: Table = {}
    for title in names:
        column = frame[title]
        types = pandas.api.types
        if types.is_complex_dtype(column.dtype):
            raise TypeError(f"from_pandas: column {title!r} is complex")
        if types.is_numeric_dtype(column.dtype):
            table[title] = column.to_numpy(np.float64, na_value=np.nan)
            if np.isinf(table[title]).any():
                raise ValueError(f"from_pandas: column {title!r} holds an infinite number")
            continue
        absent = column.isna().to_numpy()
        values = [
            None if gone else value
            for gone, value in zip(absent, column.astype(object), strict=True)
        ]
        for i, value in enumerate(values):
            if value is not None and not isinstance(value, str):
                raise TypeError(
                    f"from_pandas: column {title!r} must hold numbers or text, got {value!r} in "
                    f"row {i}; convert it with .astype(str)"
                )
        table[title] = np.array(values, object)
    return table


def _number(value: float) -> str:
    """Without ".0" where that is exact; -0.0 keeps its sign."""
    text = repr(value)
    return text.removesuffix(".0")


def _cells(title: str, column: np.ndarray) -> list[str]:
    """A column as text that `read_csv` reads back as it is."""
    where = f"write_csv: column {title!r}"
    absent = is_missing(column)
    values = column.tolist()
    if column.dtype.kind == "f":
        if np.isinf(column).any():
            raise ValueError(f"{where} holds an infinite number")
        return ["NA" if gone else _number(v) for v, gone in zip(values, absent, strict=True)]
    present = [value for value in values if value is not None]
    for value in present:
        if not isinstance(value, str):
            raise ValueError(f"{where} must hold text or numbers, got {value!r}")
        if value in MISSING or value != value.strip() or "\0" in value:
            raise ValueError(
                f"{where} holds {value!r}, which would be read back as something else: missing "
                f"values are None; space around text and NUL bytes are not kept"
            )
    if all(is_number(value) for value in present):
        raise ValueError(
            f"{where} of text would be read back as numbers; convert it with .astype(float)"
        )
    return ["NA" if value is None else value for value in values]


def write_csv(path: str | os.PathLike[str], table: Mapping[str, np.ndarray]) -> None:
    """A table as a CSV file (UTF-8, a header line, missing values as NA), written in one step.

    `read_csv` reads the same table back, numbers to the last bit. An earlier file stays as it was
    if anything is wrong.

    Raises:
      ValueError: no columns, no rows, columns of unequal length, or what would not be read back:
        infinite numbers, text that stands for a missing value or has space around it, columns of
        text that look like numbers or hold nothing, names with space around them.
      OSError: the file cannot be written.

    Source: D2L 2.2.1.

    Example:
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "house.csv"
      >>> write_csv(path, {"rooms": np.array([np.nan, 2]), "Alley": np.array(["Pave", None])})
      >>> path.read_text("utf-8").split()
      ['rooms,Alley', 'NA,Pave', '2,NA']
    """
    if not check_columns(table, "write_csv"):
        raise ValueError("write_csv: the table has no rows")
    for title in table:
        if not title or title != title.strip() or "\0" in title:
            raise ValueError(
                f"write_csv: names of columns must not be empty or have space around them, "
                f"got {title!r}"
            )
    columns = [_cells(title, column) for title, column in table.items()]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*columns, strict=True))
    with replacing(path) as file:
        file.write(text.getvalue().encode("utf-8"))
