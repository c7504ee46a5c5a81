"""The web page in Debian's chromium: search, suggestions, filters, explanations, empty and error states."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="browser test: no playwright (test extra)")

sys.path.insert(0, str(Path(__file__).parent))
from servers import ready, serving  # noqa: E402

from leanmatch.index import Item, WriteOptions, create_catalogue  # noqa: E402
from leanmatch.serve import ServeOptions, create_app  # noqa: E402


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    from catalogue_models import WordEncoder, items_of_shop

    folder, encoder = tmp_path_factory.mktemp("page") / "c", WordEncoder(dimension=24)
    create_catalogue(folder, items_of_shop(40), encoder)
    with serving(create_app(ServeOptions(str(folder)), encoder=encoder)) as address:
        ready(address)
        yield address


@pytest.fixture(params=[(1200, 850, "light"), (380, 780, "dark")], ids=["wide", "narrow"])
def page(request, browser, url):
    """The page; at the end nothing was asked of others and nothing went wrong in its scripts."""
    width, height, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    made = context.new_page()
    made.set_default_timeout(30_000)
    outside, wrong = [], []
    made.on("request", lambda one: None if one.url.startswith((url, "data:")) else outside.append(one.url))
    made.on("pageerror", lambda one: wrong.append(str(one)))
    made.goto(url)
    made.wait_for_selector(".blank")
    yield made
    assert not outside and not wrong
    wide = made.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, "the page is wider than the screen"
    context.close()


@pytest.fixture(scope="module")
def hybrid_url(tmp_path_factory):
    """A server with terms and with a reranker that prefers long texts."""
    pytest.importorskip("bm25s", reason="bm25s is not installed (extra hybrid)")
    from catalogue_models import WordEncoder, items_of_shop

    folder, encoder = tmp_path_factory.mktemp("page") / "c", WordEncoder(dimension=24)
    more = [Item("x", "projector XJ-200"), Item("y", "projector XJ-300 for a large room with much light")]
    create_catalogue(folder, [*items_of_shop(20), *more], encoder, WriteOptions(hybrid=True))
    reranker = SimpleNamespace(
        name="models/lengths", scores=lambda pairs: np.array([len(b) for _, b in pairs])
    )
    options = ServeOptions(str(folder), rerank="lengths", rerank_weight=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leanmatch.serve.service.load_reranker", lambda name, threads=None: reranker)
        with serving(create_app(options, encoder=encoder)) as address:
            ready(address)
            yield address


def texts(page):
    return page.locator(".result .text").all_inner_texts()


def search(page, query):
    page.fill("#query", query)
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#message")).to_contain_text("result", timeout=30_000)


def test_search_explain_and_filter(page):
    assert "40 items" in page.inner_text("#about") and "Ask in your own words" in page.inner_text(".blank")
    search(page, "thing number 7")
    assert texts(page)[0] == "thing number 7" and len(texts(page)) == 10
    assert page.inner_text("#message").startswith("10 results")
    assert page.url.endswith("#q=thing+number+7")
    assert "category" in page.locator(".result .meta").first.inner_text()

    page.locator("#explain").check(force=True)
    page.wait_for_selector("mark")
    assert page.is_visible("#legend") and page.locator(".asked").count() == 10
    weights = page.locator("mark").evaluate_all(
        "all => all.map(one => one.style.getPropertyValue('--weight'))"
    )
    assert max(map(float, weights)) == pytest.approx(0.55, abs=0.01)  # the strongest word
    assert "Carried by" in page.locator(".asked").first.text_content()

    page.click("#filters-button")
    page.get_by_label("Toys").check()
    playwright.expect(page.locator(".result .meta", has_text="Toys")).to_have_count(10, timeout=30_000)
    assert page.inner_text("#filters-count") == "1"
    page.get_by_label("price, at least").fill("1000")
    page.get_by_label("price, at least").press("Tab")
    page.wait_for_selector(".blank")
    assert "Nothing passes the filters" in page.inner_text(".blank")
    page.locator(".blank button").click()
    page.wait_for_selector(".result")
    assert texts(page)[0] == "thing number 7"


def test_terms_and_reranking_of_a_hybrid_catalogue(page, hybrid_url):
    assert page.locator("#rerank-switch").is_hidden(), "the other server has no reranker"
    assert "terms" not in page.content()
    page.context.new_page().goto(hybrid_url)
    page = page.context.pages[-1]
    search(page, "projector xj200")
    assert texts(page)[0] == "projector XJ-200"
    meta = page.locator(".result .meta").first.inner_text()
    assert "cosine" in meta and "terms" in meta
    assert page.locator(".terms").count() == 0
    page.locator("#explain").check(force=True)
    page.wait_for_selector(".asked")
    shared = page.locator(".asked .terms").all_inner_texts()
    assert "xj200" in shared[0] and shared[0].strip().startswith("Terms in both: ")
    assert shared[-1].strip() == "Terms in both: none."
    page.locator("#rerank").check(force=True)
    playwright.expect(page.locator(".result .text").first).to_contain_text("much light", timeout=30_000)
    assert page.url.endswith("&explain=1&rerank=1")
    assert page.get_attribute("#rerank-switch", "title").endswith("reranked by lengths")
    page.reload()
    playwright.expect(page.locator(".result .text").first).to_contain_text("much light", timeout=30_000)
    assert page.locator("#rerank").is_checked() and page.locator("#explain").is_checked()


def test_the_start_page_offers_queries(page):
    tries = page.locator(".tries button")
    assert 3 <= tries.count() <= 6 and all(
        text.startswith("thing number") for text in tries.all_inner_texts()
    )
    wanted = tries.nth(1).inner_text()
    tries.nth(1).click()
    page.wait_for_selector(".result")
    assert texts(page)[0] == wanted == page.input_value("#query")


def test_the_address_keeps_query_and_filters(page, url):
    search(page, "thing number 7")
    page.click("#filters-button")
    page.get_by_label("Toys").check()
    playwright.expect(page.locator(".result .meta", has_text="Toys")).to_have_count(10, timeout=30_000)
    page.get_by_label("price, at most").fill("8")
    page.get_by_label("price, at most").press("Tab")
    playwright.expect(page.locator("#filters-count")).to_have_text("2", timeout=30_000)
    playwright.expect(page.locator(".result")).not_to_have_count(10, timeout=30_000)
    shared, few = page.url, texts(page)
    search(page, "number 3")
    page.go_back()
    playwright.expect(page.locator("#query")).to_have_value("thing number 7", timeout=30_000)
    playwright.expect(page.locator(".result .text")).to_have_text(few, timeout=30_000)
    assert page.url == shared
    page.go_back()  # before the price
    playwright.expect(page.locator(".result")).to_have_count(10, timeout=30_000)
    assert (
        page.inner_text("#filters-count") == "1" and page.input_value("[aria-label='price, at most']") == ""
    )
    page.go_back()  # before the category
    playwright.expect(page.locator("#filters-count")).to_be_hidden(timeout=30_000)
    page.go_back()  # the start page
    page.wait_for_selector(".tries")
    assert page.input_value("#query") == ""
    page.go_forward()
    page.wait_for_selector(".result")
    page.goto("about:blank")
    page.goto(shared)  # from a link
    playwright.expect(page.locator(".result .text")).to_have_text(few, timeout=30_000)
    assert page.inner_text("#filters-count") == "2"
    assert page.get_by_label("Toys").is_checked() and page.input_value("#query") == "thing number 7"
    page.goto("about:blank")
    page.goto(f"{url}/#q=thing&filter=%7B%22broken")  # what somebody made up is no reason to fail
    page.wait_for_selector(".result")
    assert len(texts(page)) == 10


def test_the_monitor_leaves_results_where_they_are(page):
    search(page, "thing number 7")
    before = page.locator(".result").first.bounding_box()
    top = page.evaluate("scrollY")
    assert page.locator("#status").is_hidden()
    page.click("#status-button")
    page.wait_for_selector(".measure")
    after = page.locator(".result").first.bounding_box()
    moved = page.evaluate("scrollY") - top
    assert before["y"] == pytest.approx(after["y"] + moved, abs=1)
    last = page.locator(".result").last.bounding_box()
    panel = page.locator("#status").bounding_box()
    assert panel["y"] >= last["y"] + last["height"]
    assert page.locator("#status .mix").count() == 0  # a few queries make no mix


def test_suggestions_by_keyboard(page):
    box = page.locator("#query")
    box.press_sequentially("number 3", delay=10)
    page.wait_for_selector("#suggestions li")
    assert box.get_attribute("aria-expanded") == "true"
    box.press("ArrowDown")
    box.press("ArrowDown")
    chosen = page.locator("#suggestions li[aria-selected=true]")
    assert chosen.get_attribute("id") == box.get_attribute("aria-activedescendant")
    wanted = chosen.inner_text()
    box.press("Enter")
    page.wait_for_selector(".result")
    assert texts(page)[0] == wanted == box.input_value()
    assert box.get_attribute("aria-expanded") == "false"
    box.fill("number 1")
    page.wait_for_selector("#suggestions li")
    box.press("Escape")
    assert page.locator("#suggestions").is_hidden() and box.input_value() == "number 1"


def test_a_late_answer_leaves_the_choice_as_it_is(page):
    held = []
    box = page.locator("#query")
    box.press_sequentially("number")
    page.wait_for_selector("#suggestions li")
    page.route("**/v1/suggest**", lambda route: held.append(route) or None)
    with page.expect_request("**/v1/suggest**"):
        box.press_sequentially(" 3")
    box.press("ArrowDown")
    chosen = page.locator("#suggestions li[aria-selected=true]")
    wanted = chosen.inner_text()
    for route in held:
        route.fulfill(json={"suggestions": ["thing number 3", "thing number 33"]})
    page.wait_for_timeout(50)
    assert page.locator("#suggestions li").count() > 2 and chosen.inner_text() == wanted
    box.press("Enter")
    page.wait_for_selector(".result")
    assert texts(page)[0] == wanted == box.input_value() != "thing number 3"


def test_monitor(page):
    page.click("#status-button")
    page.wait_for_selector(".measure")
    assert page.get_attribute("#status-button", "aria-expanded") == "true"
    assert "queries" in page.inner_text("#status .lead")
    page.click("#status-button")
    assert page.locator("#status").is_hidden()


def test_errors_are_shown_and_can_be_tried_again(page):
    page.route("**/v1/recommend", lambda route: route.fulfill(status=429, body="{}"))
    page.fill("#query", "thing")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.problem")
    assert "busy" in page.inner_text("#message") and not texts(page)
    page.unroute("**/v1/recommend")
    page.route("**/v1/recommend", lambda route: route.abort())
    page.locator("#message button").click()
    playwright.expect(page.locator("#message")).to_contain_text("cannot be reached", timeout=30_000)
    page.unroute("**/v1/recommend")
    page.locator("#message button").click()
    page.wait_for_selector(".result")
    assert page.locator(".message.problem").count() == 0


def test_markup_in_items_is_text(page, url):
    search(page, "<img src=x onerror=alert(1)>")
    assert page.locator("#results img").count() == 0


def test_docs(page, url):
    page.goto(f"{url}/docs")
    page.wait_for_selector("details")
    assert page.locator("details").count() >= 8
    for verb in page.locator("summary .verb").all():
        box, path = verb.bounding_box(), verb.locator("xpath=../code").bounding_box()
        words = verb.evaluate(
            "e => { const r = document.createRange(); r.selectNodeContents(e);"
            " return r.getBoundingClientRect().right }"
        )
        assert path["x"] - words >= 6 or path["y"] >= box["y"] + box["height"], verb.inner_text()
    page.locator("summary", has_text="/v1/recommend").click()
    assert "curl" in page.locator("details[open] pre").inner_text()
