"""A bound on the memory that a reader may ask for.

Readers of other projects believe the sizes that a file claims: one changed digit of a text file can ask for terabytes. The
system itself bounds the address space (RLIMIT_AS), for the time of the reading, to what the process has already and a part
in proportion to the file. Where the system has no such limit there is no bound.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["memory_limit"]

#: The limit belongs to the process: one reader at a time sets it.
_LOCK = threading.Lock()


@contextlib.contextmanager
def memory_limit(n_bytes: int) -> Iterator[None]:
    """Let the process map at most `n_bytes` more than now; what asks for more gets a MemoryError.

    Parameters
    ----------
    n_bytes : int
        Bytes of address space. A stricter limit that the process has already is kept.
    """
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as stream:
            mapped = int(stream.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):  # pragma: no cover: another system
        yield
        return
    with _LOCK:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = mapped + n_bytes
        bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
        try:
            resource.setrlimit(resource.RLIMIT_AS, (min([limit, *bounds]), hard))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
