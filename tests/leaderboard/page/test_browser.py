"""The page in a real browser: Chromium without a screen, driven by playwright, from a file."""

from __future__ import annotations

import pytest

from builders import bits, cell_info, result
from gauntlet.leaderboard.page.content import anchor
from gauntlet.leaderboard.page.write_page import write_page
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.build_rows import build_rows
from page_results import HOSTILE, content_of, described, many, planted

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(browser, tmp_path_factory):
    """Pages that several tests open: `planted`, 40 models under four threat models (packed), and hostile names."""
    root = tmp_path_factory.mktemp("pages")
    write_page(root / "planted", content_of(planted()))
    write_page(root / "many", content_of(many(40), models=described(10)))
    return root


@pytest.fixture
def visit(browser, folder):
    """Open a page, and fail at the end if its console has an error or it asked for anything but itself."""
    contexts, problems, asked = [], [], []

    def open_page(name="planted", fragment="", *, width=1280, scheme="light", script=True):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{(folder / name / 'leaderboard.html').as_uri()}{fragment}")
        if script:
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert len([url for url in asked if url.startswith("file")]) == len(contexts)


def models(page):
    return page.locator("#leaderboard tbody th a").all_inner_texts()


def figures(page, column):
    """The figures of a column of the table that is shown, None where there is none."""
    place = page.locator("#leaderboard thead th").all_inner_texts()
    at = next(number for number, text in enumerate(place) if text.strip().startswith(column))
    texts = page.locator(f"#leaderboard tbody tr > :nth-child({at + 1})").all_inner_texts()
    return [None if text.startswith("–") else float(text.split()[0]) for text in texts]


def choose(page, filter_name, option):
    page.locator("#controls > label", has_text=filter_name).locator("select").select_option(label=option)


def sort(page, name, direction, *, key=None):
    """Press the heading, and wait until the table says that it is sorted so."""
    from playwright.sync_api import expect

    if key is None:
        heading(page, name).click()
    else:
        heading(page, name).get_by_role("button").press(key)
    expect(heading(page, name)).to_have_attribute("aria-sort", direction)


def heading(page, name):
    return page.locator("#leaderboard thead th", has_text=name).first


def test_a_click_on_a_heading_sorts_and_says_so(visit):
    page = visit("many")
    for direction in ("ascending", "descending"):
        sort(page, "Robust", direction)
        found = figures(page, "Robust")
        assert found == sorted(found, reverse=direction == "descending")
    assert len(set(found)) > 10


def test_rows_without_a_figure_come_last_in_both_directions(visit):
    page = visit("many")
    for direction in ("ascending", "descending"):
        sort(page, "Rank", direction)
        texts = [text.startswith("–") for text in page.locator("#leaderboard tbody td:first-child").all_inner_texts()]
        assert any(texts)
        assert texts == sorted(texts)


def test_sorting_works_with_the_keyboard_alone(visit):
    page = visit("many")
    page.locator("#search").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('th')?.textContent?.startsWith('Clean')"):
            break
    page.keyboard.press("Enter")
    from playwright.sync_api import expect

    expect(heading(page, "Clean")).to_have_attribute("aria-sort", "ascending")
    assert figures(page, "Clean") == sorted(figures(page, "Clean"))
    sort(page, "Model", "ascending", key="Enter")
    sort(page, "Model", "descending", key="Enter")
    assert models(page) == sorted(models(page), reverse=True)


def test_of_several_threat_models_the_first_is_shown_and_all_can_be(visit):
    page = visit("many")
    assert page.locator("#count").inner_text() == "40 of 160 rows"
    choose(page, "Threat model", "all")
    assert page.locator("#count").inner_text() == "160 rows"
    assert len(models(page)) == 160


def test_search_and_filters_leave_the_rows_that_fit(visit):
    page = visit("many")
    choose(page, "Architecture", "WRN-1")
    assert sorted(models(page)) == ["Method 1", "Method 4", "Method 7"]
    page.locator("#search").fill("model_004")
    assert models(page) == ["Method 4"]
    page.locator("#search").fill("")
    choose(page, "Architecture", "not described")
    assert len(models(page)) == 30
    choose(page, "Flag", "zero-gradient")
    assert sorted(models(page)) == ["model_017", "model_026", "model_035"]
    page.get_by_role("button", name="Reset").click()
    assert page.locator("#count").inner_text() == "40 of 160 rows"


def test_columns_are_shown_on_demand(visit):
    page = visit("many")
    assert heading(page, "pgd %").count() == 0
    page.locator(".menu summary").click()
    box = page.get_by_role("checkbox", name="pgd %")
    box.check()
    assert None not in figures(page, "pgd %")
    box.uncheck()
    assert heading(page, "pgd %").count() == 0
    page.keyboard.press("Escape")
    assert page.locator(".menu").get_attribute("open") is None


@pytest.mark.parametrize("name", ["planted", "many"])
def test_a_row_opens_its_page_and_escape_goes_back_to_its_link(visit, name):
    page = visit(name)
    link = page.locator("#leaderboard tbody th a").nth(1)
    title, address = link.inner_text(), link.get_attribute("href")
    link.focus()
    page.keyboard.press("Enter")
    row = page.locator(".row.open")
    row.wait_for()
    assert row.get_attribute("id") == address.removeprefix("#")
    assert row.locator("h2").inner_text().startswith(title)
    assert page.evaluate("document.activeElement.id") == address.removeprefix("#")
    assert page.locator("#main").get_attribute("inert") is not None
    page.keyboard.press("Escape")
    row.wait_for(state="hidden")
    assert page.locator("#main").get_attribute("inert") is None
    assert page.evaluate("document.activeElement.getAttribute('href')") == address


@pytest.mark.parametrize("name", ["planted", "many"])
def test_a_row_can_be_addressed(visit, name):
    results = planted() if name == "planted" else many(40)
    row = build_rows(results)[-1]
    page = visit(name, f"#{anchor(row.key)}")
    assert page.locator(".row.open h2").count() == 1
    assert row.threat in page.locator(".row.open .sub").inner_text()
    page.get_by_role("link", name="Back to the table").click()
    assert page.locator(".row.open").count() == 0
    assert page.locator("#leaderboard").is_visible()


def test_an_address_of_no_row_shows_the_table(visit):
    page = visit("many", "#row-nothing")
    assert page.locator("#leaderboard").is_visible()
    assert page.locator("#main").get_attribute("inert") is None


@pytest.mark.parametrize("name", ["planted", "many"])
def test_an_address_within_a_row_opens_the_row(visit, name):
    row = build_rows(planted() if name == "planted" else many(40))[-1]
    page = visit(name, f"#{anchor(row.key)}-t")
    assert page.locator(".row.open").get_attribute("id") == anchor(row.key)
    assert page.locator(".row.open h2").is_visible()
    page.keyboard.press("Escape")
    page.locator("#main:not([inert])").wait_for()
    assert page.locator("#leaderboard").is_visible()


def test_an_address_that_cannot_be_decoded_shows_the_table(visit):
    page = visit("planted", "#%")
    assert page.locator("#leaderboard").is_visible()
    page.locator("#leaderboard tbody th a").first.click()
    page.locator(".row.open").wait_for()
    page.evaluate("location.hash = '#%'")
    page.locator(".row.open").wait_for(state="hidden")
    assert page.locator("#main").get_attribute("inert") is None


def test_the_page_of_a_row_shows_attacks_flags_curve_and_confusions(visit):
    page = visit("planted", f"#{anchor(build_rows(planted())[0].key)}")
    text = page.locator(".row.open").inner_text()
    for expected in (
        "fmn",
        "Confusion under attack",
        "Provenance",
        "gauntlet run --model 'net'",
        "Robust accuracy against eps",
    ):
        assert expected in text
    assert page.locator(".row.open svg path.line").count() == 1
    assert page.locator(".row.open svg path.band").count() == 1


@pytest.mark.parametrize("rows", [1, 120])
def test_hostile_names_show_as_text_and_run_nothing(visit, folder, rows):
    about = ModelDescription(HOSTILE, name=HOSTILE, paper=HOSTILE, link="javascript:window.hit=3", architecture=HOSTILE)
    named = [HOSTILE, *(f"{HOSTILE}{number}" for number in range(1, rows))]
    results = [
        result(bits(20, 12), cell_info(name, HOSTILE, defense=HOSTILE, data=HOSTILE, suite=HOSTILE), error=HOSTILE)
        for name in named
    ]
    write_page(folder / f"hostile-{rows}", content_of(results, models={HOSTILE: about}))
    page = visit(f"hostile-{rows}")
    page.locator("#leaderboard tbody th a").first.click()
    page.locator(".row.open").wait_for()
    assert "<script>window.hit=1</script>" in page.locator(".row.open").inner_text()
    assert page.locator(".row.open a[href^=javascript]").count() == 0
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hit") is None


def test_the_policy_of_the_page_stops_scripts_that_are_not_its_own(browser, folder):
    page = browser.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((folder / "planted" / "leaderboard.html").as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.hit = 1";
        document.body.append(script);
        const picture = document.createElement("img");
        picture.setAttribute("onerror", "window.hit = 2");
        picture.src = "https://example.org/a.png";
        document.body.append(picture);
    }""")
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None
    assert any("Content Security Policy" in text for text in said)
    page.close()


def test_without_script_the_table_is_whole_and_rows_open(visit):
    page = visit("planted", script=False)
    assert page.locator("#leaderboard tbody tr").count() == 2
    assert page.locator("#leaderboard").is_visible()
    assert page.locator("#controls").is_hidden()
    assert page.locator("#leaderboard thead th").count() > 25
    page.locator("#leaderboard tbody th a").first.click()
    assert page.locator(".row:target h2").is_visible()
    page.get_by_role("link", name="Back to the table").click()
    assert page.locator(".row:target").count() == 0


def test_without_script_a_large_table_is_whole_too(visit):
    page = visit("many", script=False)
    assert page.locator("#leaderboard tbody tr").count() == 160
    assert page.locator("#leaderboard").is_visible()
    assert page.get_by_text("need JavaScript").is_visible()


def wide():
    """Results of which every name is one long word."""
    word = "w" * 300
    flag = Flag(word, "warn", word, evidence=((word, 1.0),), samples=(word,))
    cell = cell_info(word, word, defense=word, data=word, suite=word, classes=(word,) * 3)
    return [result(bits(20, 12), cell, flags=[flag]), result((), cell_info("other", data=word), error=word, expected=9)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["planted", "many", "wide"])
def test_nothing_is_wider_than_the_window(visit, folder, width, scheme, name):
    if name == "wide":
        write_page(
            folder / "wide", content_of(wide(), models={"other": ModelDescription("other", architecture="w" * 300)})
        )
    page = visit(name, width=width, scheme=scheme)

    def fits():
        return page.evaluate("document.documentElement.scrollWidth") <= width

    page.evaluate("document.querySelectorAll('details.section').forEach((one) => (one.open = true))")
    page.locator(".menu summary").click()
    assert fits()
    box = page.locator(".menu > div").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    page.keyboard.press("Escape")
    page.locator("#leaderboard tbody th a").first.click()
    page.locator(".row.open").wait_for()
    assert fits()
    assert page.evaluate("(row => row.scrollWidth <= row.clientWidth)(document.querySelector('.row.open'))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["planted", "many"])
def test_texts_have_contrast_and_tables_have_names_and_focus(visit, unreadable, scheme, name):
    page = visit(name, scheme=scheme)
    page.evaluate("document.querySelectorAll('details.section').forEach((one) => (one.open = true))")
    assert unreadable(page) == []
    for place in (0, -1):
        page.locator("#leaderboard tbody th a").nth(place).click()
        page.locator(".row.open").wait_for()
        assert unreadable(page) == []
        page.keyboard.press("Escape")
        page.locator(".row.open").wait_for(state="hidden")


def test_a_caption_is_whole_on_a_narrow_screen(visit):
    page = visit("many", width=400)
    page.evaluate("document.querySelectorAll('details.section').forEach((one) => (one.open = true))")
    ends = page.evaluate("[...document.querySelectorAll('caption')].map((one) => one.getBoundingClientRect().right)")
    assert max(ends) <= 400


def test_dark_and_light_follow_the_reader(visit):
    def colours(scheme):
        page = visit(scheme=scheme)
        style = "getComputedStyle(document.documentElement)"
        return page.evaluate(f"[{style}.backgroundColor, {style}.color]")

    (light, dark_ink), (dark, light_ink) = colours("light"), colours("dark")
    assert light == "rgb(255, 255, 255)"
    assert dark != light
    assert dark_ink != light_ink


def test_200_models_under_4_threat_models_take_less_than_5_megabytes(visit, folder):
    path = write_page(folder / "large", content_of(many(200), models=described(200)))
    assert path.stat().st_size < 5e6
    page = visit("large")
    assert page.locator("#count").inner_text() == "200 of 800 rows"


def test_a_row_is_added_to_the_chart_against_eps_and_removed_again(visit):
    page = visit("many")
    figure = page.locator("figure[data-scope]").first
    assert figure.locator("path.line").count() == 6
    assert figure.locator(".legend li").count() == 6
    figure.locator(".legend button").first.click()
    assert figure.locator("path.line").count() == 5
    figure.locator("input").fill("Method 3")
    figure.locator("input").press("Tab")
    page.wait_for_function("document.querySelectorAll('figure[data-scope] .legend li').length >= 6")
    assert figure.locator("path.line").count() == 6
    assert "Method 3" in figure.locator(".legend").inner_text()
    assert len({line.get_attribute("class") for line in figure.locator("path.line").all()}) == 6
