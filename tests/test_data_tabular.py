"""CSV files, missing values, one-hot columns, and the way to a matrix."""

import csv
import io
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxd2l.data import fill_missing, one_hot_columns, read_csv, standardize, to_matrix

HOUSE = """NumRooms,Alley,Price
NA,Pave,127500
2,NA,106000
4,NA,178100
NA,NA,140000
"""


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "table.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_the_small_house_table_of_the_notes(write):
    table = read_csv(write(HOUSE))
    assert list(table) == ["NumRooms", "Alley", "Price"]
    np.testing.assert_array_equal(table["NumRooms"], [np.nan, 2, 4, np.nan])
    assert table["Alley"].tolist() == ["Pave", None, None, None]
    table, means = fill_missing(table)
    np.testing.assert_array_equal(table["NumRooms"], [3, 2, 4, 3])
    assert means == {"NumRooms": 3.0, "Price": 137900.0}
    table, categories = one_hot_columns(table)
    assert categories == {"Alley": ("Pave",)}
    np.testing.assert_array_equal(table["Alley_Pave"], [1, 0, 0, 0])
    np.testing.assert_array_equal(table["Alley_nan"], [0, 1, 1, 1])
    matrix, names = to_matrix(table)
    assert names == ("NumRooms", "Alley_Pave", "Alley_nan", "Price")
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix[0], [3, 1, 0, 127500])


def test_what_was_learnt_on_one_table_is_used_on_another(write):
    filled, means = fill_missing(read_csv(write(HOUSE)))
    _, categories = one_hot_columns(filled)
    other = read_csv(write("NumRooms,Alley,Price\nNA,NA,1\n,Pave,2\n"))
    other, _ = fill_missing(other, means)
    other, _ = one_hot_columns(other, categories)
    np.testing.assert_array_equal(to_matrix(other)[0], [[3, 0, 1, 1], [3, 1, 0, 2]])


def test_a_column_without_gaps_has_an_empty_nan_column():
    table, _ = one_hot_columns({"c": np.array(["b", "a", "b"], object)})
    assert list(table) == ["c_a", "c_b", "c_nan"]
    np.testing.assert_array_equal(table["c_nan"], 0)
    np.testing.assert_array_equal(np.sum(list(table.values()), axis=0), 1)


def test_types_of_columns(write):
    path = write("a,b,c,d,e\n1,1e3,x,,-.5\n 2 ,+2.,1,NaN,3\n")
    table = read_csv(path)
    np.testing.assert_array_equal(table["a"], [1, 2])
    np.testing.assert_array_equal(table["b"], [1000, 2])
    assert table["c"].tolist() == ["x", "1"]
    np.testing.assert_array_equal(table["d"], [np.nan, np.nan])
    np.testing.assert_array_equal(table["e"], [-0.5, 3])
    assert read_csv(path, categorical=["a"])["a"].tolist() == ["1", "2"]
    assert read_csv(path, missing=["1"])["c"].tolist() == ["x", None]


@pytest.mark.parametrize("text", ["1_000", "inf", "nan", "0x10", "１２", "1 2", "1e", ".", "--1"])
def test_what_python_takes_for_a_number_but_a_table_does_not_mean(write, text):
    path = write(f"a\n1\n{text}\n")
    assert read_csv(path)["a"].tolist() == ["1", text]
    with pytest.raises(ValueError, match="column 'a' must be a number on line 3, got"):
        read_csv(path, numeric=["a"])


def test_quotes_line_ends_byte_order_mark_and_blank_lines(write):
    table = read_csv(write('\ufeffa,"b,c"\r\n1,"x\r\ny, ""z"""\r\n\r\n2,w'))
    assert list(table) == ["a", "b,c"]
    np.testing.assert_array_equal(table["a"], [1, 2])
    assert table["b,c"].tolist() == ['x\r\ny, "z"', "w"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty: there is no header line"),
        ("\n\n", "empty: there is no header line"),
        ("a,b\n", "a header, but no rows"),
        ("a,b\n1,2\n3\n", r"line 3: 1 values, but the header has 2"),
        ('a,b\n1,"x\ny"\n3,4,5\n', r"line 4: 3 values, but the header has 2"),
        ("a,b,a\n1,2,3\n", "line 1: two columns are named 'a'"),
        ("a,,b\n1,2,3\n", "line 1: column 2 has no name"),
        (b"a,b\n1,\0\n", "line 2: a NUL byte"),
        (b"a,b\n1,2\n\xff,3\n", "line 3: not UTF-8 text"),
        ("a,b\n1,2\n".encode("utf-16"), "line 1: not UTF-8 text"),
        ('a,b\n1,"x\n', "line 2: not valid CSV: unexpected end of data"),
        ('a,b\n1,"x"y\n', "line 2: not valid CSV"),
        ("a,b\r1,2\r", "not valid CSV: new-line character"),
        ("a,b\n1," + "x" * 200_000 + "\n", "not valid CSV: field larger than field limit"),
        ("a,b\n1,2\n1,1e999\n", "column 'b': the number '1e999' on line 3 is too large"),
    ],
)
def test_bad_files_are_refused_with_their_line(write, content, message):
    path = write(content)
    with pytest.raises(ValueError, match=message) as error:
        read_csv(path)
    assert str(path) in str(error.value)


def test_unknown_columns_and_the_limit(write):
    path = write(HOUSE)
    with pytest.raises(ValueError, match=r"no column 'Rooms'; it has \['NumRooms'"):
        read_csv(path, numeric=["Rooms"])
    assert len(HOUSE) == 73
    assert len(read_csv(path, max_bytes=73)) == 3
    with pytest.raises(ValueError, match="more than the limit of 72 bytes"):
        read_csv(path, max_bytes=72)
    with pytest.raises(FileNotFoundError):
        read_csv(path.with_name("absent"))


def test_a_line_without_end_is_not_read_beyond_the_limit(write):
    path = write(b"a" * (8 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than the limit"):
            read_csv(path, max_bytes=1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


names = st.text("abcXYZ _-", min_size=1, max_size=5).map(str.strip).filter(bool)
cells = st.none() | st.text("abc,\"' \nä", min_size=1, max_size=6).map(str.strip)


@given(st.lists(names, min_size=1, max_size=4, unique=True), st.data())
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, header, data):
    rows = data.draw(st.lists(st.lists(cells, min_size=len(header), max_size=len(header))))
    rows = [["x"] * len(header), *rows]  # a text column each
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerows([header, *[["" if v is None else v for v in row] for row in rows]])
    path = tmp_path_factory.getbasetemp() / "round.csv"
    path.write_bytes(buffer.getvalue().encode())
    table = read_csv(path)
    assert list(table) == header
    for i, column in enumerate(table.values()):
        assert column.tolist() == [row[i] or None for row in rows]


def test_mutated_files_give_a_table_or_a_value_error(tmp_path):
    good = (HOUSE + '1,"a ""quoted"", cell",2\n').encode()
    chance = random.Random(0)
    path = tmp_path / "mutated.csv"
    refused = unnamed = 0
    for _ in range(600):
        data = bytearray(good)
        for _ in range(chance.randint(1, 5)):
            place = chance.randrange(len(data))
            value = chance.choice([chance.randrange(256), *b'",\n\r\0 eE9'])
            if chance.random() < 0.5:
                data[place] = value
            else:
                data.insert(place, value)
        path.write_bytes(bytes(data[: chance.randrange(1, 2 * len(data))]))
        try:
            table = read_csv(path)
        except ValueError as error:
            unnamed += str(path) not in str(error)
            refused += 1
        else:
            assert len({len(column) for column in table.values()}) == 1
    assert 100 < refused < 600
    assert not unnamed


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fill_missing({"a": np.array([np.nan])}), ValueError, "'a' has no values"),
        (lambda: fill_missing({"a": np.ones(2)}, {}), ValueError, "nothing for column 'a'"),
        (
            lambda: one_hot_columns({"a": np.array(["x"], object)}, {"a": ("y",)}),
            ValueError,
            r"'a' has the new value 'x'; its categories are \('y',\)",
        ),
        (
            lambda: one_hot_columns({"a": np.array(["x"], object)}, {}),
            ValueError,
            "nothing for column 'a'",
        ),
        (
            lambda: one_hot_columns({"a": np.array(["nan"], object)}),
            ValueError,
            "two columns would be named 'a_nan'",
        ),
        (lambda: to_matrix({}), ValueError, "no columns"),
        (lambda: to_matrix({"a": np.ones(1), "b": np.ones(2)}), ValueError, "unequal length"),
        (lambda: to_matrix({"a": np.array(["x"], object)}), TypeError, "'a' is text"),
        (lambda: to_matrix({"a": np.array([np.nan])}), ValueError, "'a' has values .* missing"),
        (lambda: to_matrix({"a": np.array([1e300])}), ValueError, "beyond float32"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_table_goes_all_the_way_to_standardised_rows(write):
    random_state = np.random.RandomState(0)
    lines = ["size,kind,age"]
    for i in range(50):
        size = "" if i % 7 == 0 else f"{random_state.rand() * 100:.3f}"
        lines.append(f"{size},{'abc'[i % 3]},{random_state.randint(90)}")
    table, _ = fill_missing(read_csv(write("\n".join(lines))))
    matrix, names = to_matrix(one_hot_columns(table)[0])
    assert names == ("size", "kind_a", "kind_b", "kind_c", "kind_nan", "age")
    z, _, std = standardize(matrix)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-6)
    np.testing.assert_array_equal(z[:, 4], 0)  # nothing was missing: a constant column
    assert (std[0, [0, 1, 2, 3, 5]] > 0).all()
