"""A table as a matrix for training: standardised numbers and one-hot text, fitted on one table."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxd2l.data.tabular import Table, is_missing, one_hot_columns, to_matrix


class Encoder(NamedTuple):
    """What `encode` needs to know of the table it was fitted on.

    Attributes:
      means, stds: of each column of numbers, over the values present.
      categories: of each column of text, in sorted order.
    """

    means: dict[str, float]
    stds: dict[str, float]
    categories: dict[str, tuple[str, ...]]


def fit_encoder(table: Mapping[str, np.ndarray]) -> Encoder:
    """The mean and standard deviation of each column of numbers, the categories of each of text.

    Both are over the values that are present; the variance is divided by n - 1. Fit on the
    training part alone: statistics of what is predicted later are not known in use.

    Raises:
      ValueError: a column of numbers without any value.

    Source: D2L 5.7.4, where it is fitted on training and test data together.

    Example:
      >>> fit_encoder({"rooms": np.array([np.nan, 2.0, 4.0]), "Alley": np.array(["Pave"] * 3)})
      Encoder(means={'rooms': 3.0}, stds={'rooms': 1.4142135623730951},
              categories={'Alley': ('Pave',)})
    """
    means, stds, categories = {}, {}, {}
    for title, column in table.items():
        present = column[~is_missing(column)]
        if column.dtype.kind != "f":
            categories[title] = tuple(sorted(set(present.tolist())))
            continue
        if not len(present):
            raise ValueError(f"fit_encoder: column {title!r} has no values; leave it out")
        constant = (present == present[0]).all()  # the mean of equal numbers may be rounded
        means[title] = float(present[0] if constant else present.mean())
        stds[title] = 0.0 if constant else float(present.std(ddof=1))
    return Encoder(means, stds, categories)


def encode(encoder: Encoder, table: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The table as a matrix, by the statistics of the table that `encoder` was fitted on.

    Numbers become `(x - mean) / std`, missing ones 0, which is the mean; a column that was
    constant becomes 0. Text becomes one column for each category and one for what is missing. A
    category that the encoder has not seen counts as missing.

    Shapes:
      matrix: (n, number of columns) float32.

    Raises:
      ValueError: a column that the encoder does not know, or lacks.

    Source: D2L 5.7.4.

    Example:
      >>> table = {"rooms": np.array([np.nan, 2.0, 4.0]),
      ...          "Alley": np.array(["Pave", "Pave", None], object)}
      >>> encode(fit_encoder(table), table)
      (array([[ 0.        ,  1.        ,  0.        ],
             [-0.70710677,  1.        ,  0.        ],
             [ 0.70710677,  0.        ,  1.        ]], dtype=float32),
             ('rooms', 'Alley_Pave', 'Alley_nan'))
    """
    known = {*encoder.means, *encoder.categories}
    if set(table) != known:
        raise ValueError(
            f"encode: the encoder was fitted on other columns: new are "
            f"{sorted(set(table) - known)}, lacking {sorted(known - set(table))}"
        )
    ready: Table = {}
    for title in (*encoder.means, *encoder.categories):
        column = table[title]
        absent = is_missing(column)
        if title in encoder.means:
            if column.dtype.kind != "f":
                if not absent.all():
                    raise ValueError(
                        f"encode: column {title!r} was of numbers when fitted, and is now text"
                    )
                column = np.zeros(len(column))
            std = encoder.stds[title] or np.inf
            ready[title] = np.where(absent, 0.0, (column - encoder.means[title]) / std)
            continue
        seen = set(encoder.categories[title])
        if column.dtype.kind == "f" and not absent.all():
            raise ValueError(
                f"encode: column {title!r} was of text when fitted, and is now of numbers"
            )
        ready[title] = np.array([value if value in seen else None for value in column], object)
    return to_matrix(one_hot_columns(ready, encoder.categories)[0])
