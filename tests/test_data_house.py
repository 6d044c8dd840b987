"""House prices: tables joined, cut, encoded and exchanged; the competition's files."""

import sys

import numpy as np
import pandas
import pytest

from jaxd2l import data

TRAIN = """Id,MSSubClass,LotFrontage,Alley,SalePrice
1,60,65,NA,208500
2,20,NA,Pave,181500
3,60,68,Grvl,223500
4,20,80,NA,140000
"""
TEST = """Id,MSSubClass,LotFrontage,Alley
5,20,NA,NA
6,120,81,Pave
"""


@pytest.fixture
def write(tmp_path):
    def write(train=TRAIN, test=TEST, names=data.house.FILES[0]):
        for name, text in zip(names, (train, test), strict=True):
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


def same(first, second):
    assert list(first) == list(second)
    for name, column in first.items():
        assert column.dtype == second[name].dtype
        np.testing.assert_array_equal(column, second[name])


@pytest.mark.smoke
@pytest.mark.parametrize("names", data.house.FILES)
def test_house_prices_are_read(write, names):
    houses = data.load_house_prices(write(names=names))
    assert list(houses.train) == list(houses.test) == ["MSSubClass", "LotFrontage", "Alley"]
    np.testing.assert_array_equal(houses.prices, [208500, 181500, 223500, 140000])
    assert houses.ids.tolist() == [5, 6]
    assert houses.ids.dtype == np.int64
    np.testing.assert_array_equal(houses.train["LotFrontage"], [65, np.nan, 68, 80])
    assert houses.train["Alley"].tolist() == [None, "Pave", "Grvl", None]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (TRAIN.replace("SalePrice", "Price"), TEST, "no column 'SalePrice'"),
        (TRAIN.replace("Alley", "Street"), TEST, r"differ .*: \['Alley', 'Street'\]"),
        (TRAIN, TRAIN, r"differ .*: \['SalePrice'\]"),
        (TRAIN.replace("140000", "0"), TEST, "SalePrice must be above 0, got 0.0 .* row 4"),
        (TRAIN.replace("140000", "NA"), TEST, "SalePrice must be above 0, got nan .* row 4"),
        (TRAIN.replace("140000", "cheap"), TEST, "'SalePrice' must be a number on line 5"),
        (TRAIN.replace("\n2,", "\n1,"), TEST, "two houses have the Id 1"),
        (TRAIN, TEST.replace("\n5,", "\n5.5,"), "Id must be whole numbers, got 5.5"),
        (TRAIN, TEST.replace("\n5,", "\nNA,"), "Id must be whole numbers, got nan"),
        (TRAIN[:-12], TEST, "line 5: 3 values, but the header has 5"),
        (TRAIN, "", "empty"),
    ],
)
def test_bad_files_are_refused(write, train, test, message):
    with pytest.raises(ValueError, match=message) as error:
        data.load_house_prices(write(train, test))
    assert "kaggle_house_pred" in str(error.value)


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no house prices here; wanted are kaggle_.* or"):
        data.load_house_prices(tmp_path)


def test_the_encoding_of_both_tables_is_that_of_pandas(write):
    # the book's way: D2L 5.7.4
    houses = data.load_house_prices(write())
    both = data.join_rows(houses.train, houses.test)
    matrix, names = data.encode(data.fit_encoder(both), both)
    folder = write()
    first, second = (pandas.read_csv(folder / name) for name in data.house.FILES[0])
    frame = pandas.concat([first.drop(columns=["Id", "SalePrice"]), second.drop(columns="Id")])
    numbers = frame.select_dtypes("number").columns
    frame[numbers] = frame[numbers].apply(lambda x: (x - x.mean()) / x.std()).fillna(0)
    frame = pandas.get_dummies(frame, dummy_na=True).astype(np.float32)
    assert list(names) == list(frame.columns)
    np.testing.assert_allclose(matrix, frame.to_numpy(), rtol=1e-6)
    assert matrix.dtype == np.float32


def test_what_was_fitted_on_one_part_is_used_on_another(write):
    houses = data.load_house_prices(write())
    part, held = data.take_rows(houses.train, [0, 1]), data.take_rows(houses.train, [2, 3])
    encoder = data.fit_encoder(part)
    assert encoder.means == {"MSSubClass": 40.0, "LotFrontage": 65.0}
    assert encoder.stds["LotFrontage"] == 0  # one value: nothing varies
    assert encoder.categories == {"Alley": ("Pave",)}
    matrix, names = data.encode(encoder, held)
    assert names == ("MSSubClass", "LotFrontage", "Alley_Pave", "Alley_nan")
    wanted = [[20 / np.sqrt(800), 0, 0, 1], [-20 / np.sqrt(800), 0, 0, 1]]  # Grvl: never seen
    np.testing.assert_allclose(matrix, wanted, rtol=1e-6)
    lost = {**held, "MSSubClass": np.full(2, None, object), "Alley": np.full(2, np.nan)}
    matrix, _ = data.encode(encoder, lost)  # nothing there: of either kind
    np.testing.assert_array_equal(matrix, [[0, 0, 0, 1]] * 2)


def test_an_equal_column_is_zero_whatever_its_rounding():
    column = {"a": np.full(10, 0.1)}
    encoder = data.fit_encoder(column)
    assert encoder.stds == {"a": 0.0}
    np.testing.assert_array_equal(data.encode(encoder, column)[0], 0)


def test_tables_that_do_not_fit_the_encoder():
    table = {"a": np.array([1.0, 2.0]), "b": np.array(["x", "y"], object)}
    encoder = data.fit_encoder(table)
    with pytest.raises(ValueError, match=r"new are \['c'\], lacking \['b'\]"):
        data.encode(encoder, {"a": table["a"], "c": table["b"]})
    with pytest.raises(ValueError, match="'a' was of numbers when fitted, and is now text"):
        data.encode(encoder, {"a": table["b"], "b": table["b"]})
    with pytest.raises(ValueError, match="'b' was of text when fitted, and is now of numbers"):
        data.encode(encoder, {"a": table["a"], "b": table["a"]})
    with pytest.raises(ValueError, match="column 'a' has no values"):
        data.fit_encoder({"a": np.full(2, np.nan)})


def test_rows_and_columns_with_gaps_are_dropped(write):
    table = data.load_house_prices(write()).train
    kept = data.drop_missing_rows(table)
    assert {len(column) for column in kept.values()} == {1}
    assert kept["Alley"].tolist() == ["Grvl"]
    assert list(data.drop_missing_columns(table)) == ["MSSubClass"]
    assert list(data.drop_missing_columns(table, 1)) == ["MSSubClass", "LotFrontage"]
    with pytest.raises(ValueError, match="every row lacks something"):
        data.drop_missing_rows(data.take_rows(table, [0, 1]))
    with pytest.raises(ValueError, match="every column lacks more than 0"):
        data.drop_missing_columns({"a": np.array([np.nan])})
    with pytest.raises(ValueError, match="columns of unequal length"):
        data.take_rows({"a": np.zeros(1), "b": np.zeros(2)}, [0])
    with pytest.raises(ValueError, match="no column 'c'; the table has"):
        data.drop_columns(table, ["c"])


def test_tables_are_joined():
    numbers, gaps = {"a": np.array([1.0])}, {"a": np.array([np.nan])}
    text = {"a": np.array(["x"], object)}
    joined = data.join_rows(gaps, text)["a"]
    assert joined.tolist() == [None, "x"]
    assert data.join_rows(text, gaps)["a"].tolist() == ["x", None]
    np.testing.assert_array_equal(data.join_rows(numbers, gaps)["a"], [1, np.nan])
    with pytest.raises(ValueError, match="'a' holds numbers in one table and text in the other"):
        data.join_rows(numbers, text)
    with pytest.raises(ValueError, match=r"only one of the tables has the columns \['b'\]"):
        data.join_rows(numbers, {**numbers, "b": numbers["a"]})


def test_tables_come_from_pandas(write):
    path = write() / data.house.FILES[0][0]
    same(data.from_pandas(pandas.read_csv(path)), data.read_csv(path))
    frame = pandas.DataFrame(
        {
            "flag": [True, False],
            "whole": pandas.array([1, None], dtype="Int64"),
            "kind": pandas.Categorical(["b", None]),
            "text": pandas.array(["x", None], dtype="string"),
        },
        index=[7, 7],
    )
    table = data.from_pandas(frame)
    np.testing.assert_array_equal(table["flag"], [1, 0])
    np.testing.assert_array_equal(table["whole"], [1, np.nan])
    assert table["kind"].tolist() == ["b", None]
    assert table["text"].tolist() == ["x", None]


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        ({"a": [1]}, TypeError, "expected a pandas.DataFrame, got dict"),
        (pandas.DataFrame(), ValueError, "no columns"),
        (pandas.DataFrame([[1, 2]], columns=["a", "a"]), ValueError, "two columns are named 'a'"),
        (pandas.DataFrame([[1]]), ValueError, "names of columns must be text, got 0"),
        (pandas.DataFrame({"a": ["x", (1,)]}), TypeError, r"numbers or text, got \(1,\) in row 1"),
        (pandas.DataFrame({"a": [1j]}), TypeError, "'a' is complex"),
        (pandas.DataFrame({"a": [np.inf]}), ValueError, "'a' holds an infinite number"),
        (
            pandas.DataFrame({"a": pandas.to_datetime(["2020-01-01"])}),
            TypeError,
            r"Timestamp.* in row 0; convert it with .astype\(str\)",
        ),
    ],
)
def test_frames_that_are_no_tables(frame, error, message):
    with pytest.raises(error, match=message):
        data.from_pandas(frame)


def test_what_is_written_is_read_back(tmp_path):
    draw = np.random.RandomState(0)
    table = {
        "number": np.append(
            draw.randn(5) * 10.0 ** draw.randint(-300, 300, 5), [np.nan, 1e20, -0.0]
        ),
        "whole": np.arange(8.0),
        'te"xt, of all kinds': np.array(
            ["a,b", 'c"d', "two\nlines", "ä", None, "x", "None", "y"], object
        ),
    }
    path = tmp_path / "table.csv"
    data.write_csv(path, table)
    same(data.read_csv(path), table)
    assert path.read_text("utf-8").splitlines()[0] == 'number,whole,"te""xt, of all kinds"'


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "no columns"),
        ({"a": np.zeros(0)}, "no rows"),
        ({"a": np.array([np.inf])}, "'a' holds an infinite number"),
        ({"a": np.array([" x"], object)}, "'a' holds ' x', which would be read back as"),
        ({"a": np.array(["NA"], object)}, "'a' holds 'NA', which would be read back as"),
        ({"a": np.array(["1", "2"], object)}, "column 'a' of text would be read back as numbers"),
        ({" a": np.zeros(1)}, "names of columns"),
        ({"a": np.array(["x\0"], object)}, "NUL"),
    ],
)
def test_what_would_not_be_read_back_is_not_written(tmp_path, table, message):
    path = tmp_path / "table.csv"
    path.write_text("before")
    with pytest.raises(ValueError, match=message):
        data.write_csv(path, table)
    assert path.read_text() == "before"


def test_predictions_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "predictions.csv"
    data.write_predictions(path, np.array([7, 5]), np.array([1.5, 2e5], np.float32))
    assert path.read_text() == "Id,SalePrice\n7,1.50\n5,200000.00\n"
    bad = [
        ([1, 2], [1.0, np.nan], ValueError, "1 of 2 prices .* house 2 has nan"),
        ([1, 2], [np.inf, 1.0], ValueError, "house 1 has inf"),
        ([1, 2], [1.0, 0.0], ValueError, "house 2 has 0"),
        ([1, 1], [1.0, 2.0], ValueError, "Id 1 comes twice"),
        ([1, 2], [1.0], ValueError, r"\(n,\) both, got \(2,\) and \(1,\)"),
        ([1, 2], [[1.0], [2.0]], ValueError, r"got \(2,\) and \(2, 1\)"),
        ([1.0], [1.0], TypeError, "ids must be integers, got float64"),
    ]
    for ids, prices, error, message in bad:
        with pytest.raises(error, match=message):
            data.write_predictions(path, ids, prices)
    assert path.read_text().startswith("Id,SalePrice\n7")
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.csv"]


def test_what_needs_pandas_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"pip install 'jaxd2l\[pandas\]'"):
        data.from_pandas("frame")
