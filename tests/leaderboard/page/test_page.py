"""The page as text, from planted results: read with a parser, as a browser without scripts would."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from builders import bits, cell_info, result
from gauntlet.leaderboard.page import assets
from gauntlet.leaderboard.page.assets import environment, load, style
from gauntlet.leaderboard.page.content import anchor
from gauntlet.leaderboard.page.render import render_page
from gauntlet.leaderboard.page.write_page import write_page
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.rows.build_rows import build_rows
from page_results import CONTEXT, HOSTILE, content_of, planted

pytest.importorskip("jinja2", reason="the extra page is not installed")
pytest.importorskip("itables", reason="the extra page is not installed")

VOID = {"meta", "img", "input", "link", "br"}


class Tree(HTMLParser):
    """Tags with their attributes, and the text of each element with an id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open, self.scripts = [], {}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append((tag, dict(attributes).get("id")))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1][0] == "script":
            self.scripts.append(data)
        for _, name in self.open:
            if name:
                self.texts[name] = self.texts.get(name, "") + data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_every_row_has_a_line_and_a_page_that_the_line_leads_to():
    made = content_of(planted())
    text = render_page(made)
    tree = Tree(text)
    ids = [attributes["id"] for _, attributes in tree.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"] for attributes in tree.of("a") if attributes.get("href", "").startswith("#row-")}
    rows = build_rows(made.results)
    assert len(rows) == 2
    assert links == {f"#{anchor(row.key)}" for row in rows}
    assert {link[1:] for link in links} <= set(ids)


def test_the_table_can_be_read_without_script():
    tree = Tree(render_page(content_of(planted())))
    assert "Robust accuracy of 2 rows" in tree.texts["leaderboard"]
    assert tree.of("caption")
    assert all(attributes.get("scope") in ("col", "row") for attributes in tree.of("th"))
    assert "30.0 [21.2, 40.0]" in tree.texts["leaderboard"]


def test_the_page_of_a_row_says_what_the_attacks_did_and_why_there_is_no_rank():
    made = content_of(planted())
    texts = Tree(render_page(made)).texts
    net, masked = (
        texts[anchor(row.key)] for row in sorted(build_rows(made.results), key=lambda row: row.model != "net")
    )
    for expected in ("fmn", "square", "black-box", "30.0 [21.2, 40.0]", "gauntlet run --model 'net'", "Confusion"):
        assert expected in net
    assert "No rank: No gradient reaches the image." in masked
    assert "the attack finds 20 of 20 planted examples" in masked


def test_names_from_outside_are_text_wherever_they_stand():
    described = ModelDescription(HOSTILE, name=HOSTILE, paper=HOSTILE, link="javascript:alert(3)", architecture=HOSTILE)
    results = [
        result(
            bits(20, 12),
            cell_info(HOSTILE, HOSTILE, defense=HOSTILE, data=HOSTILE, suite=HOSTILE, classes=(HOSTILE,) * 3),
        ),
        result((), cell_info("other", "square", data=HOSTILE, suite=HOSTILE), error=HOSTILE, expected=20),
    ]
    published = [
        (HOSTILE, PublishedFigure(model=HOSTILE, data=HOSTILE, clean=0.5, source="javascript:alert(4)", note=HOSTILE))
    ]
    text = render_page(content_of(results, models={HOSTILE: described}, published=published))
    tree = Tree(text)
    assert [one.get("type") for one in tree.of("script")] == [None, "module"]
    assert tree.of("img") == []
    assert not [name for _, attributes in tree.tags for name in attributes if name.startswith("on")]
    assert "49" not in tree.texts["leaderboard"]
    assert "<script>window.hit=1</script>" in tree.texts["leaderboard"]
    assert all(attributes["href"].startswith("#") for attributes in tree.of("a") if "href" in attributes)


def test_only_addresses_of_the_web_become_links():
    described = ModelDescription("net", link="https://example.org/a?b=1&c=2", paper="data:text/html,x", licence="MIT")
    tree = Tree(render_page(content_of(planted(), models={"net": described})))
    outside = {attributes["href"] for attributes in tree.of("a") if not attributes.get("href", "#").startswith("#")}
    assert outside == {"https://example.org/a?b=1&c=2"}


def test_invisible_characters_are_shown():
    text = render_page(content_of([result(bits(20, 12), cell_info("a\u202eb\x00c"))]))
    assert "\u202e" not in text
    assert "\x00" not in text
    assert "a\\u202eb" in text


def test_the_page_loads_nothing_and_lets_only_its_own_script_run():
    text = render_page(content_of(planted()))
    tree = Tree(text)
    assert not tree.of("link")
    assert not [attributes for attributes in tree.of("script") if "src" in attributes]
    (policy,) = [one["content"] for one in tree.of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src('sha256-[A-Za-z0-9+/]+='| )+$", policy)
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_a_page_without_cells_says_so():
    assert "No cells were run." in render_page(content_of([]))


def test_a_command_keeps_its_blanks_and_lines():
    command = "gauntlet run --model 'a  b'  --out '<x>'\ngauntlet page 'a\u202e  b'"
    made = content_of(planted(), context=replace(CONTEXT, command=command))
    text = render_page(made)
    assert (
        text.count("--model &#39;a  b&#39;  --out &#39;&lt;x&gt;&#39;\ngauntlet page &#39;a\\u202e  b&#39;</code>") == 2
    )
    assert "<code>gauntlet run --model &#39;a  b&#39;  --out &#39;&lt;x&gt;&#39;</code>" in text


def test_of_many_attacks_the_caption_says_how_many_are_left_out():
    results = [result(bits(8, 4), cell_info("net", f"attack-{number}")) for number in range(17)]
    assert "; the first 15 of 17 attacks</caption>" in render_page(content_of(results))
    assert "attacks</caption>" not in render_page(content_of(results[:15]))


def test_the_style_is_read_once():
    load()
    before = style()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "files", lambda package: pytest.fail("read again"))
        assert style() is before
        assert before in render_page(content_of(planted()))


def test_the_page_is_one_file(tmp_path):
    path = write_page(tmp_path, content_of(planted()))
    assert [file.name for file in tmp_path.iterdir()] == ["leaderboard.html"]
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_template_that_changes_once_it_is_loaded_is_not_read_again(monkeypatch):
    load()
    before = environment().get_template("row.html")
    monkeypatch.setattr(before, "_uptodate", lambda: False)
    changed = ("{{ 7 * 7 }}", None, lambda: False)
    monkeypatch.setattr(environment().loader, "get_source", lambda *given: changed)
    assert environment().get_template("row.html") is before


@pytest.mark.parametrize(
    ("attacks", "count", "expected"),
    [
        (["pgd"], 1, ["% robust of 1 sample,", "digits, 1 sample", "stored blocks1 block, "]),
        (["pgd", "square"], 3, ["% robust of 3 samples,", "digits, 3 samples", "stored blocks2 blocks, the first "]),
    ],
)
def test_the_page_counts_in_the_singular_and_the_plural(attacks, count, expected):
    made = content_of([result(bits(count, count), cell_info("net", attack), label=0) for attack in attacks])
    texts = Tree(render_page(made)).texts
    assert "Robust accuracy of 1 row." in texts["leaderboard"]
    for part in expected:
        assert part in texts[anchor(build_rows(made.results)[0].key)]
