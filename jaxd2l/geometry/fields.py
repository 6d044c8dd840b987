"""Receptive fields: which input pixels a unit of a feature map can see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from .sizes import Window, as_int

Interval: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """Which input pixels each unit of a feature map can see, along one axis; exact.

    `intervals[i]` is the first and last input pixel that unit i sees, for i in [0, period); unit
    i + period sees the same shifted by `shift` pixels. Without transposed windows the period is 1.
    A transposed window makes neighbours see different amounts, hence the phases; None marks a unit
    that sees nothing (a hole that a kernel smaller than its stride leaves). Pixel 0 is the first
    input pixel; negative numbers are padding, since the borders of the image are ignored. Inside
    its interval a unit need not see every pixel (dilation).

    Three fields need more than windows: a reversed axis has a negative shift; with shift 0 all
    units see the same, for instance the `whole` input; and with shift None the units follow no
    pattern (circular padding, a cumulative sum), so that `intervals` lists them all.

    `ReceptiveField()` is that of the input itself. Grow one with `then`, `after` and `union`.

    Example:
      >>> field = ReceptiveField().then(Window(7, 2, 3)).then(Window(3, 2, 1))
      >>> field.size, field.jump, field.start, field.centre(0), field.interval(1)
      (11, 4, -5, 0, (-1, 9))
    """

    intervals: tuple[Interval | None, ...] = ((0, 0),)
    shift: int | None = 1

    def __post_init__(self) -> None:
        if self.shift is None:
            return
        # Keep the shortest period, so that equal fields compare equal.
        period = len(self.intervals)
        for short in range(1, period):
            if period % short or self.shift * short % period:
                continue
            part, shift = self.intervals[:short], self.shift * short // period
            if all(_at(part, shift, i) == self.intervals[i] for i in range(short, period)):
                object.__setattr__(self, "intervals", part)
                object.__setattr__(self, "shift", shift)
                return

    @classmethod
    def whole(cls, size: int) -> ReceptiveField:
        """The field of units that all see the whole input of `size` pixels.

        Example:
          >>> field = ReceptiveField.whole(28)
          >>> field.size, field.jump, field.start
          (28, 0, 0)
        """
        return cls(((0, as_int(size, "size", 1) - 1),), 0)

    @property
    def size(self) -> int:
        """The number of pixels from the first to the last seen; the largest over the units."""
        return max((i[1] - i[0] + 1 for i in self.intervals if i is not None), default=0)

    @property
    def jump(self) -> int | Fraction | None:
        """How many input pixels lie between neighbouring units: the effective stride.

        A `Fraction` where it is not whole (after a transposed window), 0 where all units see the
        same, None where the units follow no pattern.
        """
        if self.shift is None:
            return None
        return _plain(Fraction(self.shift, len(self.intervals)))

    @property
    def start(self) -> int | None:
        """The first pixel that unit 0 sees (negative: in the padding); None if it sees nothing."""
        return None if self.intervals[0] is None else self.intervals[0][0]

    @property
    def padding(self) -> int | None:
        """The effective padding, `-start`."""
        return None if self.start is None else -self.start

    def interval(self, unit: int) -> Interval | None:
        """The first and last pixel that `unit` sees; None if it sees nothing."""
        return _at(self.intervals, self.shift, unit)

    def centre(self, unit: int) -> int | Fraction | None:
        """The middle of `interval(unit)`, a `Fraction` where it lies between two pixels."""
        seen = self.interval(unit)
        return None if seen is None else _plain(Fraction(seen[0] + seen[1], 2))

    def then(self, window: Window) -> ReceptiveField:
        """The field of the output of `window` applied to this feature map.

        Without transposed windows: size + (k-1)*jump, jump*stride, start - low*jump, with k the
        effective kernel.

        Raises:
          TypeError: not a `Window`.
          ValueError: the units follow no pattern, so what lies in the padding is not known.
        """
        if not isinstance(window, Window):
            raise TypeError(f"expected a Window(kernel, stride, padding), got {window!r}")
        units, shift = len(self.intervals), self._regular_shift()
        if window.transposed:
            units *= window.stride
        else:
            shift *= window.stride
        return ReceptiveField(tuple(self._hull(window.reads(i)) for i in range(units)), shift)

    def after(self, inner: ReceptiveField) -> ReceptiveField:
        """The field of a map whose units see `self.interval(u)` of a feature map that sees `inner`.

        The hull of inner.interval(v) for all v in self.interval(u); the jumps multiply. A window
        with dilation leaves out units of its interval, `then` does too and `after` does not: over
        an `inner` whose neighbours see different amounts it may be larger.

        Raises:
          TypeError: not a `ReceptiveField`.
          ValueError: `inner` is a finite list of units, but this field is none; use `listed`.

        Example:
          >>> pool = ReceptiveField().then(Window(2, 2))
          >>> field = pool.after(ReceptiveField().then(Window(3, padding=1)))
          >>> field.size, field.jump, field.start
          (4, 2, -1)
          >>> backwards = ReceptiveField(((27, 27),), -1)
          >>> backwards.after(field).interval(0) == field.interval(27)
          True
        """
        if not isinstance(inner, ReceptiveField):
            raise TypeError(f"expected a ReceptiveField, got {inner!r}")
        if self.shift is None:
            return ReceptiveField(tuple(inner._hull_of(seen) for seen in self.intervals), None)
        period, units = len(inner.intervals), len(self.intervals)
        turns = period // math.gcd(period, self.shift)
        seen = [inner._hull_of(self.interval(unit)) for unit in range(units * turns)]
        shift = self.shift * turns // period * inner._regular_shift()
        return ReceptiveField(tuple(seen), shift)

    def listed(self, units: int) -> ReceptiveField:
        """The same for the first `units` units only, as a finite list (shift None).

        Example:
          >>> ReceptiveField().then(Window(3)).listed(2)
          ReceptiveField(intervals=((0, 2), (1, 3)), shift=None)
        """
        count = as_int(units, "units", 1)
        return ReceptiveField(tuple(map(self.interval, range(count))), None)

    def union(self, other: ReceptiveField) -> ReceptiveField:
        """The field of a sum or concatenation of two branches: the hull of both.

        Raises:
          ValueError: the branches have different jumps, so their units do not stay aligned, or
            only one is a finite list, or they are of different length; use `listed`.

        Example:
          >>> branch = ReceptiveField().then(Window(3, padding=1))
          >>> branch.union(ReceptiveField()).size
          3
        """
        if self.shift is other.shift is None and len(self.intervals) == len(other.intervals):
            pairs = zip(self.intervals, other.intervals, strict=True)
            return ReceptiveField(tuple(_hull(pair) for pair in pairs), None)
        jumps = [Fraction(f._regular_shift(), len(f.intervals)) for f in (self, other)]
        if jumps[0] != jumps[1]:
            raise ValueError(
                f"branches with different jumps cannot be joined: {self.jump} and {other.jump}"
            )
        units = math.lcm(len(self.intervals), len(other.intervals))
        both = [(self.interval(i), other.interval(i)) for i in range(units)]
        return ReceptiveField(tuple(_hull(pair) for pair in both), int(jumps[0] * units))

    def _regular_shift(self) -> int:
        if self.shift is None:
            raise ValueError(
                f"the {len(self.intervals)} units of this field follow no pattern; it cannot be "
                f"continued"
            )
        return self.shift

    def _hull_of(self, units: Interval | None) -> Interval | None:
        """The hull of what the units from the first to the last of an interval see."""
        if units is None:
            return None
        if self.shift is None:
            return _hull(self.intervals[max(units[0], 0) : max(units[1] + 1, 0)])
        return self._hull(range(units[0], units[1] + 1))

    def _hull(self, units: range) -> Interval | None:
        """The hull of what evenly spaced `units` see; only one period at each end can matter."""
        period = len(self.intervals)
        ends = (*units[:period], *units[-period:])
        return _hull(self.interval(unit) for unit in ends)


def _at(intervals: tuple[Interval | None, ...], shift: int | None, unit: int) -> Interval | None:
    if shift is None:
        return intervals[unit] if 0 <= unit < len(intervals) else None
    turns, phase = divmod(unit, len(intervals))
    seen = intervals[phase]
    return None if seen is None else (seen[0] + turns * shift, seen[1] + turns * shift)


def _hull(intervals: Iterable[Interval | None]) -> Interval | None:
    seen = [interval for interval in intervals if interval is not None]
    if not seen:
        return None
    return min(lo for lo, _ in seen), max(hi for _, hi in seen)


def _plain(value: Fraction) -> int | Fraction:
    return value.numerator if value.denominator == 1 else value


def receptive_field(windows: Iterable[Window]) -> ReceptiveField:
    """The receptive field of the last feature map of a stack of windows, from the first one up.

    r_n = r_(n-1) + (k_n - 1)*j_(n-1) and j_n = j_(n-1)*s_n, from r_0 = j_0 = 1: the product of
    strides leaves out the layer's own. Dilation counts through the effective kernel. After
    transposed windows it is exact for each unit, and `size` is the largest.

    Source: Araujo, Norris & Sim, Distill 2019, doi:10.23915/distill.00021; D2L 7.2.

    Example:
      >>> field = receptive_field([Window(11, 4), Window(3, 2), Window(5, 1, 2)])
      >>> field.size, field.jump, field.padding
      (51, 8, 16)
    """
    field = ReceptiveField()
    for window in windows:
        field = field.then(window)
    return field


def receptive_field_top_down(windows: Sequence[Window]) -> int:
    """The size of the receptive field, from the last window down: r = (r-1)*s + k, from r = 1.

    A transposed window takes r to floor((r + k - 2)/s) + 1, the most inputs that r neighbouring
    outputs can meet. Equal to `receptive_field(windows).size`, except that it is only an upper
    bound where a strided window follows a transposed one (it may never meet the best alignment)
    or a transposed window has gaps (dilation, or a kernel smaller than the stride).

    Source: Araujo, Norris & Sim, Distill 2019, doi:10.23915/distill.00021.

    Example:
      >>> receptive_field_top_down([Window(11, 4), Window(3, 2), Window(5, 1, 2)])
      51
    """
    size = 1
    for window in reversed(windows):
        k, s = window.effective_kernel, window.stride
        size = (size + k - 2) // s + 1 if window.transposed else (size - 1) * s + k
    return size
