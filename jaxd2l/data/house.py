"""The house prices of Kaggle's competition (Ames, Iowa): reading, and the file of predictions."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxd2l.checkpoint.atomic import replacing
from jaxd2l.data.tabular import Table, drop_columns, read_csv

ID, PRICE = "Id", "SalePrice"
FILES = (  # the book's names, and those of the competition
    ("kaggle_house_pred_train.csv", "kaggle_house_pred_test.csv"),
    ("train.csv", "test.csv"),
)


class HousePrices(NamedTuple):
    """The two tables of the competition, without prices and numbers of houses.

    Attributes:
      train, test: what is known of each house; the same columns.
      prices: (n,) float64, US dollars, of the houses in `train`.
      ids: (m,) int64, the numbers of the houses in `test`.
    """

    train: Table
    test: Table
    prices: np.ndarray
    ids: np.ndarray


def _ids(table: Table, where: str) -> np.ndarray:
    column = table[ID]
    bad = ~(column == np.rint(column))
    if bad.any():
        raise ValueError(f"{where}: {ID} must be whole numbers, got {column[bad][0]}")
    ids = column.astype(np.int64)
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{where}: two houses have the {ID} {values[counts > 1][0]}")
    return ids


def load_house_prices(folder: str | os.PathLike[str]) -> HousePrices:
    """The training and test table in `folder`, by the book's file names or the competition's.

    Raises:
      FileNotFoundError: the folder lacks them.
      ValueError: as `read_csv`; no Id or SalePrice, a price that is missing or not above 0, an Id
        that is not whole or comes twice, or other columns in the two tables.

    Source: D2L 5.7.3.

    Example:
      >>> import tempfile
      >>> from jaxd2l.data import write_csv
      >>> folder = Path(tempfile.mkdtemp())
      >>> house = {"Id": np.array([1.0]), "LotArea": np.array([8450.0])}
      >>> write_csv(folder / "train.csv", house | {"SalePrice": np.array([208500.0])})
      >>> write_csv(folder / "test.csv", house)
      >>> load_house_prices(folder).prices
      array([208500.])
    """
    place = Path(folder)
    for names in FILES:
        if all((place / name).is_file() for name in names):
            break
    else:
        wanted = " or ".join(f"{first} and {second}" for first, second in FILES)
        raise FileNotFoundError(f"{place}: no house prices here; wanted are {wanted}")
    first, second = (str(place / name) for name in names)
    train, test = read_csv(first, numeric=[ID, PRICE]), read_csv(second, numeric=[ID])
    if set(train) - {PRICE} != set(test):
        differing = sorted(set(train) - {PRICE} ^ set(test))
        raise ValueError(f"{second}: its columns differ from those of {first}: {differing}")
    bad = ~(train[PRICE] > 0)
    if bad.any():
        raise ValueError(
            f"{first}: {PRICE} must be above 0, got {train[PRICE][bad][0]} "
            f"for the house in row {int(np.argmax(bad)) + 1}"
        )
    _ids(train, first)
    ids = _ids(test, second)
    prices = train[PRICE]
    return HousePrices(drop_columns(train, [ID, PRICE]), drop_columns(test, [ID]), prices, ids)


def write_predictions(path: str | os.PathLike[str], ids: Any, prices: Any) -> None:
    """Predicted prices in the competition's format, written in one step.

    A header Id,SalePrice, then one line for each house, with cents. An earlier file stays as it
    was if anything is wrong.

    Shapes:
      ids: (n,) integers; prices: (n,) floating point.

    Raises:
      ValueError: unequal lengths, an Id that comes twice, a price that is NaN, infinite or not
        above 0: its house is named.
      TypeError: ids that are not integers.
      OSError: the file cannot be written.

    Source: D2L 5.7.8.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "submission.csv"
      >>> write_predictions(path, np.array([1461, 1462]), np.array([120000.5, 99000.0]))
      >>> path.read_text("utf-8").split()
      ['Id,SalePrice', '1461,120000.50', '1462,99000.00']
    """
    number, price = np.asarray(ids), np.asarray(prices, np.float64)
    if number.dtype.kind not in "iu":
        raise TypeError(f"write_predictions: ids must be integers, got {number.dtype}")
    if number.ndim != 1 or price.shape != number.shape or not len(number):
        raise ValueError(
            f"write_predictions: ids and prices must be (n,) both, got {number.shape} "
            f"and {price.shape}"
        )
    values, counts = np.unique(number, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"write_predictions: {ID} {values[counts > 1][0]} comes twice")
    bad = ~(np.isfinite(price) & (price > 0))
    if bad.any():
        raise ValueError(
            f"write_predictions: {int(bad.sum())} of {len(price)} prices are not positive "
            f"numbers: house {number[bad][0]} has {price[bad][0]}"
        )
    lines = [f"{i},{p:.2f}\n" for i, p in zip(number.tolist(), price.tolist(), strict=True)]
    with replacing(path) as file:
        file.write("".join([f"{ID},{PRICE}\n", *lines]).encode("ascii"))
