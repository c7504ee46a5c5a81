"""Someone clicks through the page: sort, filter, search, keys, light and dark, wide and narrow."""

from __future__ import annotations

import pytest

from leanmatch.report import write_page

sync_api = pytest.importorskip("playwright.sync_api", reason="browser test: no playwright (test extra)")


@pytest.fixture(scope="module")
def address(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(plain, path)
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    made = browser.new_page(viewport={"width": 1280, "height": 900})
    problems, requests = [], []
    made.on("console", lambda message: problems.append(message.text))
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("request", lambda request: requests.append(request.url))
    made.goto(address)
    yield made
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    made.close()


def changes(page):
    texts = page.locator("article .change").all_inner_texts()
    return [float(text.replace("\u2212", "-")) for text in texts]


def test_the_worst_come_first_and_sorting_works(page, plain):
    scores = [pair.score - pair.base_score for pair in plain.pairs[:20]]
    assert changes(page) == [pytest.approx(score, abs=0.0051) for score in scores]
    page.locator("#sort").select_option("best")
    first = page.locator("article").first.get_attribute("data-row")
    assert int(first) == max(plain.pairs, key=lambda pair: pair.gain).row
    page.locator("#sort").select_option("change")
    sizes = [abs(change) for change in changes(page)]
    assert sizes == sorted(sizes, reverse=True)
    for order in ("rank", "moved", "worst"):
        page.locator("#sort").select_option(order)
        assert page.locator("article").count() == 20


def test_more_pairs(page, plain):
    page.locator("#more").click()
    assert page.locator("article").count() == 40
    assert page.locator("#count").inner_text() == "40 of 60 pairs"
    page.locator("#more").click()
    assert page.locator("article").count() == 60
    assert page.locator("#more").is_hidden()


def test_filters(page, plain):
    page.locator("#slice").select_option("in distribution")
    inside = [pair for pair in plain.pairs if "in distribution" in pair.slices]
    assert page.locator("#count").inner_text() == f"{min(20, len(inside))} of {len(inside)} pairs (60 in all)"
    page.locator("#label").select_option("1")
    matching = [pair for pair in inside if pair.label]
    assert f"of {len(matching)} pairs" in page.locator("#count").inner_text()
    page.locator("#search").fill("nowhere")
    assert page.locator("#count").inner_text() == "No pair fits."
    page.locator("#search").press("Escape")
    assert page.locator("article").count() == min(20, len(matching))


def test_a_word_leads_to_its_pairs(page, plain):
    page.get_by_role("button", name="marker", exact=True).click()
    assert page.locator("#search").input_value() == "marker"
    assert page.locator("article").count() > 5
    assert page.locator("article .hit").first.inner_text() == "marker"


def test_colours_and_numbers_are_the_effects(page, plain):
    pair = plain.pairs[0]
    card = page.locator("article").first
    words = card.locator(".sides > div").nth(1).locator(".w")
    units = [*pair.anchor.units["model"], *pair.positive.units["model"]]
    assert words.count() == len(units)
    top = max(
        abs(u.effect)
        for side in (pair.anchor, pair.positive)
        for key in ("model", "base")
        for u in side.units[key]
    )
    for place, unit in enumerate(units):
        share = float(words.nth(place).evaluate("node => node.style.getPropertyValue('--a')"))
        assert share == pytest.approx(abs(unit.effect) / top, abs=1e-3)
        assert ("neg" in words.nth(place).get_attribute("class").split()) == (unit.effect < 0)
    card.locator("summary").click()
    rows = card.locator("tbody tr")
    sync_api.expect(rows).to_have_count(len(units))  # the toggle event comes a moment later
    shown = float(rows.first.locator("td").nth(3).inner_text().replace("\u2212", "-"))
    assert shown == pytest.approx(units[0].effect, abs=0.00051)


def test_keys_go_from_pair_to_pair(page):
    row = "document.activeElement.dataset.row"
    page.keyboard.press("j")
    first = page.evaluate(row)
    page.keyboard.press("j")
    assert page.evaluate(row) != first
    page.keyboard.press("k")
    assert page.evaluate(row) == first
    page.keyboard.press("Enter")
    assert page.locator("article details[open]").count() == 1
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("j")
    assert page.locator("#search").input_value() == "j"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_can_be_read(browser, address, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for chosen in ("body", ".lead", "article .pos[style*='--a: 1']", "article .neg[style*='--a']", ".worse"):
        assert page.locator(chosen).first.evaluate(CONTRAST) >= 4.5, (chosen, width, scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")
    page.close()


CONTRAST = """node => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const over = (top, under) => {
    const share = top[3] ?? 1;
    return top.slice(0, 3).map((channel, i) => channel * share + under[i] * (1 - share));
  };
  let ground = [255, 255, 255];
  const chain = [];
  for (let at = node; at; at = at.parentElement) chain.unshift(parse(getComputedStyle(at).backgroundColor));
  for (const colour of chain) ground = over(colour, ground);
  const linear = (x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((x) => linear(x / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const both = [light(parse(getComputedStyle(node).color)), light(ground)];
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""
