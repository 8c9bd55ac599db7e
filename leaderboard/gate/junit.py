"""A gate's report as JUnit XML, which GitLab, Jenkins and others show beside their tests: a case for each cell."""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree

from gauntlet.leaderboard.gate.report import CellVerdict, GateReport
from gauntlet.leaderboard.results.escape import visible

NAME: Final = "robustness gate"
_NO_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold."""


def to_junit(report: GateReport) -> str:
    """The report as JUnit XML.

    A cell that held passed; one that is undecided is skipped where the gate passed, else a failure; an incomparable one is an
    error, every other a failure with the verdict as its type. Each missed limit is a case that failed.
    """
    cases = [_case(verdict, passed=report.passed) for verdict in report.verdicts]
    for problem in report.problems:
        case = ElementTree.Element("testcase", classname="limits", name=_text(problem.partition(":")[0]))
        cases.append(_with(case, "failure", "limit", problem))
    kinds = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    counts = {
        "name": NAME,
        "tests": str(len(cases)),
        "failures": str(kinds["failure"]),
        "errors": str(kinds["error"]),
        "skipped": str(kinds["skipped"]),
    }
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", counts)
    suite.extend(cases)
    said = [report.costs, report.rule, *report.notes, report.summary]
    ElementTree.SubElement(suite, "system-out").text = "\n".join(_text(line) for line in said if line)
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _case(verdict: CellVerdict, *, passed: bool) -> ElementTree.Element:
    if verdict.key is None:
        group, name = NAME, verdict.title
    else:
        model, defense, attack, threat, suite, data, seed = verdict.key
        group, name = f"{model} × {defense}", f"{attack} {threat} in {suite} on {data}, seed {seed}"
    case = ElementTree.Element("testcase", classname=_text(group), name=_text(name))
    match verdict.verdict:
        case "held":
            ElementTree.SubElement(case, "system-out").text = _text(verdict.line)
        case "undecided" if passed:
            _with(case, "skipped", "undecided", verdict.sentence)
        case "incomparable":
            _with(case, "error", "incomparable", verdict.sentence)
        case kind:
            evidence = (f"{what}: {text}" for what, text in verdict.evidence.items())
            _with(case, "failure", kind, verdict.sentence, *evidence)
    return case


def _with(case: ElementTree.Element, kind: str, type_: str, message: str, *more: str) -> ElementTree.Element:
    inner = ElementTree.SubElement(case, kind, type=type_, message=_text(message))
    inner.text = "\n".join(map(_text, (message, *more)))
    return case


def _text(text: str) -> str:
    """One line that XML can hold, with invisible characters escaped."""
    return _NO_XML.sub("\ufffd", visible(text))
