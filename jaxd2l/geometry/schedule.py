"""Batches in an epoch, and the time that queued tasks take."""

from __future__ import annotations

import operator
from fractions import Fraction
from typing import NamedTuple

from .sizes import as_int


def iterations_per_epoch(examples: int, batch_size: int, drop_last: bool = False) -> int:
    """Batches in one pass: ceil(examples/batch_size), or the floor if the short one is dropped.

    Source: D2L 12.5.

    Example:
      >>> iterations_per_epoch(2000, 500), iterations_per_epoch(2001, 500)
      (4, 5)
    """
    n, b = as_int(examples, "examples", 0), as_int(batch_size, "batch_size", 1)
    return n // b if drop_last else -(-n // b)


def last_batch_size(examples: int, batch_size: int, drop_last: bool = False) -> int:
    """Examples in the last batch of a pass; 0 if there is no batch.

    Example:
      >>> last_batch_size(2000, 500), last_batch_size(2001, 500)
      (500, 1)
    """
    batches = iterations_per_epoch(examples, batch_size, drop_last)
    if not batches:
        return 0
    n, b = operator.index(examples), operator.index(batch_size)
    return b if drop_last else n - (batches - 1) * b


class QueueTimes(NamedTuple):
    """The time of a run that waits for each task, and of one that only waits at the end."""

    synchronous: int | Fraction
    asynchronous: int | Fraction


def queue_times(
    tasks: int, issue: int | Fraction, compute: int | Fraction, fetch: int | Fraction
) -> QueueTimes:
    """The time of `tasks` that are issued in t1, computed in t2 and fetched in t3 each.

    Waiting for each: n*(t1 + t2 + t3). Issuing all and fetching once:
    t1 + (n - 1)*max(t1, t2) + t2 + t3, which is t1 + n*t2 + t3 if computing is the slower part.

    Raises:
      TypeError: a time is not an integer or a `Fraction`.
      ValueError: a time is negative.
    Source: D2L 13.2.

    Example:
      >>> queue_times(1000, issue=1, compute=3, fetch=2)
      QueueTimes(synchronous=6000, asynchronous=3003)
    """
    n = as_int(tasks, "tasks", 1)
    for name, time in (("issue", issue), ("compute", compute), ("fetch", fetch)):
        if not isinstance(time, Fraction):
            as_int(time, name, 0)
        elif time < 0:
            raise ValueError(f"{name} must be at least 0, got {time}")
    together = issue + (n - 1) * max(issue, compute) + compute + fetch
    return QueueTimes(n * (issue + compute + fetch), together)
