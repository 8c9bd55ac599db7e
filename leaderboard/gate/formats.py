"""A gate's report for programs: as JSON, and as commands that make GitHub annotate a pull request."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gauntlet.leaderboard.gate.baseline import Baseline
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.report import CellVerdict, GateReport
from gauntlet.leaderboard.results import escape

GATE_SCHEMA: Final = 1

MOST_ANNOTATIONS: Final = 10
"""GitHub shows ten errors and ten warnings of a step, and drops the others without a word."""

_LONGEST = 3500
"""GitHub cuts messages at 4,096 characters."""
_KEY = ("model", "defense", "attack", "threat", "suite", "data", "seed")


def to_json(report: GateReport, baseline: Baseline, policy: Policy, *, exit_code: int) -> str:
    """The report as a JSON object, indented: what was asked, and every field of every verdict.

    Shares lie in 0..1. A figure that there is none of is null: JSON has no NaN.
    """
    head = [one.name for one in dataclasses.fields(baseline) if one.name not in ("schema", "cells")]
    found = {
        "schema": GATE_SCHEMA,
        "state": report.state,
        "passed": report.passed,
        "exit_code": exit_code,
        "summary": report.summary,
        "baseline": {name: getattr(baseline, name) for name in head},
        "policy": policy,
        "verdicts": [_fields(verdict) for verdict in report.verdicts],
        "problems": report.problems,
        "costs": report.costs,
    }
    return json.dumps(_plain(found), indent=1, ensure_ascii=False, allow_nan=False)


def _fields(verdict: CellVerdict) -> dict[str, Any]:
    key = verdict.key and dict(zip(_KEY, verdict.key, strict=True))
    return {one.name: getattr(verdict, one.name) for one in dataclasses.fields(verdict)} | {"key": key}


def _plain(value: Any) -> Any:
    """The value as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [_plain(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def github_annotations(report: GateReport) -> list[str]:
    """Workflow commands of GitHub, a line each: errors for what failed the gate, warnings for what is undecided.

    At most `MOST_ANNOTATIONS` of either, what needs attention first; a notice counts the rest. Escaped as GitHub's own
    toolkit does (actions/toolkit, `packages/core/src/command.ts`).
    """
    ranked = report.by_urgency
    errors = [_about(one) for one in ranked if one.verdict not in ("held", "undecided")]
    errors += [("Robustness gate: limit missed", problem) for problem in report.problems]
    warnings = [_about(one) for one in ranked if one.verdict == "undecided"]
    lines = [_command("error", *one) for one in errors[:MOST_ANNOTATIONS]]
    lines += [_command("warning", *one) for one in warnings[:MOST_ANNOTATIONS]]
    rest = [max(0, len(some) - MOST_ANNOTATIONS) for some in (errors, warnings)]
    if any(rest):
        told = f"{rest[0]} more errors and {rest[1]} more warnings stand in the step's summary and in gate.md. {report.summary}"
        lines.append(_command("notice", "Robustness gate", told))
    return lines


def _about(verdict: CellVerdict) -> tuple[str, str]:
    found = verdict.evidence
    lines = [verdict.sentence, *(f"{name}: {found[name]}" for name in ("reproduce", "lost") if name in found)]
    return f"Robustness {verdict.verdict}: {verdict.title}", "\n".join(map(escape.visible, lines))


def _command(kind: str, title: str, message: str) -> str:
    title = _data(escape.visible(title)).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{_data(escape.shorten(message, _LONGEST))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
