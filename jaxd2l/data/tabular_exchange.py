"""Tables from pandas, and tables as CSV files."""

import csv
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxd2l.checkpoint.atomic import replacing
from jaxd2l.data.tabular import Table, check_columns, is_missing


def from_pandas(frame: Any) -> Table:
    """A pandas `DataFrame` as a table: numbers and bools as float64, everything else as text.

    What pandas calls missing (NaN, None, NaT, NA) is missing here too. The index is left out.
    Needs pandas, the extra "pandas".

    Raises:
      TypeError: not a `DataFrame`, or a column that is neither numbers nor text.
      ValueError: no columns, names repeated or not text, or an infinite number.

    Source: D2L 2.2.1.

    Example:
      >>> import pandas
      >>> from_pandas(pandas.DataFrame({"rooms": [3, 4], "Alley": ["Pave", None]}))
      {'rooms': array([3., 4.]), 'Alley': array(['Pave', None], dtype=object)}
    """
    import pandas

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


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def write_csv(path: str | os.PathLike[str], table: Mapping[str, np.ndarray]) -> None:
    """A table as a CSV file (UTF-8, a header line, missing values as NA), written in one step.

    `read_csv` reads the same table back: numbers to the last bit. An earlier file stays as it was
    if writing fails.

    Raises:
      ValueError: no columns, columns of unequal length, infinite numbers, or text that would not
        be read back: it begins or ends with a space or stands for a missing value.
      OSError: the file cannot be written.

    Source: D2L 2.2.1.
    """
    rows = check_columns(table, "write_csv")
    columns = []
    for title, column in table.items():
        absent, cells = is_missing(column), []
        for value, gone in zip(column.tolist(), absent.tolist(), strict=True):
            if isinstance(value, float) and np.isinf(value):
                raise ValueError(f"write_csv: column {title!r} holds an infinite number")
            cells.append("NA" if gone else _cell(value))
        columns.append(cells)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*columns, strict=True) if rows else ())
    with replacing(path) as file:
        file.write(text.getvalue().encode("utf-8"))
