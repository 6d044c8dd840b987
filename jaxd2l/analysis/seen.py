"""What each element of an array sees of one axis of the input: intervals of pixels, exactly.

An interval is known for every element, but an image has few different ones: along most axes of the
array (batch, channels) they are all the same, and along the others they repeat shifted. So `lo`
and `hi` hold, for each axis d of the array, the first `period` entries only, and

    interval[..., i + period, ...] = interval[..., i, ...] + steps[d]

A step of 0 with period 1 says that all indices see the same. A step of None says that there is no
such rule; all entries are stored. A rule also continues beyond the ends of the array, which is
what the padding of a convolution reads: the borders of the image are ignored.
"""

import math
from typing import Any

import numpy as np

from jaxd2l.geometry import ReceptiveField

#: The interval of an element that sees nothing is (NONE, -NONE).
NONE = np.int64(1) << 60
#: More stored entries than this are not worth their memory: the axes are widened to their hull.
MOST = 1 << 22
#: The longest period looked for in a table.
_LONGEST = 64

Steps = tuple[int | None, ...]


class Seen:
    """What each element of an array of `shape` sees of an input axis of `pixels` pixels.

    Attributes:
      lo, hi: int64 arrays of the rank of `shape`, the first and last pixel seen.
      steps: one per axis; see the module.
    """

    __slots__ = ("hi", "lo", "pixels", "shape", "steps")

    def __init__(
        self, pixels: int, shape: tuple[int, ...], lo: np.ndarray, hi: np.ndarray, steps: Steps
    ) -> None:
        self.pixels = pixels
        self.shape = shape
        self.lo, self.hi = lo, hi
        self.steps = steps

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Seen)
            and (self.pixels, self.shape, self.steps) == (other.pixels, other.shape, other.steps)
            and np.array_equal(self.lo, other.lo)
            and np.array_equal(self.hi, other.hi)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Seen({self.shape}, lo={self.lo.tolist()}, hi={self.hi.tolist()}, {self.steps})"

    # --- construction ---------------------------------------------------------------------------

    @classmethod
    def of_input(cls, shape: tuple[int, ...], axis: int) -> "Seen":
        """The input itself: along `axis` index i sees pixel i."""
        zero = np.zeros((1,) * len(shape), np.int64)
        steps = tuple(int(d == axis) for d in range(len(shape)))
        return cls(shape[axis], shape, zero, zero, steps)

    @classmethod
    def uniform(cls, pixels: int, shape: tuple[int, ...], lo: int, hi: int) -> "Seen":
        """All elements see the pixels from `lo` to `hi`."""
        ones = (1,) * len(shape)
        return cls(
            pixels,
            shape,
            np.full(ones, lo, np.int64),
            np.full(ones, hi, np.int64),
            (0,) * len(shape),
        )

    @classmethod
    def nothing(cls, pixels: int, shape: tuple[int, ...]) -> "Seen":
        """No element sees anything."""
        return cls.uniform(pixels, shape, int(NONE), -int(NONE))

    @classmethod
    def whole(cls, pixels: int, shape: tuple[int, ...]) -> "Seen":
        """All elements see all pixels."""
        return cls.uniform(pixels, shape, 0, pixels - 1) if pixels else cls.nothing(0, shape)

    def with_(self, shape: tuple[int, ...], lo: Any, hi: Any, steps: Steps) -> "Seen":
        """Another array that sees the same input; its intervals made tidy."""
        empty = lo > hi
        if empty.any():
            lo, hi = np.where(empty, NONE, lo), np.where(empty, -NONE, hi)
        elif lo.size == 1 and not any(steps):  # all see the same: nothing is left to continue
            lo, hi = np.maximum(lo, 0), np.minimum(hi, self.pixels - 1)
            if (lo > hi).any():
                return Seen.nothing(self.pixels, shape)
        return Seen(self.pixels, shape, lo, hi, steps)

    # --- questions ------------------------------------------------------------------------------

    @property
    def is_uniform(self) -> bool:
        """Whether all elements see the same."""
        return self.lo.size == 1 and not any(self.steps)

    @property
    def is_nothing(self) -> bool:
        """Whether no element sees anything."""
        return bool((self.lo > self.hi).all())

    @property
    def is_whole(self) -> bool:
        """Whether all elements see all pixels."""
        return self.is_uniform and self.lo.item() <= 0 and self.hi.item() >= self.pixels - 1

    def same_along(self, axis: int) -> bool:
        """Whether all indices of `axis` see the same."""
        return self.steps[axis] == 0 and self.lo.shape[axis] == 1

    def moves_along(self, axis: int) -> bool:
        """Whether the indices of `axis` see different pixels, apart from those that see nothing."""
        if self.steps[axis]:
            return True
        bounds = (
            (self.lo.min(axis), np.where(self.lo == NONE, -NONE, self.lo).max(axis)),
            (np.where(self.hi == -NONE, NONE, self.hi).min(axis), self.hi.max(axis)),
        )
        return any(bool((low < high).any()) for low, high in bounds)

    def field(self, axis: int) -> ReceptiveField:
        """The receptive field of the units along `axis`, all other axes taken together."""
        seen = self
        for other in range(len(self.shape)):
            if other != axis:
                seen = seen.hull(other)
        if seen.steps[axis] == 0 and not seen.same_along(axis):  # a pattern that comes back
            seen = seen.listed(axis)
        lo, hi = seen.lo.ravel().tolist(), seen.hi.ravel().tolist()
        return ReceptiveField(
            tuple((a, b) if a <= b else None for a, b in zip(lo, hi, strict=True)),
            seen.steps[axis],
        )

    # --- one axis -------------------------------------------------------------------------------

    def _along(self, axis: int, lo: Any, hi: Any, size: int, step: int | None) -> "Seen":
        """The same but for one axis."""
        return self.with_(
            (*self.shape[:axis], size, *self.shape[axis + 1 :]),
            lo,
            hi,
            (*self.steps[:axis], step, *self.steps[axis + 1 :]),
        )

    def _at(self, axis: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`lo` and `hi` at these positions of `axis`, beyond its ends too."""
        period, step = self.lo.shape[axis], self.steps[axis]
        turns, phase = np.divmod(positions, period)
        lo, hi = self.lo.take(phase, axis), self.hi.take(phase, axis)
        if step is None:
            lost = _shaped(turns != 0, lo.ndim, axis)
            return np.where(lost, NONE, lo), np.where(lost, -NONE, hi)
        if step:
            move = _shaped(turns * step, lo.ndim, axis)
            empty = lo > hi
            lo, hi = lo + move, hi + move
            if empty.any():
                lo, hi = np.where(empty, NONE, lo), np.where(empty, -NONE, hi)
        return lo, hi

    def listed(self, axis: int) -> "Seen":
        """All entries of `axis` stored, without a rule."""
        if self.steps[axis] is None:
            return self
        lo, hi = self._at(axis, np.arange(self.shape[axis]))
        steps = (*self.steps[:axis], None, *self.steps[axis + 1 :])
        return Seen(self.pixels, self.shape, lo, hi, steps)

    def repeated(self, axis: int, times: int) -> "Seen":
        """`times` periods stored for one."""
        step, period = self.steps[axis], self.lo.shape[axis]
        if times == 1 or step is None:
            return self
        lo, hi = self._at(axis, np.arange(times * period))
        steps = (*self.steps[:axis], step * times, *self.steps[axis + 1 :])
        return Seen(self.pixels, self.shape, lo, hi, steps)

    def window(
        self,
        axis: int,
        count: int,
        start: int = 0,
        stride: int = 1,
        taps: int = 1,
        spacing: int = 1,
        spread: int = 1,
    ) -> "Seen":
        """Unit i sees what the positions `start + i*stride + t*spacing`, t in [0, taps), see.

        The positions are of this axis with `spread - 1` holes after each element. This is a
        convolution or a pooling; with one tap also a slice, a reversal, a padding.
        """
        if (count, start, stride, taps, spread) == (self.shape[axis], 0, 1, 1, 1):
            return self
        if self.same_along(axis) or not count:
            if not taps:
                return Seen.nothing(self.pixels, self._sized(axis, count))
            return self.resized(axis, count)
        period, step = self.lo.shape[axis], self.steps[axis]
        if step is None:
            units, moved = count, None
        else:
            units = spread * period // math.gcd(spread * period, stride)
            moved = step * units * stride // (spread * period)
        if taps * units * (self.lo.size // period) > MOST:
            return self.hull(axis).resized(axis, count)
        first = start + stride * np.arange(units)
        places = first[:, None] + spacing * np.arange(taps)[None, :]  # (units, taps)
        holes = places % spread != 0
        lo, hi = self._at(axis, (places // spread).ravel())
        shape = (*lo.shape[:axis], units, taps, *lo.shape[axis + 1 :])
        lo, hi = lo.reshape(shape), hi.reshape(shape)
        if holes.any():
            holes = holes.reshape(units, taps, *(1,) * (len(shape) - axis - 2))
            lo, hi = np.where(holes, NONE, lo), np.where(holes, -NONE, hi)
        lo = lo.min(axis + 1, initial=int(NONE))
        hi = hi.max(axis + 1, initial=-int(NONE))
        return self._along(axis, lo, hi, count, moved).tidy(axis)

    def _sized(self, axis: int, size: int) -> tuple[int, ...]:
        return (*self.shape[:axis], size, *self.shape[axis + 1 :])

    def resized(self, axis: int, size: int) -> "Seen":
        """Another size of an axis along which all see the same."""
        if not size:
            return Seen.nothing(self.pixels, self._sized(axis, 0))
        return Seen(self.pixels, self._sized(axis, size), self.lo, self.hi, self.steps)

    def hull(self, axis: int) -> "Seen":
        """Every index of `axis` sees what all its indices together see."""
        if self.same_along(axis):
            return self
        size = self.shape[axis]
        if not size:
            return Seen.nothing(self.pixels, self.shape)
        period = min(self.lo.shape[axis], size)
        first = np.arange(period)
        last = first + (size - 1 - first) // period * period
        lo, hi = self._at(axis, np.concatenate([first, last]))
        lo, hi = lo.min(axis, keepdims=True), hi.max(axis, keepdims=True)
        result = self._along(axis, lo, hi, size, 0)
        for other, step in enumerate(result.steps):
            if step is None:
                result = result.tidy(other)
        return result

    def accumulated(self, axis: int, reverse: bool) -> "Seen":
        """Index i sees what the indices up to i see, or from i on."""
        if self.same_along(axis):
            return self
        seen = self.listed(axis)
        lo, hi = (np.flip(a, axis) if reverse else a for a in (seen.lo, seen.hi))
        lo, hi = np.minimum.accumulate(lo, axis), np.maximum.accumulate(hi, axis)
        if reverse:
            lo, hi = np.flip(lo, axis), np.flip(hi, axis)
        return self._along(axis, lo, hi, self.shape[axis], None).tidy(axis)

    def without(self, axis: int, index: int = 0) -> "Seen":
        """The array at one index of `axis`."""
        lo, hi = self._at(axis, np.array([index]))
        return self.with_(
            self.shape[:axis] + self.shape[axis + 1 :],
            lo.squeeze(axis),
            hi.squeeze(axis),
            self.steps[:axis] + self.steps[axis + 1 :],
        )

    def inserted(self, axis: int, size: int = 1) -> "Seen":
        """A new axis along which all see the same."""
        shape = (*self.shape[:axis], size, *self.shape[axis:])
        if not size:
            return Seen.nothing(self.pixels, shape)
        lo, hi = np.expand_dims(self.lo, axis), np.expand_dims(self.hi, axis)
        return Seen(self.pixels, shape, lo, hi, (*self.steps[:axis], 0, *self.steps[axis:]))

    # --- finding the rule again -----------------------------------------------------------------

    def tidy(self, axis: int) -> "Seen":
        """The shortest period of an axis; for one without a rule, the rule if there is one.

        At both ends of the axis entries may differ from the rule where the pixels within the image
        are the same: that is a border, which a resize or a reflection handles in its own way.
        """
        step, period = self.steps[axis], self.lo.shape[axis]
        if step is None:
            return self._with_rule(axis)
        for short in range(1, min(period, _LONGEST + 1)):
            if period % short or step * short % period:
                continue
            moved = step * short // period
            head = Seen(self.pixels, self.shape, *self._first(axis, short), self._step(axis, moved))
            lo, hi = head._at(axis, np.arange(period))
            if np.array_equal(lo, self.lo) and np.array_equal(hi, self.hi):
                return head
        return self

    def _first(self, axis: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        which = np.arange(count)
        return self.lo.take(which, axis), self.hi.take(which, axis)

    def _step(self, axis: int, step: int | None) -> Steps:
        return (*self.steps[:axis], step, *self.steps[axis + 1 :])

    def _with_rule(self, axis: int) -> "Seen":
        size = self.shape[axis]
        lo = np.moveaxis(self.lo, axis, -1).reshape(-1, size)
        hi = np.moveaxis(self.hi, axis, -1).reshape(-1, size)
        if size < 2 or ((lo == lo[:, :1]).all() and (hi == hi[:, :1]).all()):
            return self._along(axis, *self._first(axis, min(size, 1)), size, 0)
        empty = lo > hi
        row = slice(int((~empty).any(1).argmax()), None)  # one that sees something, tried first
        one_lo, one_hi, one_empty = lo[row][:1], hi[row][:1], empty[row][:1]
        for period in range(1, min(_LONGEST, size // 2) + 1):
            rule = _rule(one_lo, one_hi, one_empty, period, self.pixels)
            rule = rule and _rule(lo, hi, empty, period, self.pixels)
            if rule is not None:
                begin, moved = rule
                # Counted from index 0: entry i is that of begin + (i - begin) mod period.
                phases = np.arange(period)
                turns, phase = np.divmod(phases - begin, period)
                shifts = _shaped(turns * moved, self.lo.ndim, axis)
                first = self.lo.take(begin + phase, axis), self.hi.take(begin + phase, axis)
                void = first[0] > first[1]
                low = np.where(void, NONE, first[0] + shifts)
                high = np.where(void, -NONE, first[1] + shifts)
                return Seen(self.pixels, self.shape, low, high, self._step(axis, moved))
        fixed = not any(step for other, step in enumerate(self.steps) if other != axis)
        if (
            fixed and ((lo <= 0) & (hi >= self.pixels - 1)).all()
        ):  # more than the whole image is no more
            ends = np.zeros_like(self.lo.take([0], axis))
            return self._along(axis, ends, ends + (self.pixels - 1), size, 0)
        return self


def _shaped(values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """A vector as an array of `rank` that varies along `axis`."""
    return values.reshape((-1,) + (1,) * (rank - 1 - axis))


def _rule(
    lo: np.ndarray, hi: np.ndarray, empty: np.ndarray, period: int, pixels: int
) -> tuple[int, int] | None:
    """(begin, step) such that from `begin` on, in the middle, entries repeat shifted, and at both
    ends they see the pixels of the image that the continued rule sees; None if there is none.
    """
    size = lo.shape[1]
    steps = lo[:, period:] - lo[:, :-period]
    same = (steps == hi[:, period:] - hi[:, :-period]) & ~empty[:, period:] & ~empty[:, :-period]
    void = empty[:, period:] & empty[:, :-period]
    middle = (size - period) // 2
    known = steps[:, middle : middle + period][same[:, middle : middle + period]]
    if not known.size:
        return None
    step = int(known[0])
    good = ((same & (steps == step)) | void).all(0)  # (size - period,)
    if not good[middle : middle + period].all():
        return None
    bad = np.flatnonzero(~good)
    before, after = bad[bad < middle], bad[bad > middle]
    begin = int(before[-1]) + 1 if before.size else 0
    end = (int(after[0]) if after.size else size - period) + period  # regular: [begin, end)
    if end - begin < 2 * period:
        return None
    outside = np.r_[0:begin, end:size]
    if outside.size:
        turns, phase = np.divmod(outside - begin, period)
        ruled_lo = lo[:, begin + phase] + turns * step
        ruled_hi = hi[:, begin + phase] + turns * step
        void = empty[:, begin + phase]
        ruled_lo, ruled_hi = np.where(void, NONE, ruled_lo), np.where(void, -NONE, ruled_hi)
        if (ruled_lo > lo[:, outside]).any() or (ruled_hi < hi[:, outside]).any():
            return None  # a border sees less than the rule, never more
        ruled = _clipped(ruled_lo, ruled_hi, pixels)
        real = _clipped(lo[:, outside], hi[:, outside], pixels)
        if not all(np.array_equal(a, b) for a, b in zip(ruled, real, strict=True)):
            return None
    return begin, step


def _clipped(lo: np.ndarray, hi: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    lo, hi = np.maximum(lo, 0), np.minimum(hi, pixels - 1)
    return np.where(lo > hi, NONE, lo), np.where(lo > hi, -NONE, hi)
