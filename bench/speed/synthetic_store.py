"""Results folders with made-up outcomes, as large as is asked for: what commands on stored results are measured on.

No model is run. Ids, verdicts, passes, stages and flags look as those of attacks do; every block is a block file like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.settings import Named
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.schema import DataRef, ModelRef
from gauntlet.bench.planning.plan import Plan
from gauntlet.bench.run.run_folder import Run, start_run
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.results.block_file import to_bytes
from gauntlet.leaderboard.results.record import CellInfo, Flag, Record, Samples, Stats

BLOCK: Final = 100
CLASSES: Final = 10
_STAGES: Final = {"apgd-ce": "white-box", "apgd-t": "white-box", "fab-t": "white-box", "square": "black-box"}


@dataclass(frozen=True)
class Attack:
    """An attack of the made-up runs."""

    label: str
    kind: str = "white-box"
    strength: float = 0.5
    """How many samples it breaks, from 0 to 1."""
    passes: float = 100.0
    stages: bool = False
    minimum_norm: bool = False


ATTACKS: Final = (
    Attack("gauntlet", strength=0.9, stages=True),
    Attack("adaptive", strength=0.88, stages=True),
    Attack("replay", kind="transfer", strength=0.6, passes=3),
    Attack("certificate", kind="certificate", strength=0.0, passes=2),
    Attack("fgsm", strength=0.4, passes=1),
    Attack("pgd", strength=0.7),
    Attack("apgd", strength=0.8),
    Attack("apgd-t", strength=0.85, passes=900),
    Attack("square", kind="black-box", strength=0.65, passes=1000),
    Attack("fmn", strength=0.8, passes=200, minimum_norm=True),
)
"""The first ones are used where fewer are asked for."""


@dataclass(frozen=True)
class StoreSize:
    """How large a store is made: every model faces every attack on the same samples."""

    models: int
    attacks: int
    samples: int
    shape: tuple[int, int, int] | None = None
    """Of the examples of broken samples; None: no examples are kept."""


def make_store(folder: Path, size: StoreSize) -> Run:
    """Make a results folder with one run of `size.models` × `size.attacks` cells. Raises ValueError for too many attacks."""
    if not 1 <= size.attacks <= len(ATTACKS):
        raise ValueError(f"attacks {size.attacks!r} must lie between 1 and {len(ATTACKS)}")
    pairs = [(model, attack) for model in range(size.models) for attack in ATTACKS[: size.attacks]]
    cells = [_cell(model, attack) for model, attack in pairs]
    context = RunContext(
        ("Linf:8/255",), "made-up", {"python": "3"}, "cpu", 0, "made up", str(folder), "2026-01-02T00:00:00+00:00"
    )
    run = start_run(folder, Plan(tuple(cells)), context)
    for cell, (model, attack) in zip(cells, pairs, strict=True):
        keys = []
        for record in _records(cell.info, model, attack, size):
            path = run.store.path(record.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made-up blocks can be made again: they are not flushed to the disk one by one.
            path.write_bytes(to_bytes(record))
            keys.append((record.key, len(record.samples)))
        run.note_keys(cell, keys)
    return run


def _cell(model: int, attack: Attack) -> Cell:
    name = f"model_{model:04d}.made_up"
    info = CellInfo(
        model=name,
        defense="none",
        attack=attack.label,
        attack_spec=f"{attack.label}:steps=100,restarts=1,loss=ce",
        attack_kind=attack.kind,
        norm="Linf",
        eps=8 / 255,
        threat="Linf:8/255",
        suite="adaptive",
        data="made-up",
        seed=0,
        minimum_norm=attack.minimum_norm,
        role="replay" if attack.label == "replay" else "",
    )
    return Cell(
        info, ModelRef(name), Named("none"), Named(attack.label), ThreatModel.parse("Linf:8/255"), DataRef("made-up")
    )


def _records(planned: CellInfo, model: int, attack: Attack, size: StoreSize) -> Iterator[Record]:
    by_stage = _STAGES if attack.stages else {"": "black-box" if attack.kind == "black-box" else "white-box"}
    info = replace(planned, techniques={} if planned.proves else by_stage)
    whole = np.random.default_rng([model, 0]).random((2, size.samples))
    own = np.random.default_rng([model, 1 + ATTACKS.index(attack)])
    skill = 0.25 + 0.5 * (model % 97) / 97
    for number, first in enumerate(range(0, size.samples, BLOCK)):
        places = np.arange(first, min(first + BLOCK, size.samples))
        samples = _samples(places, whole[:, places], skill, attack, own, size)
        if planned.proves:
            samples = replace(samples, certified=samples.robust & (whole[1, places] < skill / 2))
        yield Record(
            key=hashlib.sha256(f"{planned.model} {attack.label} {number}".encode()).hexdigest(),
            cell=info,
            samples=samples,
            stats=Stats(12.5, 700.0, candidates_rejected=1, masked=0),
            flags=_flags(model, attack),
            provenance=_provenance(model, number),
        )


def _samples(
    places: npt.NDArray[np.int64],
    chances: npt.NDArray[np.float64],
    skill: float,
    attack: Attack,
    own: np.random.Generator,
    size: StoreSize,
) -> Samples:
    n = len(places)
    label = places % CLASSES
    correct = chances[0] < 0.7 + skill / 4
    robust = correct & ~((chances[1] > skill) & (own.random(n) < attack.strength))
    broken = correct & ~robust
    wrong = (~robust).astype(np.float64)
    other = (label + 1) % CLASSES
    stages = list(_STAGES)
    fell = np.where(broken, own.integers(0, 3, n), len(stages) - 1)
    spent = np.where(correct, np.where(broken, np.ceil(attack.passes * own.random(n)), attack.passes), 0.0)
    images: list[Any] = [None] * n
    if size.shape is not None:
        images = [own.random(size.shape, np.float32) if fallen else None for fallen in broken]
    return Samples(
        id=np.array([f"made-up:{place:05d}" for place in places]),
        label=label,
        clean_prediction=np.where(correct, label, other),
        prediction=np.where(robust, label, other),
        robust=robust,
        distance=np.where(broken, 7.9 / 255, np.nan),
        margin=np.where(robust, 1.0, -1.0) * own.random(n),
        forwards=spent,
        backwards=spent,
        steps=np.where(broken, spent, -1).astype(np.int64),
        wrong_share=wrong,
        wrong_share_scored=wrong,
        adversarial=images,
        stage=[stages[at] if fallen else "" for at, fallen in zip(fell, broken, strict=True)] if attack.stages else (),
        faced=[" ".join(stages[: at + 1]) if right else "" for at, right in zip(fell, correct, strict=True)]
        if attack.stages
        else (),
    )


def _flags(model: int, attack: Attack) -> tuple[Flag, ...]:
    if model % 7 or not attack.stages:
        return ()
    return (
        Flag(
            "zero-gradient",
            "block",
            f"{model % 50} samples have no gradient: it is masked. Attack without it: --attacks adaptive",
            needs=("black-box",),
            evidence=(("samples", float(model % 50)),),
        ),
    )


def _provenance(model: int, number: int) -> dict[str, Any]:
    return {
        "time": f"2026-01-01T00:{model % 60:02d}:{number % 60:02d}+00:00",
        "commit": "0" * 40,
        "dirty": False,
        "versions": {"python": "3.11.7", "torch": "2.9.0", "numpy": "2.3.0", "scipy": "1.16.0", "pandas": "2.3.0"},
        "device": "cpu (1 threads)",
        "platform": "Linux",
        "determinism": {"deterministic_algorithms": False, "cudnn_benchmark": False, "tf32": False},
        "argv": ["gauntlet", "run", "--model", f"model_{model:04d}.made_up", "--attacks", "adaptive"],
        "weights": f"{model:064x}",
        "data": f"images of block {number}",
    }
