"""A site in Chromium: what a visitor downloads, first answers, searches, stutter, memory.

    python benchmarks/web.py SITE [--json FILE]
    python benchmarks/web.py CATALOGUE --items 50000      # as many drawn vectors in place of the catalogue's
    python benchmarks/web.py SITE --against ONNX ORT      # and one text beside onnxruntime-web, in turns

ONNX: written by `leanmatch export MODEL --to onnx --int8`. ORT: `npm install --prefix ORT onnxruntime-web`.

The page is opened cold (nothing in the cache), then warm (a second visit), with a search in its address.
Memory is measured in visits of their own: a browser that is driven keeps what it downloads for its driver.
The bars: 10 MB without vectors and items, 200 kB of WebAssembly, 60 kB of scripts gzipped, a first answer
0.5 s after the warm visit began, 15 ms for a search among 50,000 items, no task of its thread over 50 ms,
120 MB of private memory.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import http.server
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from leanmatch.index import Catalogue, Item, create_from_vectors
from leanmatch.web import export_site

CSP = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'"
QUERIES = (
    "fill missing values from the rows before them",
    "smooth a noisy signal with a moving window",
    "split the rows into groups and count them",
    "sort an array",
    "solve a system of linear equations",
    "how similar are two probability distributions",
)
ROUNDS = 10
SETTLED_S = 12.0
"""After so long a page keeps nothing more."""
WATCH = """
window.longest = 0; window.answered = 0;
new PerformanceObserver((list) => { for (const one of list.getEntries())
  window.longest = Math.max(window.longest, one.duration); }).observe({ type: "longtask", buffered: true });
new MutationObserver(() => { if (!window.answered && document.querySelector(".result"))
  window.answered = performance.now(); }).observe(document, { childList: true, subtree: true });
"""
MEASURE = """async ([queries, rounds]) => {
  const { load, openCatalogue } = await import("./leanmatch.js");
  const [model, catalogue] = await Promise.all([load("model/"), openCatalogue("catalogue/")]);
  await catalogue.load();
  const times = { encode: [], search: [] };
  for (let round = 0; round < rounds; round++) {
    for (const text of queries) {
      const begun = performance.now();
      await model.encodeQuery([`${text} ${round}`]);
      const encoded = performance.now();
      await model.search(catalogue, `${text} ${round}`, { k: 10 });
      times.encode.push(encoded - begun);
      times.search.push(performance.now() - encoded);
    }
  }
  const begun = performance.now();
  const [{ id }] = await model.search(catalogue, queries[0], { k: 1 });
  const explained = performance.now();
  await model.explain(catalogue, queries[0], id);
  return { ...times, explain: performance.now() - explained, items: catalogue.items };
}"""


LENGTHS = (4, 8, 16, 32)
SECONDS = 5
ENGINES = """async ([length, seconds]) => {
  const { compileRuntime, NativeModel, runtimeFile } = await import("/worker.js");
  const ort = await import("/ort/ort.wasm.min.mjs");
  const get = async (file) => (await fetch(file)).arrayBuffer();
  const plan = JSON.parse(new TextDecoder().decode(await get("/model/model.json")));
  const word = (at) => (at === 0 ? 101 : at === length - 1 ? 102 : 2000 + ((at * 7919) % 20000));
  const ids = Int32Array.from({ length }, (_, at) => word(at));
  const offsets = Int32Array.from([0, length]);
  const row = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, length]);
  const [ones, zeros] = [1, 0].map((value) => row(ids.map(() => value)));
  const inputs = { input_ids: row(ids), attention_mask: ones, token_type_ids: zeros };
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create("/onnx/model.onnx", { executionProviders: ["wasm"] });
  const feeds = Object.fromEntries(session.inputNames.map((name) => [name, inputs[name]]));
  const engines = { onnxruntime: () => session.run(feeds) };
  for (const file of ["leanmatch.wasm", runtimeFile()]) {
    const runtime = await compileRuntime(await get(`/${file}`));
    const model = NativeModel.create(runtime, plan, await get("/model/model.bin"));
    engines[file] = async () => model.encode(ids, offsets);
  }
  const times = Object.fromEntries(Object.keys(engines).map((name) => [name, []]));
  const rounds = async (goes) => {
    while (goes())
      for (const [name, run] of Object.entries(engines)) {
        const begun = performance.now();
        await run();
        times[name].push(performance.now() - begun);
      }
  };
  let warm = 150; // until everything is compiled by the last tier
  await rounds(() => warm-- > 0);
  await new Promise((done) => setTimeout(done, 1000));
  for (const some of Object.values(times)) some.length = 0;
  const end = performance.now() + 1000 * seconds;
  await rounds(() => performance.now() < end);
  return times;
}"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """A host of static files that compresses nothing and sends the policy of docs/how-to/web.md."""

    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self):
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")  # finer clocks
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_):
        pass


def drawn_site(catalogue: Path, items: int, model: str | None, folder: Path) -> Path:
    """A site of the catalogue's model with drawn vectors: what a search costs does not depend on them."""
    opened = Catalogue.open(catalogue)
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(items, opened.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [Item(str(n), f"item {n}, {opened.text(n % len(opened))}", {"n": n}) for n in range(items)]
    create_from_vectors(folder / "catalogue", rows, vectors, opened.manifest.model)
    export_site(folder / "catalogue", folder / "site", model=model)
    return folder / "site"


def downloads(site: Path) -> dict[str, int]:
    """Bytes of a first visit by part; scripts and the runtime gzipped as well."""

    def size(*names: str, compressed: bool = False) -> int:
        contents = [path.read_bytes() for name in names for path in site.glob(name)]
        return sum(len(gzip.compress(content, 9)) if compressed else len(content) for content in contents)

    scripts = ("leanmatch.js", "worker.js")
    found = {
        "weights": size("model/model.bin"),
        "tokenizer": size("model/tokenizer.json", "model/model.json"),
        "tokenizer, gzipped": size("model/tokenizer.json", "model/model.json", compressed=True),
        "wasm": size("leanmatch-relaxed.wasm"),  # what a browser with relaxed SIMD loads
        "wasm, gzipped": size("leanmatch-relaxed.wasm", compressed=True),
        "scripts": size(*scripts),
        "scripts, gzipped": size(*scripts, compressed=True),
        "vectors": size("catalogue/vectors-*.bin"),
        "items": size("catalogue/items-*.json", "catalogue/ids.json"),
    }
    found["a visit without vectors and items"] = sum(
        found[part] for part in ("weights", "tokenizer, gzipped", "wasm, gzipped", "scripts, gzipped")
    )
    return found


def private_bytes(pid: int) -> int:
    """Memory that a process shares with no other (Linux)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))


def tabs(profile: str) -> list[int]:
    """Processes of the tabs of the browser with this profile (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
        if "--type=renderer" in command and profile in command:
            found.append(int(folder.name))
    return found


def memory(chromium: str, url: str, seconds: float) -> dict[str, dict[str, int]]:
    """Private memory of the tab at a first and at a second visit: the most, and after ``seconds``."""
    result = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ("--headless=new", "--no-sandbox", "--no-first-run", f"--user-data-dir={profile}")
        for name in ("cold", "warm"):
            with subprocess.Popen(
                [chromium, *options, f"{url}#q=sort+an+array"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                most = last = 0
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    time.sleep(0.05)
                    with contextlib.suppress(OSError):  # a process has ended
                        last = max(map(private_bytes, tabs(profile)), default=0)
                    most = max(most, last)
                process.terminate()
            result[name] = {"most": most, "last": last}
    return result


def visit(context, url: str) -> dict[str, float]:
    """Open the page with a search in its address; the time of its first answer, and its longest task."""
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(f"{url}#q=sort+an+array")
    page.wait_for_selector(".result", timeout=120_000)
    answered = page.evaluate("window.answered")
    page.locator("#offline", has_text="network").wait_for(timeout=120_000)
    box = page.locator("#query")
    box.fill("")
    box.press_sequentially("fill missing values", delay=40)
    time.sleep(1)
    longest = page.evaluate("window.longest")
    page.close()
    return {"first_answer_ms": answered, "longest_task_ms": longest}


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A host of the folder's files; gives its address."""
    handler = functools.partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def browser_path() -> str:
    """Chromium."""
    names = (os.environ.get("LEANMATCH_BROWSER"), "chromium", "chromium-browser", "google-chrome")
    return next(found for name in names if name and (found := shutil.which(name)))


def against(site: Path, onnx: Path, ort: Path) -> dict[str, dict[str, float]]:
    """Milliseconds for one text by its number of tokens: onnxruntime-web, and both builds of the runtime."""
    from playwright.sync_api import sync_playwright

    found = {}
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as url, sync_playwright() as playwright:
        parts = {"worker.js", "leanmatch.wasm", "leanmatch-relaxed.wasm", "model", "LICENSES.txt"}
        for part in parts:
            (Path(name) / part).symlink_to((site / part).resolve())
        (Path(name) / "onnx").symlink_to(onnx.resolve())
        (Path(name) / "ort").symlink_to((ort / "node_modules/onnxruntime-web/dist").resolve())
        browser = playwright.chromium.launch(executable_path=browser_path(), chromium_sandbox=False)
        for length in LENGTHS:
            page = browser.new_page()
            page.goto(f"{url}LICENSES.txt")
            times = page.evaluate(ENGINES, [length, SECONDS])
            found[str(length)] = {engine: statistics.median(some) for engine, some in times.items()}
            page.close()
        browser.close()
    return found


def measure(site: Path) -> dict[str, object]:
    """All figures of a site."""
    from playwright.sync_api import sync_playwright

    path = browser_path()
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serving(site))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=False)
        context = browser.new_context()
        cold, warm = visit(context, url), visit(context, url)
        page = context.new_page()
        page.goto(f"{url}LICENSES.txt")
        times = page.evaluate(MEASURE, [list(QUERIES), ROUNDS])
        result = {
            "browser": browser.version,
            "items": times["items"],
            "bytes": downloads(site),
            "cold": cold,
            "warm": warm,
            "encode_ms": spread(times["encode"]),
            "encode_and_search_ms": spread(times["search"]),
            "search_ms": statistics.median(times["search"]) - statistics.median(times["encode"]),
            "explain_one_result_ms": times["explain"],
        }
        browser.close()
    with serving(site) as url:
        result["memory_bytes"] = memory(path, url, SETTLED_S)
    return result


def spread(times: list[float]) -> dict[str, float]:
    """Median and the slowest of twenty."""
    return {"median": statistics.median(times), "p95": statistics.quantiles(times, n=20)[-1]}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write ``--json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path)
    parser.add_argument("--items", type=int)
    parser.add_argument("--model", help="the catalogue's model, if it has moved")
    parser.add_argument("--against", nargs=2, type=Path, metavar=("ONNX", "ORT"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        site = options.site
        if options.items is not None:
            site = drawn_site(options.site, options.items, options.model, Path(folder))
        result = measure(site)
        if options.against:
            result["one_text_ms"] = against(site, *options.against)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
