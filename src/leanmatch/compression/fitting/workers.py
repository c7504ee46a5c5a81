"""Layers beside one another: a thread for each, one thread of BLAS in it.

Factors of a layer are made of thousands of small products and solutions. Two threads of BLAS spend more time
waiting for each other in them than they save.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def beside_one_another(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map(work, items)`` on as many threads as torch uses, in order; ends early where the caller does.

    >>> list(beside_one_another(lambda x: x * x, [3, 4]))
    [9, 16]
    """
    pool = ThreadPoolExecutor(max_workers=torch.get_num_threads())
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
