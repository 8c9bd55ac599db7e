"""Reading and writing the file of a baseline: JSON, small enough to be reviewed and committed."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.gate.baseline import (
    BASELINE_SCHEMA,
    ArtifactRef,
    Baseline,
    BaselineCell,
    BaselineError,
    Test,
    refuse_twins,
)
from gauntlet.leaderboard.gate.conditions import read_conditions
from gauntlet.leaderboard.gate.policy import read_policy
from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.sealed_json import parse_json
from gauntlet.leaderboard.results.user_text import read_user_text

_REMEDY = "write it again with `gauntlet baseline accept RUN`"
_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "cell": ("model", "defense", "attack", "threat", "suite", "data", "seed", "randomised", "status", "error"),
    "digests": ("spec", "data_digest", "weights"),
    "costs": ("forwards", "backwards", "peak_memory_mib", "seconds", "device"),
}
"""The groups of a cell's fields in the file, a line each; flags and bits follow in groups of their own."""
_READ = (1, BASELINE_SCHEMA)
_JUDGED = ("suite", "test", "policy", "artifact", "cells")
_HEAD = ("suite", "test", "commit", "reason", "created")


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write the file atomically: JSON with a line for each group of a cell's fields; bits are packed in base64. A digest of what
    judges stands in it: it shows damage and careless edits, and not who wrote the file.

    Raises WriteError; an existing file is then unchanged.
    """
    replace_text(path, _text(baseline))


def baseline_digest(baseline: Baseline) -> str:
    """sha256 of the baseline's file."""
    return hashlib.sha256(_text(baseline).encode()).hexdigest()


def _text(baseline: Baseline) -> str:
    head = {name: getattr(baseline, name) for name in ("schema", *_HEAD)}
    head["policy"] = dict(baseline.policy)
    head["artifact"] = asdict(baseline.artifact) if baseline.artifact else None
    stored = ",\n".join("    {\n" + ",\n".join(_lines(cell)) + "\n    }" for cell in baseline.cells)
    if read_conditions(baseline.policy) is not None:
        judged = {
            "suite": baseline.suite,
            "test": baseline.test,
            "policy": head["policy"],
            "artifact": head["artifact"],
        }
        head["digest"] = _digest(parse_json(_line(judged)) | {"cells": parse_json(f"[{stored}]")})
    lines = [f"  {json.dumps(name)}: {_line(value)}," for name, value in head.items()]
    return "\n".join(["{", *lines, '  "cells": [', *([stored] if stored else []), "  ]", "}", ""])


def _digest(judged: Mapping[str, Any]) -> str:
    """sha256 of what judges: all but commit, reason and date, which are for readers."""
    return hashlib.sha256(json.dumps({name: judged[name] for name in _JUDGED}, sort_keys=True).encode()).hexdigest()


def _lines(cell: BaselineCell) -> list[str]:
    groups = {group: {name: _plain(getattr(cell, name)) for name in names} for group, names in _GROUPS.items()}
    blocks = None if cell.blocks is None else sorted(cell.blocks)
    groups["flags"] = {"blocks": blocks, "lifted": list(cell.lifted), "masked": cell.masked}
    groups["samples"] = {
        "n": cell.n,
        "robust": int(cell.robust.sum()),
        "correct": int(cell.correct.sum()),
        "robust_bits": _pack(cell.robust),
        "correct_bits": _pack(cell.correct),
    }
    return [f"      {json.dumps(group)}: {_line(fields)}" for group, fields in groups.items()]


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """A value for JSON, which has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pack(bits: npt.NDArray[np.bool_]) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def _restore(path: Path) -> str:
    return f"restore it from version control with `git checkout BASE -- {path}`, where BASE is the branch that has it"


def read_baseline(path: Path) -> Baseline:
    """Read a baseline. Raises BaselineError for a file that is missing or damaged, or has an unknown schema."""
    try:
        fields = parse_json(read_user_text(path))
    except FileNotFoundError as error:
        raise BaselineError(
            f"{path} does not exist: correct its name, or if the change removed it, {_restore(path)}; or make it of a run that "
            f"is good with `gauntlet baseline accept RUN --out {path} --reason TEXT`"
        ) from error
    except OSError as error:
        raise BaselineError(f"{path} cannot be read ({error.strerror}): name a baseline file, or {_REMEDY}") from error
    except ValueError as error:
        raise BaselineError(f"{path} is damaged ({error}): {_restore(path)}, or {_REMEDY}") from error
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if type(schema) is not int:
        raise BaselineError(f"{path} is not a baseline (schema={schema!r}): name another file, or {_REMEDY}")
    if schema not in _READ:
        remedy = _REMEDY if schema < BASELINE_SCHEMA else f"upgrade gauntlet, or {_REMEDY}"
        raise BaselineError(
            f"{path} has schema {schema}, this version of gauntlet reads {BASELINE_SCHEMA} and 1: {remedy}"
        )
    try:
        baseline_cells = tuple(_read_cell(cell) for cell in fields["cells"])
        head = {name: _typed(fields, name, str) for name in _HEAD}
        if head["test"] not in get_args(Test):
            raise ValueError(f"test={head['test']!r} is not one of {', '.join(get_args(Test))}")
        artifact = _read_artifact(fields["artifact"])
        policy = {} if schema == 1 else _typed(fields, "policy", dict)
        read_policy(policy)
        # Files of earlier versions have neither conditions nor a digest.
        if read_conditions(policy) is not None and fields["digest"] != _digest(fields):
            raise ValueError("it was edited, or is damaged: its digest does not match its content")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BaselineError(f"{path} is damaged ({problem}): {_restore(path)}, or {_REMEDY}") from error
    refuse_twins(baseline_cells, str(path))
    return Baseline(schema=BASELINE_SCHEMA, cells=baseline_cells, artifact=artifact, policy=policy, **head)


def _read_artifact(fields: Mapping[str, Any] | None) -> ArtifactRef | None:
    if fields is None:
        return None
    known = {name: _typed(fields, name, kind) for name, kind in (("file", str), ("sha256", str), ("bytes", int))}
    if Path(known["file"]).name != known["file"]:
        raise ValueError(f"artifact file={known['file']!r} is not the name of a file beside the baseline")
    return ArtifactRef(**known)


_TYPES: Final[Mapping[str, type]] = (
    {"seed": int, "randomised": bool} | dict.fromkeys(_GROUPS["costs"], float) | {"device": str}
)


def _read_cell(groups: Mapping[str, Any]) -> BaselineCell:
    samples = groups["samples"]
    n = _typed(samples, "n", int)
    robust, correct = (_unpack(samples, name, n) for name in ("robust", "correct"))
    if (robust & ~correct).any():
        raise ValueError("a sample is robust, but not correct when clean")
    known = {name: _typed(groups[group], name, _TYPES.get(name, str)) for group in _GROUPS for name in _GROUPS[group]}
    if known["status"] not in ("ok", "error", "unfinished") or (known["status"] == "ok" and not n):
        raise ValueError(f"status {known['status']!r} of a cell with {n} samples")
    return BaselineCell(n=n, robust=robust, correct=correct, **known, **_read_flags(groups.get("flags")))


def _read_flags(fields: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields on flags; none in files of versions that did not record them."""
    if fields is None:
        return {}
    blocks, lifted, masked = fields["blocks"], fields["lifted"], fields["masked"]
    for name, value in (("blocks", blocks or []), ("lifted", lifted)):
        if not isinstance(value, list) or not all(type(entry) is str for entry in value):
            raise TypeError(f"{name}={value!r} is not a list of names")
    if masked is not None and (type(masked) is not int or masked < 0):
        raise TypeError(f"masked={masked!r} is not a number of samples")
    return {
        "blocks": None if blocks is None else dict.fromkeys(blocks, ""),
        "lifted": tuple(lifted),
        "masked": masked,
    }


def _typed(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    value = fields[name]
    if kind is float and type(value) in (int, float, type(None)):
        return math.nan if value is None else float(value)
    if type(value) is not kind:
        raise TypeError(f"{name}={value!r} is not of type {kind.__name__}")
    return value


def _unpack(samples: Mapping[str, Any], name: str, n: int) -> npt.NDArray[np.bool_]:
    packed = np.frombuffer(base64.b64decode(_typed(samples, f"{name}_bits", str), validate=True), np.uint8)
    bits = np.unpackbits(packed).astype(np.bool_)
    if n < 0 or len(packed) != -(-n // 8) or int(bits.sum()) != _typed(samples, name, int) or bits[n:].any():
        raise ValueError(f"{name}_bits do not match {name}={samples[name]} of n={n} samples")
    return bits[:n]
