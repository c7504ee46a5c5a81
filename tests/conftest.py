"""Fixtures that several test modules share."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no fault of the code: neither deadlines nor a health check of slow examples fail a test.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers that several folders share


@pytest.fixture(scope="session", autouse=True)
def unlimited_width() -> None:
    """No ``COLUMNS``: a plugin sets it in the workers of pytest-xdist, where commands would fold lines."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data(repository: Path) -> Path:
    """The folder of real data beside the checkout (or LEANMATCH_SHARED_DATA); skips where there is none."""
    folder = Path(os.environ.get("LEANMATCH_SHARED_DATA") or repository.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder} (set LEANMATCH_SHARED_DATA)")
    return folder


@pytest.fixture(scope="module")
def load_script(repository: Path):
    """``load_script("benchmarks/serve.py")``: a script as a module, for the tests of one file."""
    loaded: list[str] = []

    def load(path: str) -> ModuleType:
        name = Path(path).stem
        specification = importlib.util.spec_from_file_location(name, repository / path)
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module  # dataclasses look their module up
        loaded.append(name)
        specification.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def browser():
    """A headless chromium, LEANMATCH_BROWSER or the one on the PATH; skips where there is none.

    Of one module: as long as it runs, no other test may run an event loop.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="browser test: no playwright (test extra)")
    names = (os.environ.get("LEANMATCH_BROWSER"), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("browser test: no chromium on the PATH (set LEANMATCH_BROWSER)")
    quiet = ("gpu", "quic", "background-networking", "component-update", "sync")
    flags = ["--no-first-run", *(f"--disable-{what}" for what in quiet)]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path, headless=True, chromium_sandbox=False, args=flags
        )
        yield started
        started.close()
