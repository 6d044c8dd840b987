"""How an experiment reports: a claim, its figures with intervals over seeds, and the verdict.

    from report import print_claim

An experiment states a claim as numbers that are above 0 where the claim holds, one for each seed:
the epochs saved, say, or the loss of accuracy that is allowed minus the one that was found. The
verdict follows from their intervals by the rule of `verdict`; nobody writes it down.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """The mean over seeds, and the ends of its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


def interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of the mean: m -+ t_{n-1} s / sqrt(n). Differences of two treatments go
    in seed by seed, and ratios as logarithms.

    Shapes: values (n,), one for each seed.

    Raises:
      ValueError: fewer than two values, or one that is not finite.

    Example:
      >>> print(interval([1.0, 2.0, 3.0]))
      2 [-0.4841, 4.484]
    """
    from scipy import stats

    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size < 2 or not np.isfinite(array).all():
        raise ValueError(f"interval: two or more finite values are needed, got {array.tolist()}")
    mean = float(array.mean())
    half = float(stats.t.ppf((1 + confidence) / 2, array.size - 1) * array.std(ddof=1))
    half /= math.sqrt(array.size)
    return Interval(mean, mean - half, mean + half)


def holds(gain: Interval) -> str:
    """ "yes" if the interval is above 0, "no" if it is below 0 or is 0 alone, else "open".

    Example:
      >>> [holds(Interval(m, m - 1, m + 1)) for m in (2, 0, -2)]
      ['yes', 'open', 'no']
    """
    if gain.low > 0:
        return "yes"
    return "no" if gain.high < 0 or gain.low == gain.high else "open"


def verdict(gains: Sequence[Interval]) -> str:
    """One word for a claim with several parts: "true" if all of them hold, "depends" if one holds
    and one is contradicted, "false" if none holds and one is contradicted, else "open": these
    seeds do not decide a part on which it hangs.

    Example:
      >>> yes, open, no = (Interval(m, m - 1, m + 1) for m in (2, 0, -2))
      >>> [verdict(g) for g in ([yes, yes], [yes, open], [yes, no], [open, no], [open])]
      ['true', 'open', 'depends', 'false', 'open']
    """
    found = {holds(gain) for gain in gains}
    if found == {"yes"}:
        return "true"
    if "no" not in found:
        return "open"
    return "depends" if "yes" in found else "false"


def print_claim(
    number: str,
    claim: str,
    figures: Mapping[str, ArrayLike],
    gains: Mapping[str, ArrayLike],
) -> str:
    """Print a claim, what was measured, whether each part of it holds, and the verdict.

    Args:
      number: the claim's id, such as "C94".
      claim: what it says, in one line.
      figures: what was measured (with its unit): a value for each seed.
      gains: the parts of the claim: a value for each seed, above 0 where that part holds.

    Returns: the verdict.

    Example:
      >>> print_claim("C0", "Two is more than one.", {"two": [2, 2.1]}, {"two - one": [1.0, 1.1]})
      C0  Two is more than one.
        two          2.05 [1.415, 2.685]
      holds if above 0:
        two - one    1.05 [0.4147, 1.685]  yes
      C0 verdict: true (intervals of 95 % over 2 seeds)
      'true'
    """
    if not gains:
        raise ValueError(f"print_claim: {number} has no part that could hold or not")
    seeds = {np.size(values) for part in (figures, gains) for values in part.values()}
    if len(seeds) != 1:
        raise ValueError(f"print_claim: {number} has figures of {sorted(seeds)} seeds")
    width = max(len(name) for part in (figures, gains) for name in part) + 3
    print(f"{number}  {claim}")
    for name, values in figures.items():
        print(f"  {name:<{width}} {interval(values)}")
    print("holds if above 0:")
    parts = {name: interval(values) for name, values in gains.items()}
    for name, gain in parts.items():
        print(f"  {name:<{width}} {gain}  {holds(gain)}")
    word = verdict(list(parts.values()))
    print(
        f"{number} verdict: {word} (intervals of {100 * CONFIDENCE:.0f} % over {seeds.pop()} seeds)"
    )
    return word
