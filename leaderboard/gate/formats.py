"""A gate's report as JSON, and as workflow commands that annotate a pull request on GitHub."""

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
"""GitHub shows ten errors and ten warnings per step, and silently drops the others."""

_LONGEST = 3500
"""GitHub cuts messages at 4,096 characters."""
_KEY = ("model", "defense", "attack", "threat", "suite", "data", "seed")


def to_json(report: GateReport, baseline: Baseline, policy: Policy, *, exit_code: int, nonce: str = "") -> str:
    """The report as an indented JSON object: baseline, policy, outcome, and every field of every verdict.

    `nonce`: a number that shows of which run it is. Shares lie in 0..1. A missing figure is null, because JSON has no NaN.
    """
    head = [field.name for field in dataclasses.fields(baseline) if field.name not in ("schema", "cells")]
    content = {
        "schema": GATE_SCHEMA,
        "state": report.state,
        "passed": report.passed,
        "exit_code": exit_code,
        "nonce": nonce,
        "summary": report.summary,
        "baseline": {name: getattr(baseline, name) for name in head},
        "policy": policy,
        "verdicts": [_fields(verdict) for verdict in report.verdicts],
        "problems": report.problems,
        "costs": report.costs,
        "notes": report.notes,
    }
    return json.dumps(_json_value(content), indent=1, ensure_ascii=False, allow_nan=False)


def _fields(verdict: CellVerdict) -> dict[str, Any]:
    key = verdict.key and dict(zip(_KEY, verdict.key, strict=True))
    return {field.name: getattr(verdict, field.name) for field in dataclasses.fields(verdict)} | {"key": key}


def _json_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _json_value(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_json_value(item) for item in value]
    return value


def github_annotations(report: GateReport) -> list[str]:
    """Workflow commands of GitHub, a line each: errors for cells and limits that failed the gate, warnings for undecided cells.

    At most `MOST_ANNOTATIONS` of either, those that need attention first; a notice counts the rest. Escaped as in GitHub's
    toolkit (actions/toolkit, `packages/core/src/command.ts`).
    """
    ranked = report.by_urgency
    errors = [_annotation(verdict) for verdict in ranked if verdict.verdict not in ("held", "undecided")]
    errors += [("Robustness gate: limit missed", problem) for problem in report.problems]
    warnings = [_annotation(verdict) for verdict in ranked if verdict.verdict == "undecided"]
    lines = [github_command("error", *error) for error in errors[:MOST_ANNOTATIONS]]
    lines += [github_command("warning", *warning) for warning in warnings[:MOST_ANNOTATIONS]]
    more_errors, more_warnings = (max(0, len(shown) - MOST_ANNOTATIONS) for shown in (errors, warnings))
    if more_errors or more_warnings:
        rest = f"{more_errors} more errors and {more_warnings} more warnings are in the step's summary and in gate.md."
        lines.append(github_command("notice", "Robustness gate", f"{rest} {report.summary}"))
    return lines


def _annotation(verdict: CellVerdict) -> tuple[str, str]:
    """Title and message."""
    evidence = verdict.evidence
    lines = [verdict.sentence, *(f"{name}: {evidence[name]}" for name in ("reproduce", "lost") if name in evidence)]
    return f"Robustness {verdict.verdict}: {verdict.title}", "\n".join(map(escape.visible, lines))


def github_command(kind: str, title: str, message: str) -> str:
    """A workflow command of GitHub that shows a message under a title; `kind`: `error`, `warning` or `notice`."""
    title = _escaped(escape.visible(title)).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{_escaped(escape.shorten(message, _LONGEST))}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
