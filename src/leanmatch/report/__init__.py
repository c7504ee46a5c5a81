"""Diagnosis of a matcher as data and as a page: what its scores hang on, and how training moved that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.lazy import find_name

if TYPE_CHECKING:
    from leanmatch.report.diagnosis import Diagnosis as Diagnosis
    from leanmatch.report.diagnosis import diagnose as diagnose
    from leanmatch.report.options import DiagnoseOptions as DiagnoseOptions
    from leanmatch.report.page import render_page as render_page
    from leanmatch.report.page import write_page as write_page

_HOMES = {
    "DiagnoseOptions": "options",
    "Diagnosis": "diagnosis",
    "diagnose": "diagnosis",
    "render_page": "page",
    "write_page": "page",
}
__all__ = ["DiagnoseOptions", "Diagnosis", "diagnose", "render_page", "write_page"]


def __getattr__(name: str) -> Any:
    return find_name(__name__, _HOMES, name)
