"""Hostile names in Markdown, CSV and the terminal."""

from __future__ import annotations

import csv
import io
import re

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from builders import cell_info, result
from gauntlet.leaderboard.report.cells_csv import cells_frame
from gauntlet.leaderboard.report.csv_writer import csv_text
from gauntlet.leaderboard.report.leaderboard_csv import leaderboard_frame
from gauntlet.leaderboard.report.leaderboard_files import write_leaderboard_files
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.report.terminal import terminal_table
from gauntlet.leaderboard.results.escape import fenced, markdown, spreadsheet, visible
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.build_rows import build_rows

HOSTILE = [
    "=cmd|'/c calc'!A1",
    "+1+1",
    "-2",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    '"=1+1"',
    "' =1",
    "a;=1",
    "＝1+1",
    "\u200b=1",
    "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "[ref]: http://evil.example",
    "<http://evil.example>",
    "https://evil.example",
    "www.evil.example",
    "a|b\\|c\\",
    "`code` ``more",
    "**bold** _it_ __x__ ~~gone~~",
    "line\n\n# heading\n- item\n| a | b |",
    "# heading",
    "1. list",
    "- list",
    "&lt;b&gt; &#124; &amp;",
    "\\u0041\\",
    "rtl\u202egnp.exe\u2066",
    "\x1b[31mred\x00\x07",
    "\ud800",
    "\u2028x\u0085y",
]


def rendered_cells(text):
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    inlines = [token for token in tokens if token.type == "inline"]
    kinds = {child.type for token in inlines for child in token.children} | {token.type for token in tokens}
    texts = ["".join(child.content for child in token.children) for token in inlines]
    return kinds, texts


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_renders_as_itself_in_markdown(name):
    table = f"| a | b |\n|---|---|\n| {markdown(name)} | x |\n"
    kinds, texts = rendered_cells(table)
    assert texts == ["a", "b", visible(name), "x"]
    assert kinds <= {
        *("table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close", "tr_open", "tr_close"),
        *("th_open", "th_close", "td_open", "td_close", "inline", "text", "text_special"),
    }
    kinds, texts = rendered_cells(f"- {markdown(name)}\n")
    assert texts == [visible(name)]
    assert kinds <= {
        *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
        *("paragraph_open", "paragraph_close", "inline", "text", "text_special"),
    }


@pytest.mark.parametrize("name", ["https://evil.example", "ftp://evil.example", "mailto:a.b", "www.evil.example"])
def test_bare_addresses_are_broken_up_for_renderers_that_make_links_of_them(name):
    assert not re.search(r"[a-z]://|www\.|mailto:", markdown(name))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_report_of_hostile_names_and_messages_has_no_link_no_html_and_no_extra_cell(name, tmp_path):
    flag = Flag(name, "block", name)
    cell = cell_info(name, name, defense=name, attack_spec=name, data=name, suite=name, precision=name)
    results = [result([True, False], cell, flags=[flag], error=name)]
    context = RunContext(("Linf:0.15",), name, {name: name}, name, 0, name, "runs/one", name)
    text = write_leaderboard_files(tmp_path, results, context).markdown.read_text("utf-8")
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    children = [child for token in tokens for child in token.children or []]
    kinds = {token.type for token in tokens} | {child.type for child in children}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline", "em_open", "s_open"}
    assert len([token for token in tokens if token.type == "td_open"]) == 14
    assert len([token for token in tokens if token.type == "th_open"]) == 14
    assert len([token for token in tokens if token.type == "fence"]) == 1
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[2:] == ["How to read it", "Without rank", "Flags", "Errors", "Setup", "Reproduce"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_no_formula_and_no_extra_field_in_a_csv_file(name):
    results = [result([True, False], cell_info(name, name, defense=name), flags=[Flag(name, "warn", name)], error=name)]
    for frame in (cells_frame(results), leaderboard_frame(build_rows(results))):
        lines = list(csv.reader(io.StringIO(csv_text(frame))))
        assert [len(line) for line in lines] == [len(frame.columns)] * 2
        for value, (_, dtype) in zip(lines[1], frame.dtypes.items(), strict=True):
            if dtype == "string":
                for field in value.split(";"):
                    assert not re.match("[\\s\"'`]*[=+\\-@＝＋－＠]", field) or re.match("\\s*'", field)
            elif value not in ("", "True", "False"):
                float(value)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("=1+1", "'=1+1"),
        ("\t=1", "'=1"),
        ('"=1+1"', '\'"=1+1"'),
        ("' @x", "'' @x"),
        ("a; -1", "a;' -1"),
        ("＝1", "'＝1"),
        ("a=1", "a=1"),
    ],
)
def test_an_apostrophe_stands_before_what_starts_a_formula(name, field):
    assert spreadsheet(name) == field


def test_negative_numbers_in_a_column_of_numbers_stay_numbers():
    frame = pd.DataFrame({"margin": [-1.5, 2.0], "name": pd.Series(["-1.5", "b"], dtype="string")})
    assert csv_text(frame) == "margin,name\n-1.5,'-1.5\n2.0,b\n"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_takes_one_visible_line_in_the_terminal(name):
    text = terminal_table(build_rows([result([True, False], cell_info(name, name, defense=name))]))
    assert len(text.splitlines()) == 3
    assert all(character.isprintable() for character in text.replace("\n", ""))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cnn_small.trades_digits_linf0.15", "cnn_small.trades_digits_linf0.15"),
        ("pgd(steps=40, alpha=-0.1)", "pgd(steps=40, alpha=-0.1)"),
        ("Linf:8/255", "Linf:8/255"),
        ("2026-11-21T10:00:00+00:00", "2026-11-21T10:00:00+00:00"),
        ("modèle №1 模型", "modèle №1 模型"),
    ],
)
def test_ordinary_names_are_left_alone(name, shown):
    assert markdown(name) == visible(name) == spreadsheet(name) == shown


def test_a_command_is_shown_exactly_and_cannot_close_its_block():
    text = fenced("run ```\n````\n# not a heading")
    (block,) = MarkdownIt().parse(text)
    assert block.content == "run ```\n````\n# not a heading\n"
