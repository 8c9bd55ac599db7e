"""A gate's report where people and programs look for it: text, Markdown, JSON, GitHub's annotations and summaries."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace

import pytest
from markdown_it import MarkdownIt

from builders import baseline
from gauntlet.bench.gate.publish import SUMMARY_LIMIT, append_summary, default_format, lines
from gauntlet.leaderboard.gate.formats import MOST_ANNOTATIONS, github_annotations, to_json
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.report import STATES, CellVerdict, GateReport, worst

HOSTILE = "a,b=c::error file=x.py::100 %25 %0A | `$(touch x)`\r\n::warning::no‮"
BASELINE = baseline(commit="abc-dirty", reason="the first")


def verdict(kind, number=0, **changes):
    """What is said of a cell, with figures where it was compared."""
    given = {
        "title": f"net{number} × none × pgd Linf:0.1, seed 0",
        "verdict": kind,
        "sentence": "70.0 % → 64.0 % (n=50)",
    }
    if kind != "incomparable":
        given |= {"n": 50, "p_value": 0.5, "upper": 0.1, "baseline_robust": 0.7, "robust": 0.64}
        given |= {
            "lost": 3,
            "lost_at": (1, 2, 3),
            "key": (f"net{number}", "none", "pgd", "Linf:0.1", "quick", "digits", 0),
        }
    return CellVerdict(**(given | changes))


def regressed(number=0, lost=3, **changes):
    """A cell with all that there is to look at."""
    return verdict(
        "regressed",
        number,
        lost_ids=tuple(f"digits/{at:04}" for at in range(lost)),
        reproduce="gauntlet run --model 'my  model.py:build' --attacks 'pgd(steps=10)'",
        show="gauntlet show out --sample digits/0000",
        picture="out/pictures/lost_of_a_cell.png",
        **changes,
    )


def report(*verdicts, problems=(), allow=False):
    """A report that passes where it may."""
    fine = {"held", "undecided"} if allow else {"held"}
    return GateReport(
        verdicts, tuple(problems), not problems and {v.verdict for v in verdicts} <= fine, "Costs: 1 → 2."
    )


# --- what it comes to -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        (["held", "held"], "passed"),
        (["held", "undecided"], "undecided"),
        (["held", "undecided", "incomparable"], "incomparable"),
        (["incomparable", "regressed", "undecided"], "failed"),
        (["suspicious", "incomparable"], "failed"),
        (["incomparable"], "incomparable"),
    ],
)
def test_lost_robustness_counts_before_what_was_not_compared_and_that_before_what_is_undecided(kinds, state):
    assert report(*map(verdict, kinds)).state == state


def test_a_missed_limit_fails_a_gate_whose_cells_held():
    assert report(verdict("held"), problems=["too many passes"]).state == "failed"
    assert report(verdict("undecided"), problems=["too many passes"], allow=True).state == "failed"


def test_undecided_cells_that_may_pass_pass():
    assert report(verdict("held"), verdict("undecided"), allow=True).state == "passed"


def test_of_several_gates_the_most_serious_counts():
    assert [worst(STATES[at:]) for at in range(4)] == ["failed", "incomparable", "undecided", "passed"]


# --- text -------------------------------------------------------------------------------------------------------------


def test_below_what_regressed_stand_the_command_the_lost_samples_and_the_picture():
    text = report(verdict("held"), regressed(lost=12)).text().splitlines()
    assert text[0].startswith("REGRESSED net0")
    assert text[1:5] == [
        "  reproduce: gauntlet run --model 'my  model.py:build' --attacks 'pgd(steps=10)'",
        f"  lost: {', '.join(f'digits/{at:04}' for at in range(10))} and 2 more",
        "  picture: out/pictures/lost_of_a_cell.png",
        "  show one: gauntlet show out --sample digits/0000",
    ]
    assert text[5].startswith("HELD")


def test_of_ten_lost_samples_no_more_are_told():
    assert "digits/0009\n" in report(regressed(lost=10)).text()


@pytest.mark.parametrize("kind", ["held", "undecided", "incomparable"])
def test_a_cell_that_lost_nothing_for_certain_is_one_line(kind):
    cell = replace(regressed(), verdict=kind)
    assert len(report(cell).text().splitlines()) == 3


def test_what_rose_without_a_reason_can_be_run_again():
    assert list(replace(regressed(), verdict="suspicious").evidence) == ["reproduce"]


def test_a_command_in_which_a_character_does_not_show_is_not_printed_as_it_is():
    text = report(replace(regressed(), reproduce="gauntlet run --model 'a‮\n::error::b'")).text()
    assert "  reproduce: gauntlet run --model 'a\\u202e ::error::b'" in text.splitlines()


# --- Markdown ---------------------------------------------------------------------------------------------------------


def blocks(markdown):
    """The code blocks of a Markdown text, as they would be copied."""
    return [token.content for token in MarkdownIt("commonmark").parse(markdown) if token.type == "fence"]


def test_the_commands_in_markdown_are_copied_exactly():
    cells = [regressed(), regressed(1, title=HOSTILE), verdict("held", 2)]
    assert blocks(report(*cells).markdown()) == [f"{one.reproduce}\n{one.show}\n" for one in cells[:2]]


def test_lost_samples_and_the_picture_stand_in_the_entry_of_their_cell():
    html = MarkdownIt("commonmark").enable("table").render(report(regressed(), verdict("undecided", 1)).markdown())
    entry, other = html[html.index("<strong>regressed") :].split("<strong>undecided")
    for part in ("lost: digits/0000, digits/0001, digits/0002", "picture: out/pictures/lost_of_a_cell.png", "<pre>"):
        assert part in entry
        assert part not in other


@pytest.mark.parametrize("limit", [3000, 10_000, 60_000, 200_000, 2_000_000])
def test_a_report_that_is_too_large_loses_whole_rows_and_entries_from_the_end_and_says_how_many(limit):
    cells = [regressed(number, lost=20, title=f"net{number} × ナ × {HOSTILE}") for number in range(300)]
    held = [verdict("held", number) for number in range(300, 1000)]
    whole, cut = report(*held, *cells).markdown(), report(*held, *cells).markdown(limit)
    assert len(cut.encode()) <= limit
    assert set(cut.splitlines()) - set(whole.splitlines()) <= {line for line in cut.splitlines() if "Left out" in line}
    rows, entries = len(re.findall(r"(?m)^\| (?:held|regressed)", cut)), cut.count("- **regressed**")
    assert len(blocks(cut)) == entries
    told = f"{1000 - rows:,} of 1,000 rows and {300 - entries:,} of 300 entries"
    if limit < len(whole.encode()):
        assert told in cut
        assert rows >= 1
    else:
        assert cut == whole
    if limit > 3000:
        assert "net0 " in cut
        assert entries >= 1
    assert "Gate failed: 300 regressed, 700 held." in cut
    assert "Costs: 1 → 2." in cut


# --- JSON -------------------------------------------------------------------------------------------------------------


def read(text):
    """What strict JSON holds."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_holds_every_field_and_no_nan():
    cells = [regressed(title=HOSTILE), verdict("incomparable", 1)]
    made = report(*cells, problems=["too many passes"])
    found = read(to_json(made, BASELINE, Policy(min_robust={"net*": 0.5}), exit_code=1))
    assert (found["schema"], found["state"], found["passed"], found["exit_code"]) == (1, "failed", False, 1)
    assert found["baseline"]["commit"] == "abc-dirty"
    assert found["baseline"]["reason"] == "the first"
    assert found["policy"]["min_robust"] == {"net*": 0.5}
    assert found["policy"]["margin"] == 0.02
    assert found["problems"] == ["too many passes"]
    assert found["summary"] == made.summary
    for one, cell in zip(found["verdicts"], cells, strict=True):
        assert set(one) == {field.name for field in fields(CellVerdict)}
        for name in ("title", "verdict", "sentence", "lost", "gained", "n", "reproduce", "show", "picture"):
            assert one[name] == getattr(cell, name)
        assert one["lost_ids"] == list(cell.lost_ids)
        for name in ("p_value", "upper", "baseline_robust", "robust"):
            figure = getattr(cell, name)
            assert one[name] == (None if math.isnan(figure) else figure)
    assert found["verdicts"][0]["key"]["attack"] == "pgd"
    assert found["verdicts"][1]["key"] is None


# --- GitHub's annotations ---------------------------------------------------------------------------------------------


def understood(line):
    """A workflow command as GitHub's runner reads it: kind, title and message (actions/runner, `ActionCommand.cs`)."""
    assert line.startswith("::")
    head, _, data = line[2:].partition("::")
    kind, _, properties = head.partition(" ")
    found = dict(pair.split("=", 1) for pair in properties.split(","))
    title = found.pop("title")
    assert not found
    for code, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        title = title.replace(code, character)
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        data = data.replace(code, character)
    return kind, title, data


def test_annotations_name_the_cell_the_figures_the_command_and_the_lost_samples():
    (line,) = github_annotations(report(verdict("held"), regressed(1)))
    assert understood(line) == (
        "error",
        "Robustness regressed: net1 × none × pgd Linf:0.1, seed 0",
        "70.0 % → 64.0 % (n=50)\nreproduce: gauntlet run --model 'my model.py:build' --attacks 'pgd(steps=10)'\n"
        "lost: digits/0000, digits/0001, digits/0002",
    )


def test_nothing_in_a_name_or_a_sentence_becomes_a_command_of_its_own():
    (line,) = github_annotations(report(verdict("incomparable", title=HOSTILE, sentence=HOSTILE)))
    assert "\n" not in line
    assert "\r" not in line
    kind, title, message = understood(line)
    assert kind == "error"
    shown = "a,b=c::error file=x.py::100 %25 %0A | `$(touch x)` ::warning::no\\u202e"
    assert title == f"Robustness incomparable: {shown}"
    assert message == shown


@pytest.mark.parametrize(("lost", "undecided"), [(10, 10), (11, 0), (3, 15), (25, 40)])
def test_at_most_ten_errors_and_ten_warnings_are_made_and_the_rest_is_counted(lost, undecided):
    cells = [verdict("undecided", at) for at in range(undecided)] + [regressed(at) for at in range(lost)]
    found = [understood(line) for line in github_annotations(report(*cells))]
    kinds = [kind for kind, *_ in found]
    assert kinds.count("error") == min(lost, MOST_ANNOTATIONS)
    assert kinds.count("warning") == min(undecided, MOST_ANNOTATIONS)
    more = max(0, lost - 10), max(0, undecided - 10)
    assert kinds.count("notice") == (1 if any(more) else 0)
    if any(more):
        assert found[-1][2].startswith(f"{more[0]} more errors and {more[1]} more warnings")


def test_missed_limits_and_suspicious_cells_are_errors_and_what_held_is_not_annotated():
    made = report(verdict("held"), verdict("suspicious", 1), problems=["net: too many passes"])
    assert [understood(line)[1:] for line in github_annotations(made)] == [
        ("Robustness suspicious: net1 × none × pgd Linf:0.1, seed 0", "70.0 % → 64.0 % (n=50)"),
        ("Robustness gate: limit missed", "net: too many passes"),
    ]
    assert github_annotations(report(verdict("held"))) == []


def test_a_message_is_shorter_than_what_github_cuts():
    long = replace(regressed(), sentence="% " * 9000)
    (line,) = github_annotations(report(long))
    assert len(understood(line)[2]) < 4096


def test_annotations_are_printed_for_github_alone(monkeypatch):
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert default_format() == "text"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert default_format() == "github"
    made = report(regressed())
    assert list(lines(made, "text")) == made.text().splitlines()
    assert list(lines(made, "github")) == [*made.text().splitlines(), *github_annotations(made)]


# --- GitHub's summary -------------------------------------------------------------------------------------------------


@pytest.fixture
def summary(tmp_path, monkeypatch):
    """The file that GitHub would show."""
    file = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    return file


def test_the_report_is_appended_to_the_summary_of_the_step(summary):
    summary.write_text("before\n", encoding="utf-8")
    made = report(regressed())
    assert append_summary(made) == ["written: the step's summary"]
    assert summary.read_text(encoding="utf-8") == f"before\n\n## Robustness gate\n\n{made.markdown()}"


def test_without_a_summary_nothing_is_written_or_told(monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert append_summary(report(regressed())) == []


@pytest.mark.parametrize("used", [0, 500_000, 1_035_000])
def test_a_summary_stays_below_githubs_limit_whatever_stands_there_already(summary, used):
    summary.write_bytes(b"x" * used)
    cells = [regressed(number, lost=20, title=f"{number} {'é' * 300}") for number in range(1500)]
    assert append_summary(report(*cells)) == ["written: the step's summary"]
    assert used + 3000 < summary.stat().st_size < SUMMARY_LIMIT == 1_048_576
    assert "Left out to limit the size" in summary.read_text(encoding="utf-8")


def test_a_summary_without_room_is_left_as_it_is_and_told(summary):
    summary.write_bytes(b"x" * 1_045_000)
    assert append_summary(report(regressed())) == [
        "not written: the step's summary is full (1,045,000 of 1,048,576 bytes)"
    ]
    assert summary.stat().st_size == 1_045_000


def test_a_summary_that_cannot_be_written_is_told_and_no_error(summary):
    summary.mkdir()
    (note,) = append_summary(report(regressed()))
    assert note.startswith("not written: the step's summary (")
