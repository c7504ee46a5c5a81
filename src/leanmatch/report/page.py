"""A diagnosis as one HTML page that needs nothing else: no network, light and dark, printable."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from leanmatch import __version__
from leanmatch.errors import MissingExtraError
from leanmatch.files import atomic_file
from leanmatch.metrics.names import MAIN_METRICS
from leanmatch.report.charts import concentration_chart, number, slice_rows, word_chart
from leanmatch.report.diagnosis import Diagnosis
from leanmatch.report.opening import opening

CHARTED, LISTED = 12, 200
"""Words in each half of the drift chart, and in the table below it."""


def render_page(diagnosis: Diagnosis) -> str:
    """The page as a string.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    environment = _environment()
    evaluation = diagnosis.evaluation
    present = list(dict.fromkeys(m for part in evaluation.slices.values() for m in part.metrics))
    main = next((name for name in MAIN_METRICS if name in present), present[0])
    distinct = {name: part for name, part in evaluation.slices.items() if part.same_as is None}
    parts = {name: part for name, part in diagnosis.parts.items() if name in distinct}
    whole = diagnosis.to_json()
    data = {
        "name": diagnosis.name,
        "against": diagnosis.against,
        "slices": [name for name, part in distinct.items() if part.kind != "overall"],
        "pairs": whole["pairs"],
    }
    template = environment.get_template("report.html.j2")
    page: str = template.render(
        diagnosis=diagnosis,
        version=__version__,
        style=_text("style.css"),
        script=_text("explorer.js"),
        data=_in_script(data),
        main=slice_rows(evaluation, main),
        others=[slice_rows(evaluation, metric) for metric in present if metric != main],
        opening=opening(diagnosis),
        words=word_chart(diagnosis.gained()[:CHARTED], diagnosis.lost()[:CHARTED]),
        parts=parts,
        listed=diagnosis.spoken()[:LISTED],
        concentration=concentration_chart(parts),
        percent=f"{100 * diagnosis.options.confidence:g}%",
    )
    return page


def write_page(diagnosis: Diagnosis, path: str | Path) -> None:
    """Write the page to a file, whole or not at all.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    page = render_page(diagnosis)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def require_jinja() -> None:
    """Refuse at once what would fail after minutes of work.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    _environment()


def _environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise MissingExtraError("jinja2", "report", "writing a report") from error
    environment = Environment(
        loader=PackageLoader("leanmatch.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["points"] = lambda share, sign=False: number(
        None if share is None else 100 * share, 1, sign=sign
    )
    return environment


def _text(name: str) -> str:
    return resources.files("leanmatch.report").joinpath("templates", name).read_text(encoding="utf-8")


def _in_script(value: Any) -> str:
    """JSON that may stand inside a script element whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
