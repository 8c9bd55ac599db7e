"""The page of `gauntlet agreement` in a real browser, from a file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from page_results import CONTEXT, HOSTILE, agreement_results

pytestmark = pytest.mark.browser


@pytest.fixture
def visit(browser, tmp_path):
    """Open the page with these names, and fail at the end if its console has an error or it asked for anything but itself."""
    contexts, problems, asked = [], [], []

    def open_page(name="lib.PGD", *, width=1280, scheme="light"):
        from gauntlet.leaderboard.page.agreement_page import agreement_page

        path = tmp_path / "agreement.html"
        facts = replace(CONTEXT, data=name, command=name, threat_models=(name,))
        path.write_text(agreement_page(agreement_results(name, name), facts), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
    assert len(asked) == len(contexts)


def test_hostile_names_show_as_text_and_run_nothing(visit):
    page = visit(HOSTILE)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.locator("body").inner_text().count("<script>window.hit=1</script>") > 5
    assert page.locator("script, img, a:not([href^='#c'])").count() == 0
    assert page.evaluate("window.hit") is None


def test_a_comparison_is_reached_from_the_overview(visit):
    page = visit()
    page.locator("#overview tbody a").last.click()
    assert page.url.endswith("#c2")
    assert page.locator("#c2 h2").is_visible()


def test_it_is_read_with_the_keyboard_alone(visit):
    page = visit()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Samples on which they differ":
            break
    page.keyboard.press("Enter")
    assert page.get_by_role("cell", name="pgd(steps=40)").last.is_visible()
    assert page.get_by_role("rowheader", name="s3").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_and_tables_have_names_and_focus(visit, unreadable, scheme):
    page = visit(scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert unreadable(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["lib.PGD", "w" * 300])
def test_nothing_is_wider_than_the_window(visit, width, scheme, name):
    page = visit(name, width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
