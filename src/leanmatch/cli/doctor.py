"""``leanmatch doctor``: what is installed, what the CPU can do, which native variants run, what is wrong."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any

import typer

from leanmatch import __version__, cpus
from leanmatch.cli.common import EXIT_FAILED, JsonOption, print_json, reported_errors, stdout_console
from leanmatch.errors import LeanmatchError
from leanmatch.files import user_cache, why_unwritable


@dataclass(frozen=True)
class Package:
    """A distribution, the module it brings and the extra it belongs to (None: every installation has it)."""

    module: str
    extra: str | None = None


PACKAGES: dict[str, Package] = {
    "faiss-cpu": Package("faiss"),
    "filelock": Package("filelock"),
    "lazy-loader": Package("lazy_loader"),
    "numpy": Package("numpy"),
    "pyyaml": Package("yaml"),
    "rich": Package("rich"),
    "safetensors": Package("safetensors"),
    "tokenizers": Package("tokenizers"),
    "tqdm": Package("tqdm"),
    "typer": Package("typer"),
    "ir-measures": Package("ir_measures", "data"),
    "pyarrow": Package("pyarrow", "data"),
    "scipy": Package("scipy", "data"),
    "threadpoolctl": Package("threadpoolctl", "train"),
    "torch": Package("torch", "train"),
    "transformers": Package("transformers", "train"),
    "sentence-transformers": Package("sentence_transformers", "train"),
    "datasets": Package("datasets", "train"),
    "accelerate": Package("accelerate", "train"),
    "peft": Package("peft", "train"),
    "fastapi": Package("fastapi", "serve"),
    "httptools": Package("httptools", "serve"),
    "prometheus-client": Package("prometheus_client", "serve"),
    "py3langid": Package("py3langid", "serve"),
    "uvicorn": Package("uvicorn", "serve"),
    "uvloop": Package("uvloop", "serve"),
    "opentelemetry-exporter-otlp-proto-http": Package("opentelemetry.exporter.otlp.proto.http", "otel"),
    "opentelemetry-sdk": Package("opentelemetry.sdk", "otel"),
    "httpx": Package("httpx", "client"),
    "tenacity": Package("tenacity", "client"),
    "onnx": Package("onnx", "export"),
    "onnxruntime": Package("onnxruntime", "export"),
    "onnxscript": Package("onnxscript", "export"),
    "jinja2": Package("jinja2", "report"),
    "matplotlib": Package("matplotlib", "report"),
    "bm25s": Package("bm25s", "hybrid"),
    "langchain-core": Package("langchain_core", "langchain"),
    "huggingface-hub": Package("huggingface_hub", "hub"),
}

Report = dict[str, Any]


def examine(*, full: bool = False) -> Report:
    """Look at the installation; nothing is imported but the native extension unless ``full``.

    Args:
        full: also import every installed package of :data:`PACKAGES` and ask torch for its devices (seconds).

    Returns:
        A JSON document: ``leanmatch python platform cpu native cache packages devices problems usable``.
        ``devices`` is None unless ``full`` and torch is there. ``usable`` is true when ``problems`` is empty.
    """
    problems: list[dict[str, str]] = []
    report: Report = {
        "leanmatch": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "native": _native(problems),
        "cache": _cache(),
        "packages": [_package(name, package, full, problems) for name, package in PACKAGES.items()],
        "devices": _devices(problems) if full else None,
    }
    return {**report, "problems": problems, "usable": not problems}


def doctor(
    full: Annotated[
        bool, typer.Option("--full", help="Also import every package and look for a GPU (takes seconds).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show versions, CPU features and native variants; exit code 1 where something needed is broken."""
    with reported_errors():
        report = examine(full=full)
        if as_json:
            print_json(report)
        else:
            _print_report(report)
    if not report["usable"]:
        raise typer.Exit(EXIT_FAILED)


def _cpu() -> Report:
    return {
        "model": cpus.cpu_name(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": cpus.usable_cpus(),
        "quota": cpus.own_quota(),
    }


def _cache() -> Report:
    """Where measurements are kept; without it models load all the same, some a little slower."""
    folder = user_cache()
    if folder is None:
        return {"folder": None, "why_unwritable": "the user has no home folder"}
    return {"folder": str(folder), "why_unwritable": why_unwritable(folder)}


def _native(problems: list[dict[str, str]]) -> Report:
    from leanmatch import native

    out: Report = {"loaded": False, "path": None, "limit": os.environ.get(native.LIMIT_VARIABLE) or None}
    out |= {"features": {}, "variants": {}, "kernels": {}}
    try:
        module = native.load()
        out |= {"loaded": True, "path": module.__file__, "features": native.cpu_features()}
        out["kernels"] = _kernels()
        out["variants"] = {
            name: {"runs": variant.runs, "why_not": variant.why_not, "needs": list(variant.needs)}
            for name, variant in native.variants().items()
        }
    except LeanmatchError as error:
        problems.append({"problem": error.problem, "remedy": error.remedy or ""})
    return out


def _kernels() -> dict[str, str]:
    from leanmatch.runtime.kernels.paths import kernel_levels

    return kernel_levels()


def _package(name: str, package: Package, full: bool, problems: list[dict[str, str]]) -> Report:
    out: Report = {"name": name, "version": None, "extra": package.extra}
    try:
        out["version"] = metadata.version(name)
    except metadata.PackageNotFoundError:
        if package.extra is None:
            problems.append({"problem": f"{name} is not installed", "remedy": f"pip install {name}"})
        return out
    if full:
        try:
            importlib.import_module(package.module)
        except Exception as error:  # whatever a broken installation raises is what we are here to show
            problem = f"{name} {out['version']} is installed but does not import: {error}"
            problems.append({"problem": problem, "remedy": f"pip install --force-reinstall {name}"})
    return out


def _devices(problems: list[dict[str, str]]) -> list[str] | None:
    try:
        torch = importlib.import_module("torch")
    except ImportError:  # absent, or reported by _package already
        return None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(count))]


def _print_report(report: Report) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _rows(report):
        table.add_row(label, escape(text))
    console = stdout_console()
    console.print(table)
    for item in report["problems"]:
        console.print(f"[red]problem:[/red] {escape(item['problem'])}")
        console.print(f"  remedy: {escape(item['remedy'])}")
    if report["usable"]:
        console.print("[green]Everything needed is here.[/green]")


def _cache_words(cache: Report) -> str:
    if cache["why_unwritable"] is None:
        return str(cache["folder"])
    folder = cache["folder"] or "none"
    return f"{folder} (not used: {cache['why_unwritable']}; 8-bit models take a little longer to load)"


def _rows(report: Report) -> list[tuple[str, str]]:
    cpu, native = report["cpu"], report["native"]
    features = [name for name, usable in native["features"].items() if usable]
    quota = "" if cpu["quota"] is None else f" (CPU quota {cpu['quota']:g})"
    rows = [
        ("leanmatch", report["leanmatch"]),
        ("python", f"{report['python']['version']} ({report['python']['executable']})"),
        ("platform", report["platform"]),
        ("cpu", f"{cpu['model']}, {cpu['usable_cores']} of {cpu['cores']} cores usable{quota}"),
        ("cpu features", " ".join(features) if native["loaded"] else "unknown without the native extension"),
        ("native", native["path"] if native["loaded"] else "not loaded"),
    ]
    if native["limit"]:
        rows.append(("LEANMATCH_CPU", native["limit"]))
    for name, variant in native["variants"].items():
        rows.append((f"  {name}", "runs" if variant["runs"] else f"no: {variant['why_not']}"))
    rows += [(f"  kernel {family}", level) for family, level in native["kernels"].items()]
    rows.append(("cache", _cache_words(report["cache"])))
    for package in report["packages"]:
        extra = package["extra"]
        absent = f'not installed (pip install "leanmatch[{extra}]")' if extra else "MISSING"
        rows.append((package["name"], package["version"] or absent))
    if report["devices"] is not None:
        rows.append(("devices", ", ".join(report["devices"])))
    return rows
