"""The baseline of a gate: what a run found, sample by sample, in a file small enough to be reviewed and committed."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard import cells
from gauntlet.leaderboard.cells import Status
from gauntlet.leaderboard.record import CellInfo, CellResult
from gauntlet.leaderboard.writers import replace_files

BASELINE_SCHEMA = 1

Key = tuple[str, str, str, str, str, str, int]
Test = Literal["fixed", "sequential"]
"""`fixed`: one test on all samples. `sequential`: samples in a random order, a test that is valid whenever it stops."""

_WAY_OUT = "write it anew with `gauntlet baseline accept RUN`"
_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "cell": ("model", "defense", "attack", "threat", "suite", "data", "seed", "randomised", "status", "error"),
    "digests": ("spec", "data_digest", "weights"),
    "costs": ("forwards", "backwards", "peak_memory_mib", "seconds", "device"),
}
"""How the fields of a cell stand in the file, a line each; the bits follow them."""
_HEAD = ("suite", "test", "commit", "reason", "created")


class BaselineError(ValueError):
    """A baseline that cannot be used; the message names the file and the way out."""


@dataclass(frozen=True, eq=False)
class BaselineCell:
    """What one cell of a run found."""

    model: str
    defense: str
    attack: str
    threat: str
    suite: str
    data: str
    seed: int
    spec: str
    """sha256 of what was asked: the attack with its settings, whether it is a minimum-norm one, and the precision."""
    data_digest: str
    """sha256 of the digests of the blocks' images and labels, and of the sample ids in their order."""
    weights: str
    """Digest of the model's parameters and buffers, empty where the run recorded none."""
    n: int
    robust: npt.NDArray[np.bool_]
    """(n,), correct when clean and not broken; of a randomised model, by the majority of the scoring draws."""
    correct: npt.NDArray[np.bool_]
    """(n,), correct when clean."""
    forwards: float
    """Forward passes of the attack, summed over the samples."""
    backwards: float
    peak_memory_mib: float
    """NaN where nothing ran."""
    seconds: float
    """The attack's alone."""
    device: str
    """`cpu` or `cuda`; both, separated by a blank, where the blocks come from both."""
    randomised: bool
    status: Status = "ok"
    error: str = ""
    """Why the cell failed; empty where it did not."""

    @property
    def key(self) -> Key:
        """What identifies the cell."""
        return self.model, self.defense, self.attack, self.threat, self.suite, self.data, self.seed

    @property
    def title(self) -> str:
        """Readable, with the threat model."""
        return f"{self.model} × {self.defense} × {self.attack} {self.threat}"


@dataclass(frozen=True)
class ArtifactRef:
    """A file that holds the baseline's examples and weights: too large to review, and named by its content."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, eq=False)
class Baseline:
    """The cells of one run, and who accepted them why."""

    schema: int
    suite: str
    test: Test
    """How gates judge: chosen here, before any of them runs, because whoever may choose after the run has two chances."""
    commit: str
    reason: str
    created: str
    cells: tuple[BaselineCell, ...]
    artifact: ArtifactRef | None = None


def baseline_of(
    results: Sequence[CellResult], *, suite: str, commit: str, reason: str, created: str, test: Test = "fixed"
) -> Baseline:
    """The baseline that a run makes, its cells in the order of the plan. Certificates and corruptions are left
    out: nothing attacks there.

    Raises BaselineError where two cells have the same key.
    """
    found = tuple(_cell(result) for result in results if result.cell.adversarial)
    _refuse_twins(found, "the run")
    return Baseline(BASELINE_SCHEMA, suite, test, commit, reason, created, found)


def _cell(result: CellResult) -> BaselineCell:
    info, found, spent = result.cell, cells.outcomes(result), cells.costs(result)
    sources = [block.provenance for block in result.blocks]
    digests = [str(source.get("data") or "") for source in sources]
    return BaselineCell(
        model=info.model,
        defense=info.defense,
        attack=info.attack,
        threat=info.threat,
        suite=info.suite,
        data=info.data,
        seed=info.seed,
        spec=spec_digest(info, cells.precision(result)),
        data_digest=data_digest(digests, found.id.tolist()),
        weights=" ".join(dict.fromkeys(str(source.get("weights") or "") for source in sources)),
        n=len(found),
        robust=found.robust,
        correct=found.correct,
        forwards=float(sum(block.samples.forwards.sum() for block in result.blocks)),
        backwards=float(sum(block.samples.backwards.sum() for block in result.blocks)),
        peak_memory_mib=spent.peak_memory_mib,
        seconds=spent.seconds,
        device=devices(sources),
        randomised=info.randomised,
        status=cells.status(result),
        error=f"{result.error.kind}: {result.error.message}" if result.error else "",
    )


def spec_digest(info: CellInfo, precision: str) -> str:
    """sha256 of what was asked: the attack with its settings, whether it is a minimum-norm one, and the precision."""
    return _digest([info.attack_spec, info.minimum_norm, precision])


def devices(sources: Iterable[Mapping[str, Any]]) -> str:
    """The kinds of device that blocks' provenances name."""
    return " ".join(sorted({str(one.get("device", "")).partition(" ")[0].partition(":")[0] for one in sources}))


def data_digest(blocks: Sequence[str], ids: Sequence[str]) -> str:
    """sha256 of the digests of a cell's blocks and of its sample ids in their order; empty where a block's is not known."""
    return _digest([list(blocks), list(ids)]) if all(blocks) else ""


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _refuse_twins(found: Sequence[BaselineCell], where: str) -> None:
    twins = [key for key, count in Counter(cell.key for cell in found).items() if count > 1]
    if twins:
        raise BaselineError(f"{where} has two cells {twins[0]}: give the attacks of a suite labels of their own")


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write the file, whole or not at all: JSON, a line for each group of a cell's fields, bits packed in base64.

    Raises OSError that names the file where it cannot be written; an older file is then as it was.
    """
    replace_files({path: _text(baseline).encode()})


def baseline_digest(baseline: Baseline) -> str:
    """sha256 of the file that the baseline makes."""
    return hashlib.sha256(_text(baseline).encode()).hexdigest()


def _text(baseline: Baseline) -> str:
    head = {name: getattr(baseline, name) for name in ("schema", *_HEAD)}
    head["artifact"] = asdict(baseline.artifact) if baseline.artifact else None
    lines = [f"  {json.dumps(name)}: {_line(value)}," for name, value in head.items()]
    stored = ",\n".join("    {\n" + ",\n".join(_lines(cell)) + "\n    }" for cell in baseline.cells)
    return "\n".join(["{", *lines, '  "cells": [', *([stored] if stored else []), "  ]", "}", ""])


def _lines(cell: BaselineCell) -> list[str]:
    groups = {group: {name: _plain(getattr(cell, name)) for name in names} for group, names in _GROUPS.items()}
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
    """A value as JSON has it, which knows no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pack(bits: npt.NDArray[np.bool_]) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def read_baseline(path: Path) -> Baseline:
    """The baseline that a file holds. Raises BaselineError where it is missing, damaged, or of another schema."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BaselineError(f"{path} does not exist: {_WAY_OUT}") from error
    except OSError as error:
        raise BaselineError(f"{path} cannot be read ({error.strerror}): name a baseline file, or {_WAY_OUT}") from error
    except ValueError as error:
        raise BaselineError(f"{path} is damaged ({error}): restore it from version control, or {_WAY_OUT}") from error
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if type(schema) is not int:
        raise BaselineError(f"{path} is no baseline (schema={schema!r}): name another file, or {_WAY_OUT}")
    if schema != BASELINE_SCHEMA:
        way = _WAY_OUT if schema < BASELINE_SCHEMA else f"upgrade gauntlet, or {_WAY_OUT}"
        raise BaselineError(f"{path} has schema {schema}, this version of gauntlet reads {BASELINE_SCHEMA}: {way}")
    try:
        found = tuple(_read_cell(cell) for cell in fields["cells"])
        head = {name: _typed(fields, name, str) for name in _HEAD}
        if head["test"] not in get_args(Test):
            raise ValueError(f"test={head['test']!r} is none of {', '.join(get_args(Test))}")
        artifact = _read_artifact(fields["artifact"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BaselineError(f"{path} is damaged ({what}): restore it from version control, or {_WAY_OUT}") from error
    _refuse_twins(found, str(path))
    return Baseline(schema=schema, cells=found, artifact=artifact, **head)


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
        raise ValueError("a sample is robust and not correct when clean")
    known = {name: _typed(groups[group], name, _TYPES.get(name, str)) for group in _GROUPS for name in _GROUPS[group]}
    if known["status"] not in ("ok", "error", "unfinished") or (known["status"] == "ok" and not n):
        raise ValueError(f"status {known['status']!r} of a cell with {n} samples")
    return BaselineCell(n=n, robust=robust, correct=correct, **known)


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
        raise ValueError(f"{name}_bits do not hold the {samples[name]} of {n} samples that they should")
    return bits[:n]


def diff(old: Baseline, new: Baseline) -> list[str]:
    """What changed, a sentence each, in the order of the new baseline and then of what is gone; empty where nothing did.

    Figures are those of the file: no test is made.
    """
    before, after = ({cell.key: cell for cell in one.cells} for one in (old, new))
    said = [f"Suite: {old.suite} → {new.suite}."] if old.suite != new.suite else []
    said += [f"Test: {old.test} → {new.test}."] if old.test != new.test else []
    for key, cell in after.items():
        if key not in before:
            said.append(f"New: {cell.title}, seed {cell.seed}: {_figure(cell)}.")
        elif changes := _changes(before[key], cell):
            said.append(f"{cell.title}, seed {cell.seed}: {'; '.join(changes)}.")
    gone = (cell for key, cell in before.items() if key not in after)
    return said + [f"Gone: {cell.title}, seed {cell.seed}: it was {_figure(cell)}." for cell in gone]


def _changes(old: BaselineCell, new: BaselineCell) -> list[str]:
    said = []
    paired = old.data_digest == new.data_digest and old.n == new.n
    moved = paired and bool((old.robust != new.robust).any())
    if moved or not paired or (old.status, old.error) != (new.status, new.error):
        said.append(f"{_figure(old)} → {_figure(new)}")
    if moved:
        said.append(f"{int((old.robust & ~new.robust).sum())} lost, {int((~old.robust & new.robust).sum())} gained")
    if paired and (old.correct != new.correct).any():
        said.append(f"correct when clean {int(old.correct.sum())} → {int(new.correct.sum())}")
    names = {"spec": "settings of the attack", "data_digest": "data or sample ids", "weights": "weights"}
    said += [f"other {text}" for name, text in names.items() if getattr(old, name) != getattr(new, name)]
    if old.randomised != new.randomised:
        said.append("randomised now" if new.randomised else "no longer randomised")
    if (old.forwards, old.backwards) != (new.forwards, new.backwards):
        passes = (f"{one.forwards:,.0f} + {one.backwards:,.0f}" for one in (old, new))
        said.append(f"forward + backward passes {' → '.join(passes)}")
    return said


def _figure(cell: BaselineCell) -> str:
    if cell.status == "error":
        return f"failed ({cell.error})"
    share = f"{100 * cell.robust.mean():.1f} % robust (n={cell.n})" if cell.n else "no samples"
    return share if cell.status == "ok" else f"unfinished, {share}"
