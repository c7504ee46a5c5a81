"""Works on several layers at once: one thread for each layer, one BLAS thread in each.

Factoring a layer takes thousands of small matrix products and solutions, in which two BLAS threads wait for
each other longer than they save.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map(work, items)`` on as many threads as torch uses, in order; ends early where the caller does.

    >>> list(in_parallel(lambda x: x * x, [3, 4]))
    [9, 16]
    """
    pool = ThreadPoolExecutor(max_workers=torch.get_num_threads())
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
