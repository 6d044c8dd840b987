"""Augmentations: each against an oracle, and what all of them promise."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from jaxd2l import records
from jaxd2l.ops import adjust, color
from jaxd2l.ops import augment as aug

FAST = {"xla_backend_optimization_level": 0}  # to compile: every program runs once
jit = functools.partial(jax.jit, compiler_options=FAST)
KEY = jax.random.key(7)
IMAGE = jnp.asarray(np.random.RandomState(0).uniform(size=(9, 7, 3)), jnp.float32)
STEPS = {
    "flip": aug.RandomFlip(),
    "flip_up_down": aug.RandomFlip(axis=0),
    "shift": aug.RandomShift(2),
    "crop": aug.RandomCrop((6, 5), padding=1),
    "resized_crop": aug.RandomResizedCrop((8, 5)),
    "brightness": aug.RandomBrightness(0.6),
    "contrast": aug.RandomContrast(0.6),
    "saturation": aug.RandomSaturation(1.5),
    "hue": aug.RandomHue(0.5),
    "gray": aug.RandomGray(0.5),
    "cut_out": aug.CutOut(4),
    "compose": aug.Compose([aug.RandomFlip(), aug.RandomShift(1), aug.RandomHue(0.1)]),
}


def drawn(step, n=200, image=IMAGE, key=KEY):
    """`n` results of one image."""
    return np.asarray(jit(jax.vmap(step, (0, None)))(jax.random.split(key, n), image))


# --- what all of them promise -------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("name", STEPS)
def test_one_key_one_image_in_range_alone_or_mapped(name):
    step = STEPS[name]
    keys = jax.random.split(KEY, 24)
    many = jit(jax.vmap(step, (0, None)))(keys, IMAGE)
    assert many.shape == (24, *step.output_shape(IMAGE.shape))
    assert many.dtype == IMAGE.dtype
    assert float(many.min()) >= 0
    assert float(many.max()) <= 1 + 1e-6
    assert len({np.asarray(image).tobytes() for image in many}) > 1  # keys differ
    one = jit(step)
    for i in (0, 23, 23):
        np.testing.assert_allclose(one(keys[i], IMAGE), many[i], atol=1e-6)


def test_compiled_and_not_compiled_agree():
    for name in ("flip", "shift", "brightness", "saturation", "cut_out"):
        step = STEPS[name]
        np.testing.assert_allclose(step(KEY, IMAGE), jit(step)(KEY, IMAGE), atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64], ids=["bf16", "f64"])
def test_dtypes_are_kept_under_strict_promotion(dtype, strict_promotion):
    with jax.enable_x64(dtype == jnp.float64):
        for step in STEPS.values():
            image = jax.ShapeDtypeStruct(IMAGE.shape, dtype)
            assert jax.eval_shape(step, KEY, image).dtype == dtype
            assert jax.eval_shape(step.at_test, image).dtype == dtype


def test_records_are_stored_and_read_back():
    for step in STEPS.values():
        assert records.load(records.dump(step)) == step
    assert repr(STEPS["crop"]) == "RandomCrop(size=(6, 5), padding=1)"


def test_at_test_nothing_is_drawn_and_the_size_is_that_of_training():
    for step in STEPS.values():
        seen = step.at_test(IMAGE)
        assert seen.shape == step.output_shape(IMAGE.shape)
        if seen.shape == IMAGE.shape:
            np.testing.assert_array_equal(seen, IMAGE)
    np.testing.assert_array_equal(STEPS["crop"].at_test(IMAGE), IMAGE[1:7, 1:6])
    whole = jax.image.resize(IMAGE, (8, 5, 3), "linear")
    np.testing.assert_allclose(STEPS["resized_crop"].at_test(IMAGE), whole, atol=2e-6)
    both = aug.Compose([aug.RandomResizedCrop(3), aug.RandomCrop(2)])
    assert jax.eval_shape(both.at_test, IMAGE).shape == both.output_shape(IMAGE.shape) == (2, 2, 3)


# --- pixels that move ---------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
def test_a_flip_mirrors_about_half(axis):
    images = drawn(aug.RandomFlip(axis=axis), 1000)
    flipped = np.flip(IMAGE, axis)
    mirrored = (images == flipped).all(axis=(1, 2, 3))
    assert ((images == IMAGE).all(axis=(1, 2, 3)) ^ mirrored).all()
    assert 0.45 < mirrored.mean() < 0.55  # 3 standard deviations
    assert (drawn(aug.RandomFlip(1.0, axis), 20) == flipped).all()
    assert (drawn(aug.RandomFlip(0.0, axis), 20) == np.asarray(IMAGE)).all()


def test_shifts_are_all_the_shifts_alike():
    images = drawn(aug.RandomShift(1), 900)
    padded = np.pad(IMAGE, ((1, 1), (1, 1), (0, 0)))
    counts = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            counts[i, j] = (images == padded[i : i + 9, j : j + 7]).all(axis=(1, 2, 3)).sum()
    assert counts.sum() == 900
    assert counts.min() > 60  # 100 each, 4 standard deviations
    assert counts.max() < 140


def test_crops_are_parts_of_the_padded_image():
    images = drawn(aug.RandomCrop((8, 7)), 60)
    places = [(images == np.asarray(IMAGE)[i : i + 8]).all(axis=(1, 2, 3)) for i in (0, 1)]
    assert (places[0] ^ places[1]).all()
    assert 10 < places[0].sum() < 50
    whole = aug.RandomCrop((11, 9), padding=1)(KEY, IMAGE)  # only one place
    np.testing.assert_array_equal(whole, np.pad(IMAGE, ((1, 1), (1, 1), (0, 0))))


@functools.lru_cache
def boxes_of(crop, height, width):
    # Not as one program: its single operations are the same for all crops, and compiled once.
    draw = jax.vmap(lambda key: jnp.stack(crop.box(key, height, width)))
    return np.asarray(draw(jax.random.split(KEY, 300)))


@given(
    height=st.sampled_from([1, 5, 40]),
    width=st.sampled_from([1, 6, 31]),
    area=st.sampled_from([(0.08, 1.0), (0.25, 0.25), (1.0, 1.0)]),
    ratio=st.sampled_from([(3 / 4, 4 / 3), (2.0, 3.0)]),
)
def test_boxes_lie_inside_the_image(height, width, area, ratio):
    top, left, h, w = boxes_of(aug.RandomResizedCrop(4, area, ratio), height, width).T
    assert h.min() >= 1
    assert w.min() >= 1
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + h).max() <= height
    assert (left + w).max() <= width


def test_boxes_have_the_areas_ratios_and_places_asked_for():
    top, left, h, w = boxes_of(aug.RandomResizedCrop(4, (0.2, 0.5), (0.5, 2.0)), 400, 400).T
    area, ratio = h * w / 400**2, np.log(w / h)
    assert 0.195 < area.min() < 0.22
    assert 0.48 < area.max() < 0.505
    assert area.mean() == pytest.approx(0.35, abs=0.02)
    assert abs(ratio).max() < np.log(2) + 0.02
    assert ratio.mean() == pytest.approx(0, abs=0.08)
    assert ratio.std() == pytest.approx(2 * np.log(2) / np.sqrt(12), rel=0.1)
    for start, room in ((top, 400 - h), (left, 400 - w)):
        assert (start / room).mean() == pytest.approx(0.5, abs=0.06)
        assert (start / room).std() == pytest.approx(1 / np.sqrt(12), rel=0.1)


def test_where_no_box_fits_the_central_part_of_the_allowed_ratio_is_taken():
    # Of a very wide image, nothing of the whole area has a ratio of at most 4/3.
    boxes = boxes_of(aug.RandomResizedCrop(4, (1.0, 1.0)), 30, 100)
    assert (boxes == [0, 30, 30, 40]).all()
    boxes = boxes_of(aug.RandomResizedCrop(4, (1.0, 1.0)), 100, 30)
    assert (boxes == [30, 0, 40, 30]).all()
    boxes = boxes_of(aug.RandomResizedCrop(4, (1.0, 1.0), (1.0, 1.0)), 40, 40)
    assert (boxes == [0, 0, 40, 40]).all()


RESIZE = jit(aug.resize_box, static_argnums=2)  # the box is traced


@pytest.mark.parametrize("size", [(3, 3), (4, 9), (20, 2)])
@pytest.mark.parametrize("box", [(0, 0, 9, 7), (2, 1, 4, 5), (5, 3, 1, 1)])
def test_a_resized_box_is_pillows_and_jaxs(box, size):
    top, left, h, w = box
    part = np.asarray(IMAGE)[top : top + h, left : left + w]
    got = np.asarray(RESIZE(IMAGE, jnp.asarray(box), size))
    for c in range(3):
        plane = Image.fromarray(part[..., c], mode=None)
        want = plane.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(got[..., c], np.asarray(want), atol=2e-6)
    np.testing.assert_allclose(got, jax.image.resize(part, (*size, 3), "linear"), atol=2e-6)


def test_a_resized_crop_is_the_box_of_its_key_resized():
    crop = aug.RandomResizedCrop((5, 6))
    box, image = jit(lambda key: (jnp.stack(crop.box(key, 9, 7)), crop(key, IMAGE)))(KEY)
    np.testing.assert_allclose(image, RESIZE(IMAGE, box, (5, 6)), atol=1e-6)


# --- colours ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "adjust", "low", "high"),
    [
        (aug.RandomBrightness(0.4), adjust.adjust_brightness, 0.6, 1.4),
        (aug.RandomContrast(0.4), adjust.adjust_contrast, 0.6, 1.4),
        (aug.RandomSaturation(2.0), adjust.adjust_saturation, 0.0, 3.0),
        (aug.RandomHue(0.25), adjust.adjust_hue, -0.25, 0.25),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_factors_are_uniform_in_their_range(step, adjust, low, high):
    keys = jax.random.split(KEY, 100)
    factors = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32, low, high))(keys)
    assert low <= factors.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < factors.max() <= high
    got = jit(jax.vmap(step, (0, None)))(keys, IMAGE)
    want = jit(jax.vmap(adjust, (None, 0)))(IMAGE, factors)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_no_amount_changes_nothing():
    for kind in (aug.RandomBrightness, aug.RandomContrast, aug.RandomSaturation, aug.RandomHue):
        np.testing.assert_allclose(kind(0.0)(KEY, IMAGE), IMAGE, atol=1e-6)
        gray = IMAGE[..., :1]
        np.testing.assert_allclose(kind(0.0)(KEY, gray), gray, atol=1e-6)


def test_gray_with_its_probability():
    images = drawn(aug.RandomGray(0.3), 1000)
    gray = (images == images[..., :1]).all(axis=(1, 2, 3))
    assert 0.25 < gray.mean() < 0.35
    np.testing.assert_allclose(images[gray][0][..., :1], color.rgb_to_gray(IMAGE), atol=1e-6)


# --- taking away and mixing ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 4])
def test_cut_out_is_a_square_around_a_uniform_pixel(size):
    holes = drawn(aug.CutOut(size), 2000, jnp.ones((6, 5, 2))) == 0
    assert (holes[..., 0] == holes[..., 1]).all()
    want = np.zeros((6, 5))  # how often each pixel should be cut, by counting all centres
    for i in range(6):
        for j in range(5):
            top, left = i - size // 2, j - size // 2
            want[max(top, 0) : top + size, max(left, 0) : left + size] += 1 / 30
    np.testing.assert_allclose(holes[..., 0].mean(axis=0), want, atol=0.05)
    rows, columns = holes[..., 0].any(axis=2).sum(axis=1), holes[..., 0].any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(holes[..., 0].sum(axis=(1, 2)), rows * columns)
    assert rows.max() == size
    assert drawn(aug.CutOut(size, fill=0.25), 3).min() <= 0.25


def test_mixup_is_one_ratio_and_one_order_for_the_batch():
    n = 8
    x, y = jnp.arange(n * 6.0).reshape(n, 3, 2, 1), jnp.eye(n)
    mixed, targets = jit(aug.mixup, static_argnums=3)(KEY, x, y, 0.4)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed, jnp.einsum("ij,jhwc->ihwc", targets, x), atol=1e-4)
    own = np.diag(targets)
    ratio = own[own < 1][0]
    assert set(np.round(own, 5)) <= {np.round(ratio, 5), 1.0}
    np.testing.assert_allclose(np.asarray(targets).sum(axis=0), 1, atol=1e-6)  # a permutation


def test_the_ratio_of_mixup_is_a_beta_variable():
    @jit
    def ratios(keys):
        y = jnp.eye(2)  # half of the orders swap the two
        return jax.vmap(lambda key: aug.mixup(key, y, y, 0.5)[1][0, 0])(keys)

    drawn = np.asarray(ratios(jax.random.split(KEY, 2000)))
    swapped = drawn[drawn < 1]
    assert 0.45 < len(swapped) / 2000 < 0.55
    assert swapped.mean() == pytest.approx(0.5, abs=0.03)
    assert swapped.var() == pytest.approx(0.125, rel=0.1)  # 1 / (4 (2 alpha + 1))


# --- batches ------------------------------------------------------------------------------------


def test_an_image_of_a_batch_depends_on_key_and_index_only():
    batch = jnp.stack([IMAGE] * 6)
    step = STEPS["compose"]
    call = jit(aug.augment, static_argnums=2)
    whole = call(KEY, batch, step)
    assert len({np.asarray(image).tobytes() for image in whole}) == 6
    order = jnp.array([4, 1])
    np.testing.assert_array_equal(call(KEY, batch[:2], step, examples=order), whole[order])
    for i in (0, 5):
        key = jax.random.fold_in(KEY, i)
        np.testing.assert_allclose(step(key, IMAGE), whole[i], atol=1e-6)
    assert not np.array_equal(call(jax.random.key(8), batch, step), whole)


def test_steps_of_one_kind_draw_apart():
    images = drawn(aug.Compose([aug.RandomFlip(), aug.RandomFlip()]), 400)
    mirrored = (images == np.flip(IMAGE, 1)).all(axis=(1, 2, 3))
    assert 0.4 < mirrored.mean() < 0.6  # with one key for both they would always cancel


def test_a_step_of_ones_own():
    @records.record
    class Invert(aug.Augmentation):
        probability: float

        def draw(self, key, image):
            return jnp.where(jax.random.bernoulli(key, self.probability), 1 - image, image)

    step = aug.Compose([Invert(1.0), aug.RandomFlip(1.0)])
    np.testing.assert_allclose(step(KEY, IMAGE), 1 - IMAGE[:, ::-1], atol=1e-6)
    assert records.load(records.dump(step)) == step


# --- errors -------------------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: aug.RandomFlip(1.2), ValueError, r"RandomFlip: probability must be .*got 1\.2"),
        (lambda: aug.RandomFlip(NAN), ValueError, "RandomFlip: probability must be .*got nan"),
        (lambda: aug.RandomFlip(axis=2), ValueError, r"axis must be 1 \(left-right\) or 0"),
        (lambda: aug.RandomShift(-1), ValueError, "RandomShift: pixels must be at least 0, got -1"),
        (lambda: aug.RandomShift(1.5), TypeError, "RandomShift: pixels must be an integer"),
        (lambda: aug.RandomCrop(0), ValueError, "RandomCrop: size: height must be at least 1"),
        (lambda: aug.RandomCrop((1, 2, 3)), ValueError, r"must be an integer or \(height, width\)"),
        (
            lambda: aug.RandomResizedCrop(4, area=(0.5, 0.2)),
            ValueError,
            r"RandomResizedCrop: area must be \(low, high\), the lower one first, got \(0\.5, 0\.2",
        ),
        (lambda: aug.RandomResizedCrop(4, area=(0.0, 1)), ValueError, "must be above 0"),
        (lambda: aug.RandomResizedCrop(4, area=(0.1, 1.5)), ValueError, r"area \(high\) .*got 1\."),
        (lambda: aug.RandomResizedCrop(4, ratio=0.5), TypeError, "ratio must be a pair"),
        (lambda: aug.RandomResizedCrop(4, ratio=(NAN, 1)), ValueError, r"ratio \(low\) .*got nan"),
        (lambda: aug.RandomBrightness(-0.1), ValueError, r"RandomBrightness: amount .*got -0\.1"),
        (lambda: aug.RandomContrast(NAN), ValueError, "RandomContrast: amount .*got nan"),
        (lambda: aug.RandomSaturation("1"), TypeError, "RandomSaturation: amount must be a number"),
        (lambda: aug.RandomHue(0.6), ValueError, r"RandomHue: amount must be .*<= 0\.5, got 0\.6"),
        (lambda: aug.RandomGray(2), ValueError, "RandomGray: probability"),
        (lambda: aug.CutOut(0), ValueError, "CutOut: size must be at least 1, got 0"),
        (lambda: aug.CutOut(2, NAN), ValueError, "CutOut: fill must be finite, got nan"),
        (lambda: aug.Compose([]), ValueError, "Compose: steps is empty"),
        (lambda: aug.Compose(aug.RandomFlip()), TypeError, "steps must be a list"),
        (lambda: aug.Compose([aug.RandomFlip]), TypeError, "got the class RandomFlip"),
        (
            lambda: aug.RandomHue(0.1)(KEY, jnp.zeros((2, 2, 3), jnp.uint8)),
            TypeError,
            r"RandomHue: the image must be floating point in \[0, 1\], got uint8; convert it",
        ),
        (
            lambda: aug.RandomFlip()(KEY, jnp.zeros((5, 2, 2, 3))),
            ValueError,
            r"must have shape \(h, w, c\), got \(5, 2, 2, 3\); for a batch use augment",
        ),
        (lambda: aug.RandomHue(0.1)(KEY, jnp.zeros((2, 2, 4))), ValueError, r"1 \(gray\) or 3"),
        (lambda: aug.RandomGray(0.1)(KEY, jnp.zeros((2, 2, 1))), ValueError, "3 channels"),
        (
            lambda: aug.RandomCrop(5, padding=1)(KEY, jnp.zeros((2, 3, 1))),
            ValueError,
            r"size \(5, 5\) is larger than the padded image \(4, 5\); pad more",
        ),
        (
            lambda: aug.augment(KEY, jnp.zeros((2, 2, 3)), aug.RandomFlip()),
            ValueError,
            r"augment: images must have shape \(n, h, w, c\), got \(2, 2, 3\)",
        ),
        (
            lambda: aug.augment(
                KEY, jnp.zeros((2, 2, 2, 3)), aug.RandomFlip(), examples=jnp.arange(3)
            ),
            ValueError,
            r"augment: examples must hold one index per example, shape \(2,\), got \(3,\)",
        ),
        (
            lambda: aug.augment(KEY, jnp.zeros((2, 2, 2, 3)), jnp.flip),
            TypeError,
            r"augment: expected an augmentation such as RandomFlip\(\), got function",
        ),
        (lambda: aug.resize_box(jnp.zeros((2, 2)), (0, 0, 1, 1), 1), ValueError, r"\(h, w, c\)"),
        (lambda: aug.mixup(KEY, jnp.eye(2), jnp.eye(2), 0), ValueError, "alpha must be above 0"),
        (lambda: aug.mixup(KEY, jnp.eye(2), jnp.eye(2), -1), ValueError, "mixup: alpha must be"),
        (
            lambda: aug.mixup(KEY, jnp.eye(2), jnp.arange(2), 1),
            TypeError,
            r"must be one-hot, got integer labels; convert them with jax\.nn\.one_hot",
        ),
        (lambda: aug.mixup(KEY, jnp.eye(2), jnp.eye(3), 1), ValueError, r"got \(3, 3\) and \(2, 2"),
    ],
)
def test_errors_say_what_to_do(make, error, told):
    with pytest.raises(error, match=told):
        make()
