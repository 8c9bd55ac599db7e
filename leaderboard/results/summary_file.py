"""Summaries on disk: one file for each cell, derived from its blocks, which may be deleted at any time.

A summary says which block files it was made of: their keys, sizes and times of change, and those of the notes on later runs. It
is used only where all of these are as they were. Beside that it bears a seal, made with a secret of this user on this machine: a
folder of somebody else may bring summaries, and nothing says that they follow from its blocks, so they are made again.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import time
import zlib
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.atomic_files import write_once
from gauntlet.leaderboard.results.cell_summary import Costs
from gauntlet.leaderboard.results.coded import Coded
from gauntlet.leaderboard.results.leftovers import temporary_name
from gauntlet.leaderboard.results.record import CellInfo, Flag
from gauntlet.leaderboard.results.sample_set import SampleSet, sample_set
from gauntlet.leaderboard.results.store import Store
from gauntlet.leaderboard.results.summary import BlockNote, CellSummary

T = TypeVar("T", str, float)
State = Sequence[tuple[Any, ...]]
"""The files that a summary was made of: for each stored block its key, number of samples and stamp (`Store.stamp`)."""
ONCE: Final = 4
"""Entries of the state of a block that was run once: key, number of samples, and the stamp of its file."""
_SETTLED: Final = 2_000_000_000
"""Nanoseconds after which a file that is changed again has another time of change, on any file system."""

_VERSION: Final = 1
_ARRAYS: Final = ("correct", "robust", "recorded", "certified")
_CODED: Final = ("wrong_share", "wrong_share_scored", "effort", "stage", "faced")
_PLAIN: Final = (
    "proven",
    "median_distance",
    "masked",
    "precision",
    "device",
    "report_as",
    "weights",
    "replayed_nothing",
)


def state_of(store: Store, keys: Sequence[tuple[str, int]]) -> State:
    """The files of the stored ones of these blocks, as they are now."""
    stamps = ((key, count, store.stamp(key)) for key, count in keys)
    return [(key, count, *stamp) for key, count, stamp in stamps if stamp is not None]


def summary_name(state: State) -> str:
    """The name of the summary of these blocks."""
    return hashlib.sha256(repr([one[0] for one in state]).encode()).hexdigest()


def changed_just_now(state: State) -> bool:
    """Whether a file is so new that another change might leave its time of change as it is."""
    return any(one[3] > time.time_ns() - _SETTLED for one in state)


def write_summary(folder: Path, name: str, summary: CellSummary, state: State) -> None:
    """Write the summary of a cell below `folder`. Where it cannot be written, nothing is: it will be made again."""
    samples, digest = _samples_bytes(summary.samples)
    place = folder / "samples" / digest
    if place.exists() or write_derived(place, samples):
        write_derived(folder / name, zlib.compress(_text(summary, digest, state).encode(), 1))


def read_summary(folder: Path, name: str, state: State) -> CellSummary | None:
    """The summary of a cell, without its error and its plan; None where there is none that was made of these files here."""
    try:
        content = read_derived(folder / name)
        if content is None:
            return None
        fields = json.loads(zlib.decompress(content))
        if fields["version"] != _VERSION or fields["state"] != json.loads(json.dumps(state)):
            return None
        samples = _read_samples(_secret(), folder / "samples" / fields["samples"])
        return None if samples is None else _summary(fields, samples)
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None


def write_derived(path: Path, content: bytes) -> bool:
    """Write what follows from stored blocks under the seal of this user and machine; False where it cannot be written."""
    key = _secret()
    try:
        if key is not None:
            _put(path, _sealed(key, content))
        return key is not None
    except OSError:
        return False


def read_derived(path: Path) -> bytes | None:
    """What `write_derived` wrote here; None where nothing was, or somebody else did. Raises OSError where there is no file."""
    key = _secret()
    return None if key is None else _opened(key, path.read_bytes())


def _text(summary: CellSummary, samples: str, state: State) -> str:
    fields: dict[str, Any] = {name: getattr(summary, name) for name in _PLAIN}
    fields |= {name: _bits_text(getattr(summary, name)) for name in _ARRAYS}
    fields |= {name: _coded_text(getattr(summary, name)) for name in _CODED}
    fields |= {
        "version": _VERSION,
        "state": state,
        "samples": samples,
        "cell": dataclasses.asdict(summary.cell),
        "blocks": [[block.key, block.data, block.time, block.commit] for block in summary.blocks],
        "severities": list(summary.severities.items()),
        "costs": dataclasses.asdict(summary.costs),
        "flags": [flag.fields() for flag in summary.flags],
        "techniques": sorted(summary.techniques),
        "stage_techniques": dict(summary.stage_techniques),
    }
    return json.dumps(fields)


def _summary(fields: Mapping[str, Any], samples: SampleSet) -> CellSummary:
    n = len(samples)
    plain: dict[str, Any] = {name: fields[name] for name in _PLAIN}
    plain |= {name: _read_bits(fields[name], n) for name in _ARRAYS}
    plain |= {name: _read_coded(fields[name], n) for name in _CODED}
    return CellSummary(
        cell=CellInfo.read(fields["cell"]),
        blocks=tuple(BlockNote(key, data, time, commit, True) for key, data, time, commit in fields["blocks"]),
        samples=samples,
        severities=dict(fields["severities"]),
        costs=Costs(**fields["costs"]),
        flags=tuple(Flag.read(flag) for flag in fields["flags"]),
        techniques=frozenset(fields["techniques"]),
        stage_techniques=fields["stage_techniques"],
        **plain,
    )


def _bits_text(bits: npt.NDArray[np.bool_] | None) -> str | None:
    return None if bits is None else base64.b64encode(np.packbits(bits).tobytes()).decode()


def _read_bits(text: str | None, n: int) -> npt.NDArray[np.bool_] | None:
    if text is None:
        return None
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=n).astype(np.bool_)


def _coded_text(column: Coded[str] | Coded[float] | None) -> list[Any] | None:
    """Values, and each sample's code; a value that is the only one needs none, of two a bit decides."""
    if column is None:
        return None
    codes = column.codes
    raw = (
        b"" if len(column.values) < 2 else np.packbits(codes).tobytes() if len(column.values) == 2 else codes.tobytes()
    )
    return [list(column.values), codes.dtype.str, base64.b64encode(raw).decode()]


def _read_coded(fields: Any, n: int) -> Coded[Any] | None:
    if fields is None:
        return None
    values, dtype, text = fields
    raw = base64.b64decode(text)
    if len(values) < 2:
        codes = np.zeros(n, np.uint8)
    elif len(values) == 2:
        codes = np.unpackbits(np.frombuffer(raw, np.uint8), count=n)
    else:
        codes = np.frombuffer(raw, np.dtype(dtype))
    if len(codes) != n:
        raise ValueError(f"a column has {len(codes)} entries instead of {n}")
    return Coded(tuple(values), codes)


@lru_cache(maxsize=8)
def _samples_bytes(samples: SampleSet) -> tuple[bytes, str]:
    """The samples as the content of a file, and its name. Cells that follow each other often share their samples."""
    content = zlib.compress(json.dumps([samples.names, samples.label.tolist()]).encode(), 1)
    return content, hashlib.sha256(content).hexdigest()[:32]


@cache
def _read_samples(key: bytes | None, path: Path) -> SampleSet | None:
    """The samples of a file; `key` is the secret that seals it, so that another one reads anew."""
    content = read_derived(path)
    if content is None:
        path.unlink(missing_ok=True)
        return None
    ids, labels = json.loads(zlib.decompress(content))
    return sample_set(np.array(ids, dtype=np.str_), np.array(labels, dtype=np.int64))


def _put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. It is not flushed to the disk: the seal shows what a crash has left of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.write_bytes(content)
    temporary.replace(path)


def _sealed(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, "sha256") + content


def _opened(key: bytes, sealed: bytes) -> bytes | None:
    seal, content = sealed[:32], sealed[32:]
    return content if hmac.compare_digest(seal, hmac.digest(key, content, "sha256")) else None


@cache
def _secret() -> bytes | None:
    """The secret of this user on this machine, made when it is asked for first; None where it cannot be kept."""
    try:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gauntlet" / "summary-secret"
        if not path.exists():
            secret = secrets.token_bytes(32)
            write_once(path, lambda file: file.write(secret))
            path.chmod(0o600)
        secret = path.read_bytes()
        return secret if len(secret) == 32 else None
    except (OSError, RuntimeError):  # no home, or one that cannot be written, as WriteError or otherwise
        return None
