"""A gate's report as JUnit XML: a case a cell, the verdict as its outcome, and text that XML can hold."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from gauntlet.leaderboard.gate.junit import to_junit
from gauntlet.leaderboard.gate.report import CellVerdict, GateReport

KEY = ("net", "none", "pgd", "Linf:0.15", "quick", "digits", 0)


def verdict(kind, **changes):
    given = {"title": "net × none × pgd", "verdict": kind, "sentence": f"why {kind}", "key": KEY}
    return CellVerdict(**(given | changes))


def parsed(*verdicts, problems=(), passed=False, **given):
    root = ElementTree.fromstring(to_junit(GateReport(verdicts, problems, passed, **given)))
    assert root.tag == "testsuites"
    (suite,) = root
    assert root.attrib == suite.attrib
    return suite


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("held", None),
        ("regressed", "failure"),
        ("masked", "failure"),
        ("suspicious", "failure"),
        ("policy", "failure"),
        ("undecided", "failure"),
        ("incomparable", "error"),
    ],
)
def test_the_verdict_is_the_outcome_of_the_case(kind, outcome):
    (case,) = parsed(verdict(kind)).findall("testcase")
    assert case.attrib == {"classname": "net × none", "name": "pgd Linf:0.15 in quick on digits, seed 0"}
    found = [child for child in case if child.tag in ("failure", "error", "skipped")]
    assert [child.tag for child in found] == ([outcome] if outcome else [])
    if outcome:
        assert found[0].attrib == {"type": kind, "message": f"why {kind}"}


def test_undecided_cells_that_may_pass_are_skipped():
    suite = parsed(verdict("undecided"), verdict("held"), passed=True)
    assert [case.find("skipped") is not None for case in suite.findall("testcase")] == [True, False]
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "0", "1")


def test_cases_are_counted_and_missed_limits_and_evidence_are_among_them():
    lost = verdict("regressed", reproduce="gauntlet run --model 'a'", lost_ids=("7", "9"))
    suite = parsed(lost, verdict("incomparable", key=None), problems=("net: too many passes.",), costs="Costs.")
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "2",
        "errors": "1",
        "skipped": "0",
    }
    assert "reproduce: gauntlet run --model 'a'" in suite[0][0].text
    assert "lost: 7, 9" in suite[0][0].text
    assert suite[2].find("failure").get("type") == "limit"
    assert "Costs." in suite.find("system-out").text


@pytest.mark.parametrize("text", ["\x00\x1b[31m", "‮abc", "\ud800", "￾", "<a>&\"']]>", "a\nb"])
def test_no_name_breaks_the_xml_or_hides_in_it(text):
    key = (text, *KEY[1:])
    (case,) = parsed(verdict("regressed", title=text, sentence=text, key=key)).findall("testcase")
    for shown in (case.get("classname"), case.find("failure").text, case.find("failure").get("message")):
        assert not {"\x00", "\x1b", "‮", "￾", "\n"} & set(shown)
    if text.startswith("<"):
        assert case.find("failure").text == text
