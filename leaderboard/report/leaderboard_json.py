"""The leaderboard as JSON, for programs: `leaderboard.schema.json` beside this file describes it.

The version counts changes that break readers; fields may be added without one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any, Final

from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.rows.evidence import describe_evidence, describe_lifted
from gauntlet.leaderboard.rows.references import Estimate, Reference
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.stats.proportions import Proportion

VERSION: Final = 1


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the file."""
    text = (files(__package__) / "leaderboard.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def leaderboard_json(
    rows: Sequence[LeaderboardRow],
    context: RunContext,
    references: Sequence[Reference] = (),
    models: Sequence[ModelDescription] = (),
) -> str:
    """The text of `leaderboard.json`, the rows in the order given. Shares are in 0..1; what is not known is null."""
    described = {one.model: one for one in models}
    content = {
        "schema_version": VERSION,
        "run": _plain(asdict(context)),
        "rows": [_row(row, references, described.get(row.model)) for row in rows],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _row(row: LeaderboardRow, references: Sequence[Reference], about: ModelDescription | None) -> dict[str, Any]:
    bracket, corruption, worst = row.bracket, row.corruption, row.worst_class
    ranked = row.rank_interval is not None
    return {
        "model": row.model,
        "defense": row.defense,
        "threat": row.threat,
        "norm": row.norm,
        "eps": row.eps,
        "data": row.data,
        "suite": row.suite,
        "seeds": list(row.seeds),
        "status": row.status,
        "rank": {
            "place": row.rank,
            "interval": list(row.rank_interval or ()),
            "comparison": row.comparison,
            "compared": row.compared,
        }
        if ranked
        else None,
        "unranked": list(row.unranked),
        "clean": _share(row.clean),
        "robust": _share(row.robust),
        "naive": _share(row.naive),
        "certified": None
        if bracket is None
        else {**_known(bracket.certified), "open": bracket.open, "probabilistic": bracket.probabilistic},
        "attacks": {
            label: {"status": entry} if isinstance(entry, str) else {"status": "ok", **_known(entry)}
            for label, entry in row.attacks.items()
        },
        "worst_class": None if worst is None else {"label": worst.label, "name": worst.title, **_known(worst.robust)},
        "corruptions": None if corruption is None or not corruption.mean.n else _known(corruption.mean),
        "costs": _plain(
            {
                "seconds": row.seconds,
                "forwards_per_sample": row.forwards_per_sample,
                "backwards_per_sample": row.backwards_per_sample,
                "peak_memory_mib": row.peak_memory_mib,
            }
        ),
        "techniques": sorted(row.techniques),
        "flags": [
            {
                "name": flag.name,
                "severity": flag.severity,
                "message": flag.message,
                "evidence": _plain(dict(flag.evidence)),
                "evidence_in_words": describe_evidence(flag),
                "lifted_by": list(flag.lifted_by),
                "lifted_in_words": describe_lifted(flag) if flag.lifted_by else "",
            }
            for flag in row.flags
        ],
        "published": [
            {
                "figure": one.figure,
                "published": one.stated,
                "measured": one.measured.estimate,
                "covered": one.covered,
                "attack": one.attack,
                "source": one.published.source,
            }
            for one in references
            if one.row.key == row.key
        ],
        "description": None if about is None else {name: text for name, text in asdict(about).items() if text},
    }


def _share(share: Proportion | None) -> dict[str, Any] | None:
    return None if share is None or not share.n else _known(share)


def _known(share: Estimate) -> dict[str, Any]:
    low, high = share.interval
    return _plain({"accuracy": share.estimate, "low": low, "high": high, "n": share.n})


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, with null for what is no number of JSON."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()
    }
