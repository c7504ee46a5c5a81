"""Types of the compiled extension (csrc/module.cpp). Use it through :mod:`leanmatch.native`."""

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

linear: ModuleType  # csrc/bind_linear.cpp; use it through leanmatch.runtime.linear

def architecture() -> str: ...
def cpu_features() -> dict[str, bool]: ...
def levels() -> dict[str, tuple[str, ...]]: ...
def decode_x86(
    *,
    leaf1_ecx: int = 0,
    leaf7_ebx: int = 0,
    leaf7_ecx: int = 0,
    leaf7_edx: int = 0,
    leaf7_1_eax: int = 0,
    xcr0: int = 0,
) -> dict[str, bool]: ...
def pursue(
    level: str,
    weight: NDArray[np.float32],
    atoms: NDArray[np.float32],
    indices: NDArray[np.unsignedinteger] | None,
    values: NDArray[np.float32],
    errors: NDArray[np.float32],
    *,
    initial: NDArray[np.unsignedinteger] | None,
    gain: bool,
    beam: int,
    margin: float,
    threads: int,
) -> bool: ...
def decode(
    level: str,
    indices: NDArray[np.unsignedinteger],
    values: NDArray[np.float32],
    atoms: NDArray[np.float32],
    weight: NDArray[np.float32],
    *,
    threads: int,
) -> None: ...
def decode_backward(
    level: str,
    gradient: NDArray[np.float32],
    indices: NDArray[np.unsignedinteger],
    values: NDArray[np.float32],
    atoms: NDArray[np.float32],
    d_values: NDArray[np.float32],
    d_atoms: NDArray[np.float32],
    *,
    threads: int,
) -> None: ...
