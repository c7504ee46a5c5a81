"""Types of the compiled extension (csrc/module.cpp). Use it through :mod:`leanmatch.native`."""

from types import ModuleType

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
