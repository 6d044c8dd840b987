"""How many runs become one program: mapped at once, one after the other, or in chunks that fit.

`vmap` makes one larger step out of the steps of all runs, which pays where a step is so small that
the cost of starting each operation is what is measured. Where a step is large it only adds memory,
and a convolution mapped over its kernels becomes a grouped one, which a CPU is slow at unless it
has few channels.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxd2l.layers import Conv, Dense, Layer, walk

How = Literal["vmap", "map", "loop"]
WAYS = ("vmap", "map", "loop")
SMALL = 1e6  # multiply-accumulates of a forward pass over one batch; see `choose`
NARROW = 16  # channels of a convolution
SHARE = 0.8  # of the free memory that a program may be given


def choose(model: Any, input_shape: tuple[int, ...], batch_size: int, platform: str) -> How:
    """How to map runs of this model: "vmap" or "map".

    "vmap" on an accelerator (not measured), and on a CPU for small networks: dense ones of at most
    `SMALL` multiply-accumulates a batch, and convolutional ones of at most `NARROW` channels; else
    "map". `scripts/many_runs.py --rule` measures it.

    Example:
      >>> from jaxd2l import models
      >>> choose(models.mlp((64,)), (64,), 32, "cpu"), choose(models.lenet(), (28, 28, 1), 9, "cpu")
      ('vmap', 'vmap')
      >>> choose(models.mlp((256,)), (784,), 64, "cpu"), choose(models.rnn_lm(5, 4), (9,), 2, "cpu")
      ('map', 'map')
    """
    if platform != "cpu":
        return "vmap"
    if not isinstance(model, Layer):
        return "map"
    total = channels = 0
    for step in walk(model, input_shape):
        macs = step.layer.macs(step.input_shape)
        if isinstance(step.layer, Conv) and step.layer.groups == 1:
            channels = max(channels, step.layer.features)
        elif macs is None or (macs and not isinstance(step.layer, Dense)):
            return "map"
        total += macs or 0
    small = channels <= NARROW if channels else batch_size * total <= SMALL
    return "vmap" if small else "map"


def free_memory(device: Any) -> int | None:
    """Bytes that a program may use on `device`, or None where nobody says.

    Example:
      >>> (free_memory(jax.devices("cpu")[0]) or 1) > 0
      True
    """
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = dict(line.split(":", 1) for line in lines)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def memory_of(compiled: Any) -> int:
    """Bytes that a compiled program needs while it runs, results included and arguments not.

    Example:
      >>> memory_of(jax.jit(lambda x: x + 1).lower(jnp.zeros(256)).compile())
      1024
    """
    needs = compiled.memory_analysis()
    return int(needs.temp_size_in_bytes + needs.output_size_in_bytes)


def map_runs(
    one: Callable[..., Any],
    mapped: Sequence[Any],
    shared: Any,
    how: How,
    memory: int | None,
    programs: dict[Any, Any],
    label: Any,
    first_in_turn: bool = False,
) -> Any:
    """`one(*case, shared)` for every combination of cases, results stacked on leading axes.

    Args:
      one: a pure function of one element of each of `mapped`, and of `shared`.
      mapped: trees whose leaves have a leading axis, or None where there is nothing to map over;
        the axes of the result are in this order.
      how, memory: see `ensemble`.
      programs: where compiled programs are kept, by `label` and the shapes.
      first_in_turn: with "vmap", the first axis is gone through one by one all the same. Folds have
        batches of their own; the runs of one fold share them, which a CPU gains from.

    Example:
      >>> add = lambda a, b, shared: a + 10 * b + shared
      >>> rows = (jnp.arange(3), jnp.arange(2))
      >>> map_runs(add, rows, jnp.array(100), "vmap", None, {}, "add").tolist()
      [[100, 110], [101, 111], [102, 112]]
    """
    sizes = [None if case is None else jax.tree.leaves(case)[0].shape[0] for case in mapped]
    shape = tuple(size for size in sizes if size is not None)
    count = math.prod(shape)

    def at(numbers: Any, cases: Any, shared: Any) -> Any:
        """One run, by the number of its case on each axis."""
        left = iter(numbers)
        chosen = []
        for case in cases:
            i = None if case is None else next(left)
            chosen.append(jax.tree.map(lambda a, i=i: a[i], case))
        return one(*chosen, shared)

    grid = jnp.unravel_index(jnp.arange(count), shape) if shape else ()

    def reshaped(flat: Any) -> Any:
        return jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), flat)

    def at_once(cases: Any, shared: Any) -> Any:
        function = one
        in_turn = first_in_turn and cases[0] is not None and len(shape) > 1
        for number in reversed(range(in_turn, len(cases))):
            if cases[number] is not None:
                axes = tuple(0 if i == number else None for i in range(len(cases) + 1))
                function = jax.vmap(function, axes)
        if in_turn:
            return jax.lax.map(lambda case: function(case, *cases[1:], shared), cases[0])
        return function(*cases, shared)

    def in_chunks(chunk: int) -> Callable[..., Any]:
        def program(cases: Any, shared: Any) -> Any:
            def single(numbers: Any) -> Any:
                return at(numbers, cases, shared)

            size = chunk if chunk > 1 else None
            return reshaped(jax.lax.map(single, grid, batch_size=size))

        return program

    cases = tuple(mapped)
    if not shape:
        return _program(programs, (label, "one"), at_once, cases, shared)(cases, shared)
    if how == "loop":
        run = _program(programs, (label, "loop"), at, [g[0] for g in grid], cases, shared)
        results = [run([g[i] for g in grid], cases, shared) for i in range(count)]
        return reshaped(jax.tree.map(lambda *leaves: jnp.stack(leaves), *results))
    chunk = 1 if how == "map" else count
    if how == "vmap":
        whole = _program(programs, (label, "vmap", first_in_turn), at_once, cases, shared)
        chunk = _chunk(whole, count, memory)
        if chunk == count:
            return whole(cases, shared)
    program = in_chunks(chunk)
    return _program(programs, (label, "map", chunk), program, cases, shared)(cases, shared)


def _program(programs: dict[Any, Any], label: Any, function: Callable[..., Any], *args: Any) -> Any:
    """The function compiled for these arguments; inside another program, itself."""
    leaves, structure = jax.tree.flatten(args)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return function
    kinds = tuple((a.shape, str(a.dtype), getattr(a, "weak_type", False)) for a in leaves)
    key = (label, structure, kinds)
    if key not in programs:
        programs[key] = jax.jit(function).lower(*args).compile()
    return programs[key]


def _chunk(whole: Any, count: int, memory: int | None) -> int:
    """How many runs at once fit into the memory, judged by the program for all of them."""
    if not hasattr(whole, "memory_analysis"):
        return count  # part of another program, whose memory is its caller's
    if memory is None:
        free = free_memory(jax.devices()[0])
        if free is None:
            return count
        memory = int(SHARE * free)
    needed = memory_of(whole)
    return count if needed <= memory else max(1, count * memory // needed)
