"""Models whose rows are left out of the tables of a results folder, `removed.json`. Their results stay."""

from __future__ import annotations

import difflib
import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path

from gauntlet.bench.environment.clock import now
from gauntlet.bench.results_folder.all_runs import runs_of
from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.errors import StoreError

_FILE = "removed.json"


class UnknownModelError(LookupError):
    """No model of the folder matches; the message has those that it has."""


def removed_models(root: Path) -> dict[str, str]:
    """The removed models, with when they were removed. Raises StoreError for a damaged file."""
    path = root / _FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return {str(model): str(when) for model, when in fields.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} is damaged ({error}): delete it and remove the models again") from error


def remove_models(root: Path, patterns: Sequence[str]) -> list[str]:
    """Leave the models that match out of the tables, and return their names. Raises UnknownModelError, RunError, StoreError."""
    known = dict.fromkeys(cell.info.model for run in runs_of(root) for cell in run.plan.cells)
    removed = removed_models(root)
    found = _matching(patterns, [model for model in known if model not in removed], list(removed), "is removed already")
    _write(root, removed | dict.fromkeys(found, now()))
    return found


def restore_models(root: Path, patterns: Sequence[str]) -> list[str]:
    """Show removed models that match again, and return their names. Raises UnknownModelError, RunError, StoreError."""
    known = dict.fromkeys(cell.info.model for run in runs_of(root) for cell in run.plan.cells)
    removed = removed_models(root)
    found = _matching(patterns, list(removed), [model for model in known if model not in removed], "is not removed")
    _write(root, {model: when for model, when in removed.items() if model not in found})
    return found


def _matching(patterns: Sequence[str], models: Sequence[str], others: Sequence[str], why_not: str) -> list[str]:
    found: dict[str, None] = {}
    for pattern in patterns:
        matching = [model for model in models if _matches(model, pattern)]
        if not matching:
            if any(_matches(model, pattern) for model in others):
                raise UnknownModelError(f"model {pattern!r} {why_not}")
            near = difflib.get_close_matches(pattern, models, 3, 0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(sorted(models)) or 'none'}"
            raise UnknownModelError(f"no model matches {pattern!r}: {hint}")
        found |= dict.fromkeys(matching)
    return list(found)


def _matches(model: str, pattern: str) -> bool:
    return model == pattern or fnmatch.fnmatchcase(model, pattern)


def _write(root: Path, removed: dict[str, str]) -> None:
    replace_text(root / _FILE, json.dumps(removed, indent=1))
