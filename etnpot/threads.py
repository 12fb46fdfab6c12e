"""How many threads a call uses, and one pool for all of them.

Kernels release the interpreter lock, so a range of atoms per thread is all it takes. The number of threads is
``ETNPOT_NUM_THREADS`` if set, else ``OMP_NUM_THREADS``, else the processors this process may use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from itertools import pairwise
from typing import TypeVar

from etnpot.errors import SpecificationError

__all__ = ["cut", "default_threads", "in_parallel", "run_ranges"]

Result = TypeVar("Result")


def default_threads() -> int:
    """Number of threads when the caller does not say."""
    for name in ("ETNPOT_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").strip()
        if text:
            if not text.isdigit() or int(text) < 1:
                if name.startswith("ETNPOT"):
                    raise SpecificationError(f"{name}: expected a positive integer, got {text!r}")
                continue
            return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _pool(pid: int, n_threads: int) -> ThreadPoolExecutor:
    # keyed by process: threads do not survive a fork
    return ThreadPoolExecutor(n_threads, thread_name_prefix="etnpot")


def cut(n_items: int, *, threads: int | None, block: int, smallest: int) -> list[int]:
    """Ends of the ranges of ``0:n_items``, one for each thread; see `run_ranges`."""
    n_threads = default_threads() if threads is None else threads
    n_ranges = max(1, min(n_threads, n_items // max(smallest, 1)))
    n_blocks = -(-n_items // block)
    return [min(n_items, block * (n_blocks * t // n_ranges)) for t in range(n_ranges + 1)]


def in_parallel(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """What each call returns, each in a thread of its own; the last one runs in that of the caller."""
    if len(calls) < 2:
        return [call() for call in calls]
    pool = _pool(os.getpid(), len(calls) - 1)
    futures = [pool.submit(call) for call in calls[:-1]]
    try:
        last = calls[-1]()
    finally:
        wait(futures)  # nothing that a call writes to is left while it runs
    return [*(future.result() for future in futures), last]


def run_ranges(
    work: Callable[[int, int], Result], n_items: int, *, threads: int | None, block: int, smallest: int
) -> list[Result]:
    """What ``work(start, stop)`` returns for each range of ``0:n_items``, cut into one per thread.

    Parameters
    ----------
    work : callable
        Releases the interpreter lock for most of its time.
    n_items : int
        Length of the whole range.
    threads : int or None
        None for `default_threads`.
    block : int
        Cuts fall on multiples of it.
    smallest : int
        Ranges are not made shorter than this.
    """
    cuts = cut(n_items, threads=threads, block=block, smallest=smallest)
    return in_parallel([partial(work, *ends) for ends in pairwise(cuts)])
