"""Pictures of receptive fields: where the rectangles, points and colors stand."""

import numpy as np
import pytest
from PIL import Image

from jaxd2l import layers, models, plot, summarize
from jaxd2l.analysis import EffectiveReceptiveField
from jaxd2l.geometry import ReceptiveField, Window, receptive_field
from jaxd2l.plot import fields as drawing

IMAGE = np.random.RandomState(0).uniform(size=(20, 30, 3))
POOL1 = receptive_field([Window(5, 1, 2), Window(2, 2)])  # size 6, jump 2, start -2
POOL2 = receptive_field([Window(5, 1, 2), Window(2, 2), Window(5), Window(2, 2)])  # 16, 4, -2


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, in a list."""
    figures = []

    def save(figure, path, title, tight):
        figures.append(figure)
        return plot.figure.save_figure(figure, path, title, tight)

    monkeypatch.setattr(drawing, "save_figure", save)
    return figures


def rectangles(figure):
    """{label: (first row, last row, first column, last column)} of the pixels they go around."""
    found = {}
    for patch in figure.axes[0].patches:
        (left, top), width, height = patch.get_xy(), patch.get_width(), patch.get_height()
        ends = top + 0.5, top + height - 0.5, left + 0.5, left + width - 0.5
        found[patch.get_label()] = tuple(round(float(end), 6) for end in ends)
    return {name: ends for name, ends in found.items() if name}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def colors(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return {tuple(c) for c in np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()}


# A unit over an image


@pytest.mark.smoke
def test_the_rectangle_goes_around_the_pixels_that_the_unit_sees(tmp_path, drawn):
    path = plot.receptive_field(IMAGE, (POOL2, POOL2), tmp_path / "new" / "a.png", unit=(1, 3))
    assert path == tmp_path / "new" / "a.png"
    (figure,) = drawn
    assert rectangles(figure) == {"unit (1, 3): 16x16": (2, 17, 10, 25)}
    assert legend(figure) == ["unit (1, 3): 16x16"]
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), IMAGE)
    assert axes.lines[0].get_xydata().tolist() == [[17.5, 9.5]]  # its middle: column, row
    found = colors(path)
    assert (214, 39, 40) in found
    assert len(found) > 500  # the image, not one shade


def test_padding_is_shown_around_the_image(tmp_path, drawn):
    plot.receptive_field(IMAGE, (POOL2, POOL2), tmp_path / "a.png", unit=(0, 6))
    axes = drawn[0].axes[0]
    assert rectangles(drawn[0]) == {"unit (0, 6): 16x16": (-2, 13, 22, 37)}
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    assert left < -0.5
    assert 37.5 < right < 39
    assert -4 < top < -2.5
    assert 19.5 < bottom < 21  # rows go down
    assert axes.get_facecolor()[:3] == (0.88,) * 3


def test_several_layers_are_nested_around_the_same_place(tmp_path, drawn):
    several = {"pool1": (POOL1, POOL1), "pool2": (POOL2, POOL2)}
    path = plot.receptive_field(IMAGE, several, tmp_path / "a.png", "LeNet", unit=(1, 2))
    # rows 2..17, middle 9.5: of pool1 unit 4 sees 6..11, middle 8.5, unit 5 8..13; the first
    assert rectangles(drawn[0]) == {
        "pool1 (4, 6): 6x6": (6, 11, 10, 15),
        "pool2 (1, 2): 16x16": (2, 17, 6, 21),
    }
    assert legend(drawn[0]) == list(rectangles(drawn[0]))
    edges = [patch.get_edgecolor() for patch in drawn[0].axes[0].patches[1:]]
    assert edges[0] != edges[1]
    for edge in edges:
        assert tuple(round(255 * part) for part in edge[:3]) in colors(path)
    assert drawn[0].get_suptitle() == "LeNet"


def test_by_default_the_unit_that_looks_at_the_middle(tmp_path, drawn):
    plot.receptive_field(IMAGE[..., 0], (POOL1, POOL2), tmp_path / "a.png")
    # the middle is (9.5, 14.5): rows 6..11 of unit 4 (8.5, as near as 10.5), columns of unit 2
    assert rectangles(drawn[0]) == {"unit (4, 2): 6x16": (6, 11, 6, 21)}


@pytest.mark.parametrize(
    ("field", "unit", "ends"),
    [
        (ReceptiveField.whole(20), 0, (0, 19)),
        (receptive_field([Window(4, 4), Window(3, 2, transposed=True)]), 5, (8, 11)),
        (ReceptiveField(((18, 19),), -2), 4, (10, 11)),  # runs backwards; 9.5 lies in 8..9 too
        (ReceptiveField(((0, 3), (2, 9), (8, 12)), None), 2, (8, 12)),  # a list of units
        (ReceptiveField(((5, 5), None), 2), 4, (9, 9)),  # every other unit sees nothing
    ],
)
def test_any_field_has_a_unit_nearest_the_middle(field, unit, ends, tmp_path, drawn):
    plot.receptive_field(IMAGE, (field, POOL1), tmp_path / "a.png")
    ((label, box),) = rectangles(drawn[0]).items()
    assert label.startswith(f"unit ({unit}, ")
    assert box[:2] == ends


@pytest.mark.parametrize(
    ("image", "fields", "unit", "told"),
    [
        (np.zeros((4, 4, 2)), (POOL1, POOL1), None, r"\(h, w, 1\) or \(h, w, 3\), got \(4, 4, 2\)"),
        (np.zeros((0, 4)), (POOL1, POOL1), None, r"got \(0, 4\)"),
        (np.full((4, 4), np.nan), (POOL1, POOL1), None, "the image: holds NaN"),
        (IMAGE, POOL1, None, r"got one: where both are alike give \(field, field\)"),
        (IMAGE, (POOL1,), None, "must be two ReceptiveFields"),
        (IMAGE, {"pool1": (POOL1, 3)}, None, "fields of 'pool1' must be two"),
        (IMAGE, {}, None, "fields is empty"),
        (IMAGE, (POOL1, POOL1), (1,), r"unit must be \(row, column\), got \(1,\)"),
        (IMAGE, (POOL1, POOL1), (1, -1), "each of unit must be at least 0"),
        (IMAGE, (ReceptiveField((None,), 0), POOL1), None, r"unit \(0, 7\) sees nothing"),
        (
            IMAGE,
            (ReceptiveField(((0, 1),), None), POOL1),
            (5, 0),
            r"unit \(5, 0\) sees nothing; choose",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(image, fields, unit, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        plot.receptive_field(image, fields, tmp_path / "a.png", unit=unit)
    assert list(tmp_path.iterdir()) == []


# The gradient map


def bump():
    rows, columns = np.arange(20)[:, None] - 8, np.arange(30) - 17
    values = np.exp(-(rows**2) / 8 - columns**2 / 18)  # standard deviations 2 and 3
    return EffectiveReceptiveField(values / values.sum(), (2, 4))


def test_the_map_lies_over_the_image_in_gray(tmp_path, drawn):
    path = plot.effective_field(IMAGE, bump(), tmp_path / "a.png", fields=(POOL2, POOL2))
    axes = drawn[0].axes[0]
    image, heat = axes.images
    gray = np.asarray(image.get_array())
    np.testing.assert_allclose(gray, 0.2 + 0.6 * IMAGE.mean(-1)[..., None].repeat(3, -1))
    values = np.asarray(heat.get_array())
    assert values.max() == values[8, 17] == 1
    np.testing.assert_allclose(values, bump().map / bump().map.max())
    np.testing.assert_allclose(heat.get_alpha(), 0.85 * np.sqrt(values))
    theory, width = rectangles(drawn[0]).values()
    assert theory == (6, 21, 14, 29)  # of the unit that was measured
    assert width == pytest.approx((4.5, 11.5, 11.5, 22.5), abs=0.05)  # 8 -+ 4 and 17 -+ 6, edges
    assert legend(drawn[0]) == ["theoretical: 16x16", "4 standard deviations: 8.0x12.0"]
    assert len(colors(path)) > 500


def test_without_a_theoretical_field_one_rectangle(tmp_path, drawn):
    plot.effective_field(IMAGE, bump(), tmp_path / "a.png", "a title")
    assert legend(drawn[0]) == ["4 standard deviations: 8.0x12.0"]
    whole = EffectiveReceptiveField(bump().map, None)
    everything = (ReceptiveField.whole(20), ReceptiveField.whole(30))
    plot.effective_field(IMAGE, whole, tmp_path / "b.png", fields=everything)
    assert rectangles(drawn[1])["theoretical: 20x30"] == (0, 19, 0, 29)


def test_maps_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the map is \(20, 30\), the image \(9, 9\)"):
        plot.effective_field(np.zeros((9, 9)), bump(), tmp_path / "a.png")
    with pytest.raises(TypeError, match="wanted an EffectiveReceptiveField"):
        plot.effective_field(IMAGE, bump().map, tmp_path / "a.png")
    whole = EffectiveReceptiveField(bump().map, None)
    with pytest.raises(ValueError, match="of the whole output and the fields are of single units"):
        plot.effective_field(IMAGE, whole, tmp_path / "a.png", fields=(POOL1, POOL1))
    assert list(tmp_path.iterdir()) == []


# Growth


def points(axes):
    """{label: [(layer, pixels)]} of the dots."""
    return {dots.get_label(): np.asarray(dots.get_offsets()).tolist() for dots in axes.collections}


def ticks(axes):
    return [text.get_text() for text in axes.get_xticklabels()]


def test_growth_of_lenet(tmp_path, drawn):
    path = plot.growth(summarize(models.lenet(), (28, 28, 1)), tmp_path / "a.png", "LeNet")
    axes = drawn[0].axes[0]
    assert ticks(axes) == ["conv1", "max_pool", "conv2", "max_pool", "dense1"]
    assert points(axes) == {
        "receptive field": [[0, 5], [1, 6], [2, 14], [3, 16]],
        "whole input": [[4, 28]],
    }
    line, border = axes.lines
    assert line.get_ydata().tolist() == [5, 6, 14, 16, 28]
    assert list(border.get_ydata()) == [28, 28]
    assert legend(drawn[0]) == ["input", "receptive field", "whole input"]
    assert len(colors(path)) > 50


def test_shorter_branches_lie_below_the_line_and_what_exceeds_the_input_is_red(tmp_path, drawn):
    block = layers.Parallel(
        [layers.Conv("conv", 4, 3, padding=1), layers.Conv("short", 4, 1), layers.Identity()], "add"
    )
    layout = [layers.Conv("stem", 4, 7, padding=3), block, layers.Activation("relu")]
    after = [layers.Conv(f"after{i}", 4, 3, padding=1) for i in (1, 2)]
    plot.growth(summarize(layers.Serial([*layout, *after]), (9, 9, 1)), tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert ticks(axes) == ["stem", "conv", "short", "after1", "after2"]
    assert points(axes) == {
        "receptive field": [[0, 7], [1, 9], [2, 7], [3, 11]],
        "adds depth, not context": [[4, 13]],
    }
    assert axes.lines[0].get_ydata().tolist() == [7, 9, 9, 11, 13]


def test_axes_that_differ_have_a_line_each(tmp_path, drawn):
    net = layers.Serial([layers.Conv("a", 2, (3, 5)), layers.Conv("b", 2, (1, 5))])
    plot.growth(summarize(net, (9, 12, 1)), tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert points(axes) == {
        "receptive field of rows": [[0, 3], [1, 3]],
        "receptive field of columns": [[0, 5], [1, 9]],
    }
    assert [border.get_ydata()[0] for border in axes.lines[1::2]] == [9, 12]


def test_many_layers_have_fewer_names(tmp_path, drawn):
    net = layers.Serial([layers.Conv(f"conv{i}", 1, (3,), padding=1) for i in range(100)])
    plot.growth(summarize(net, (8, 1)), tmp_path / "a.png")
    names = ticks(drawn[0].axes[0])
    assert names == [f"conv{i}" for i in range(0, 100, 3)]


def test_no_spatial_axes_no_growth(tmp_path):
    table = summarize(models.mlp((4,)), (7,))
    with pytest.raises(ValueError, match=r"an input \(7,\) has no spatial axes"):
        plot.growth(table, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
