"""The page of a site in Debian's chromium: search while typing, filters, keyboard, offline, failures."""

from __future__ import annotations

import os
import shutil

import pytest

from leanmatch.web import export_site
from leanmatch.web.site import RUNTIMES

playwright = pytest.importorskip("playwright.sync_api", reason="browser test: no playwright (test extra)")

LATE = 30_000


@pytest.fixture
def opened(browser, serve_folder):
    """Opens a folder's page; at the end nothing was asked of others and no policy was broken."""
    contexts, outside, wrong = [], [], []

    def open_(
        folder,
        path="",
        *,
        width=1200,
        scheme="light",
        script=None,
        wait=".blank",
        max_age=None,
        workers="allow",
    ):
        url = serve_folder(folder, max_age)
        context = browser.new_context(
            viewport={"width": width, "height": 820}, color_scheme=scheme, service_workers=workers
        )
        contexts.append(context)
        context.add_init_script(
            "window.policy = [];"
            "addEventListener('securitypolicyviolation', (one) => window.policy.push(one.violatedDirective));"
        )
        if script is not None:  # what a browser without something does, at the beginning of the worker
            source = (folder / "worker.js").read_text(encoding="utf-8")
            context.route("**/worker.js", lambda route: route.fulfill(
                body=script + source, content_type="text/javascript"))  # fmt: skip
        page = context.new_page()
        page.set_default_timeout(LATE)
        page.on(
            "request", lambda one: None if one.url.startswith((url, "data:")) else outside.append(one.url)
        )
        page.on("pageerror", lambda one: wrong.append(str(one)))
        page.goto(url + path)
        page.wait_for_selector(wait)
        return page

    yield open_
    for context in contexts:
        for page in context.pages:
            if page.url.startswith("http"):
                assert page.evaluate("window.policy") == []
                wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert page.evaluate(wide) <= 0, "the page is wider than the screen"
        context.close()
    assert not outside and not wrong


def texts(page):
    return page.locator(".result .text").all_inner_texts()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (380, "dark")])
def test_search_explain_filter_and_keyboard(opened, site, width, scheme):
    page = opened(site, width=width, scheme=scheme)
    assert page.title() == page.inner_text("#title") == "Shop"
    assert "60 items" in page.inner_text("#about") and 3 <= page.locator(".tries button").count() <= 6
    box = page.locator("#query")
    box.press_sequentially("camera for children", delay=15)  # no Enter
    page.wait_for_selector(".result")
    playwright.expect(page.locator("#message")).to_contain_text("10 results", timeout=LATE)
    playwright.expect(page.locator(".result .text").first).to_contain_text("red wooden camera", timeout=LATE)
    assert page.url.endswith("#q=camera+for+children")
    assert page.locator(".result .meta").first.inner_text().startswith("id")

    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("[...document.querySelectorAll('.result')].indexOf(document.activeElement)") == 1
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.id") == "query"
    page.locator(".result").first.focus()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"

    page.locator("#explain").check(force=True)
    playwright.expect(page.locator(".asked")).to_have_count(10, timeout=LATE)
    assert page.is_visible("#legend")
    weights = page.locator("mark").evaluate_all(
        "all => all.map(one => one.style.getPropertyValue('--weight'))"
    )
    assert max(map(float, weights)) == pytest.approx(0.55, abs=0.01)  # the strongest word

    page.click("#filters-button")
    page.get_by_label("Toys").check()
    playwright.expect(page.locator(".result .meta", has_text="Toys")).to_have_count(9, timeout=LATE)
    assert page.inner_text("#filters-count") == "1"
    page.get_by_label("price, at least").fill("1000")
    page.get_by_label("price, at least").press("Tab")
    page.wait_for_selector(".blank button")
    assert "Nothing passes the filters" in page.inner_text(".blank")
    page.locator(".blank button").click()
    page.wait_for_selector(".result")
    page.go_back()
    page.wait_for_selector(".blank button")  # the filters of then

    box.focus()
    page.keyboard.press("Escape")
    page.wait_for_selector(".tries")
    assert box.input_value() == ""


def test_markup_is_text(opened, site):
    page = opened(site, "#q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E", wait=".result")
    assert "<img src=x onerror=alert(1)>" in texts(page)[0] and page.locator("#results img").count() == 0


def test_one_build_of_the_runtime_is_loaded_and_kept(opened, site):
    page = opened(site)
    playwright.expect(page.locator("#offline")).to_contain_text("without a network", timeout=LATE)
    kept = page.evaluate(
        "(async () => { const found = []; for (const name of await caches.keys())"
        " for (const { url } of await (await caches.open(name)).keys()) found.push(url); return found; })()"
    )
    builds = [url.rsplit("/", 1)[1] for url in kept if url.endswith(".wasm")]
    assert len(builds) == 1 and builds[0] in RUNTIMES
    loaded = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    assert not [url for url in loaded if url.endswith(".wasm") and not url.endswith(builds[0])]


def test_it_works_without_a_network(opened, site):
    page = opened(site)
    playwright.expect(page.locator("#offline")).to_contain_text("without a network", timeout=LATE)
    url = page.url
    page.context.set_offline(True)
    page.goto("about:blank")
    page.goto(f"{url}#q=headphones&filter=%7B%22column%22%3A%22stock%22%2C%22eq%22%3Atrue%7D", timeout=LATE)
    page.wait_for_selector(".result")
    assert any("headphones" in text for text in texts(page))
    page.context.set_offline(False)


@pytest.mark.parametrize("workers", ["allow", "block"])
def test_a_new_export_shows_at_the_next_visit(opened, site, catalogue, tmp_path, workers):
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    page = opened(folder, max_age=86_400, workers=workers)  # a host whose files browsers keep for a day
    if workers == "allow":
        playwright.expect(page.locator("#offline")).to_contain_text("without a network", timeout=LATE)
    url = page.url
    export_site(catalogue.folder, folder, title="Renewed", overwrite=True)
    page.goto("about:blank")
    page.goto(f"{url}#q=headphones")
    playwright.expect(page.locator("#title")).to_have_text("Renewed", timeout=LATE)
    page.wait_for_selector(".result")
    assert any("headphones" in text for text in texts(page))


def test_a_new_export_waits_for_who_is_typing(opened, site, catalogue, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    page = opened(folder)
    playwright.expect(page.locator("#offline")).to_contain_text("without a network", timeout=LATE)
    page.locator("#query").press_sequentially("camera")
    export_site(catalogue.folder, folder, title="Renewed", overwrite=True)
    page.evaluate("navigator.serviceWorker.getRegistration().then((one) => one.update())")
    playwright.expect(page.locator("#offline")).to_contain_text("replaced by a newer one", timeout=LATE)
    assert page.inner_text("#title") == "Shop" and page.locator("#query").input_value() == "camera"
    page.locator("#offline button").click()
    playwright.expect(page.locator("#title")).to_have_text("Renewed", timeout=LATE)


def test_the_example_page(opened, site):
    page = opened(site, "example.html", wait="#query:enabled")
    page.fill("#query", "camera for children")
    page.wait_for_selector("#found option", state="attached")
    assert "camera" in page.locator("#found option").first.inner_text()
    assert page.inner_text("#script").count("\n") == 3 and "load(" in page.inner_text("#script")


NO_SIMD = "WebAssembly.validate = () => false;"
NO_MEMORY = (
    "WebAssembly.Instance = class { constructor() {"
    " throw new RangeError('WebAssembly.instantiate(): Out of memory: Cannot allocate Wasm memory'); } };"
)


@pytest.mark.parametrize(
    ("script", "said"),
    [(NO_SIMD, "SIMD"), (NO_MEMORY, "no more memory"), ("throw new Error('broken');", "worker")],
)
def test_a_browser_that_cannot(opened, site, script, said):
    page = opened(site, script=script, wait=".message.problem")
    assert said in page.inner_text("#message") and page.is_hidden("#loading")
    assert page.locator("#message button").is_visible()


def test_files_that_are_damaged_missing_or_too_new(opened, site, tmp_path):
    broken = tmp_path / "site"
    shutil.copytree(site, broken)
    weights = broken / "model" / "model.bin"
    content = weights.read_bytes()
    weights.unlink()
    page = opened(broken, wait=".message.problem")
    assert "model.bin" in page.inner_text("#message") and "is missing" in page.inner_text("#message")
    weights.write_bytes(content[:1000] + b"\xff" + content[1001:])
    page.locator("#message button").click()
    playwright.expect(page.locator("#message")).to_contain_text("model.bin is damaged", timeout=LATE)
    weights.write_bytes(content)
    manifest = broken / "catalogue" / "catalogue.json"
    right = manifest.read_text(encoding="utf-8")
    manifest.write_text(right.replace('"format_version":1', '"format_version":9'), encoding="utf-8")
    page.locator("#message button").click()
    playwright.expect(page.locator("#message")).to_contain_text("format version 9", timeout=LATE)
    manifest.write_text(right, encoding="utf-8")
    later = manifest.stat().st_mtime + 10  # times of files are sent in whole seconds
    os.utime(manifest, (later, later))
    page.locator("#message button").click()
    page.wait_for_selector(".tries")  # it goes on as soon as the files are right
