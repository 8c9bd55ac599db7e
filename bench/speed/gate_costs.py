"""The cost of a gate: its share of a full run's passes, on an embedded model and on changed models with a known loss.

The changes imitate those between two commits: none, some more adversarial training, and increasing amounts of standard
training.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.config.schema import Config, DataRef, Group, ModelRef
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.gate.accept_baseline import pack_run
from gauntlet.bench.gate.artifact import unpack
from gauntlet.bench.gate.early_run import EarlyGate, early_cell
from gauntlet.bench.gate.early_stopping import CHUNK
from gauntlet.bench.gate.snapshot import snapshot
from gauntlet.bench.models.load_model import LoadedModel, load_model
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.defenses.training.pgd import RECIPE as ADVERSARIAL
from gauntlet.defenses.training.standard import RECIPE as STANDARD
from gauntlet.leaderboard.gate.baseline import Baseline, Test
from gauntlet.leaderboard.gate.judge import judge
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.sequential_test import sequential_decision
from gauntlet.leaderboard.gate.trace import Trace
from gauntlet.leaderboard.results.atomic_files import replace_files

_REF = ModelRef("memory:model.changed")
_BATCH = 100


@dataclass(frozen=True)
class ModelChange:
    """A change of a model: steps of Adam with a learning rate, with or without attacks. No steps: no change."""

    name: str
    steps: int
    rate: float = 1e-3
    adversarial: bool = False


CHANGES = (
    ModelChange("none", 0),
    ModelChange("5 adversarial steps, rate 1e-5", 5, 1e-5, adversarial=True),
    ModelChange("20 adversarial steps, rate 1e-5", 20, 1e-5, adversarial=True),
    ModelChange("20 adversarial steps, rate 1e-4", 20, 1e-4, adversarial=True),
    *(ModelChange(f"{steps} standard steps, rate 1e-4", steps, 1e-4) for steps in (5, 10, 20, 40, 90, 180)),
    ModelChange("30 standard steps, rate 1e-3", 30),
)


GATES: tuple[tuple[Test, bool], ...] = (("sequential", True), ("sequential", False), ("fixed", True))
"""The gates: test, and whether examples are replayed."""


@dataclass(frozen=True)
class GateCost:
    """The cost of a gate on a changed model."""

    model: str
    change: str
    lost: float
    """Share of samples that are robust in the baseline and broken in a full run of the changed model, without replay."""
    gained: float
    test: str
    """`sequential` or `fixed`, the latter curtailed."""
    replay: bool
    verdict: str
    samples: int
    """Number of samples that the gate evaluated."""
    share: float
    """Forward and backward passes, as a share of those of the full run of the changed model."""
    mean_share: float
    """For a sequential test, the mean share over 200 random orders of the samples (a single order may be lucky); else NaN."""


def gate_costs(
    model: str,
    *,
    attack: str = "gauntlet",
    threat: str = "Linf:0.15",
    progress: Callable[[str], None] = lambda line: None,
) -> Iterator[GateCost]:
    """Change an embedded model in several ways, and gate each change by both tests, with and without replay.

    Raises ValueError or LookupError for unknown names.
    """
    first = load_model(model).module
    with tempfile.TemporaryDirectory(prefix="gauntlet-costs-") as folder:
        old = _full(_engine(Path(folder, "old"), first, attack, threat))
        for number, change in enumerate(CHANGES):
            progress(f"{model}: {change.name}")
            changed = _changed(first, change, ThreatModel.parse(threat), number)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                yield from _costs(model, old, changed, change, Path(scratch), (attack, threat))


def _costs(
    name: str, old: Engine, changed: Classifier, change: ModelChange, folder: Path, attack_and_threat: tuple[str, str]
) -> Iterator[GateCost]:
    new = _full(_engine(folder / "new", changed, *attack_and_threat))
    (before,), (after,) = snapshot(old.run).cells, snapshot(new.run).cells
    whole = after.forwards + after.backwards
    mean = _over_orders(new, before.robust.astype(np.int64) - after.robust.astype(np.int64))
    ref = pack_run(folder / "baseline.json", old.run, old.workbench)
    for test, replayed in GATES:
        out = folder / f"{test}-{replayed}"
        baseline = replace(snapshot(old.run), test=test, artifact=ref)
        artifact = unpack(folder / ref.file, ref, out / "gate") if replayed else None
        gate = EarlyGate(baseline, Policy(), artifact, "" if replayed else "no replay")
        trace, verdict = _gated(_engine(out, changed, *attack_and_threat), gate)
        yield GateCost(
            model=name,
            change=change.name,
            lost=float((before.robust & ~after.robust).mean()),
            gained=float((~before.robust & after.robust).mean()),
            test=test,
            replay=replayed,
            verdict=verdict,
            samples=len(trace.order),
            share=trace.computed / whole,
            mean_share=mean if test == "sequential" else float("nan"),
        )


def _over_orders(run: Engine, differences: npt.NDArray[np.int64], orders: int = 200) -> float:
    """The mean share of passes of a sequential gate without stored results and replay."""
    (cell,) = run.run.plan.cells
    blocks = [block.samples for block in run.run.result(cell).blocks]
    passes = np.concatenate([samples.forwards + samples.backwards for samples in blocks])
    shares = []
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(len(passes))
        at = sequential_decision(
            differences[order], margin=Policy().margin, alpha=Policy().alpha, tests=1, both_ways=False
        ).at
        shares.append(passes[order[: -(-at // CHUNK) * CHUNK]].sum() / passes.sum())
    return float(np.mean(shares))


def _engine(out: Path, model: Classifier, attack: str, threat: str) -> Engine:
    data = DataRef("digits")
    config = Config((Group((_REF,), ("none",), (attack,), (threat,), data),), out=out, checks="none")
    engine = Engine(make_plan(config), config, command="gauntlet gate-costs")
    engine.workbench.put_data(data, load_data("digits"))
    engine.workbench.put_model(_REF, LoadedModel("changed", model, _REF.spec, None, model_digest(model), ""))
    return engine


def _full(engine: Engine) -> Engine:
    for cell in engine.run.plan.cells:
        result = engine.cell(cell)
        if result.error is not None:
            raise RuntimeError(f"{result.error.kind}: {result.error.message}")
    return engine


def _gated(engine: Engine, gate: EarlyGate) -> tuple[Trace, str]:
    (cell,) = engine.run.plan.cells
    trace = early_cell(engine, cell, gate)
    if not isinstance(trace, Trace):
        raise RuntimeError(str(trace.error))
    empty: Baseline = snapshot(engine.run)
    (verdict,) = judge(gate.baseline, empty, gate.policy, [trace]).verdicts
    return trace, verdict.verdict


def _changed(first: Classifier, change: ModelChange, threat: ThreatModel, seed: int) -> Classifier:
    model = copy.deepcopy(first)
    if not change.steps:
        return model
    data, drawn = load_data("digits-train"), torch.Generator().manual_seed(seed)
    loss = (ADVERSARIAL if change.adversarial else STANDARD).loss
    _unfrozen(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=change.rate)
    for _ in range(change.steps):
        chosen = torch.randint(len(data.labels), (_BATCH,), generator=drawn)
        optimiser.zero_grad()
        loss(model, data.images[chosen], data.labels[chosen], threat, drawn).backward()
        optimiser.step()
    return model.eval()


def _unfrozen(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def measure_gate_costs(models: Sequence[str], out: Path, progress: Callable[[str], None]) -> str:
    """Measure, and write `gate-costs.md` and `gate-costs.csv` (a line per gate) to `out` after each change; returns the Markdown.

    Raises as `gate_costs` does, and OSError.
    """
    costs: list[GateCost] = []
    out.mkdir(parents=True, exist_ok=True)
    for model in models:
        for cost in gate_costs(model, progress=progress):
            costs.append(cost)
            replace_files(
                {
                    out / "gate-costs.md": table(costs).encode(),
                    out / "gate-costs.csv": pd.DataFrame(costs).to_csv(index=False).encode(),
                }
            )
    return table(costs)


def table(costs: Sequence[GateCost]) -> str:
    """A Markdown table with a row per change: samples, share of the passes and verdict of each gate."""
    frame = pd.DataFrame(costs)
    heads = [f"{test}{', replay' if replayed else ''}" for test, replayed in GATES]
    lines = [
        f"| model | change | lost % | gained % | {' | '.join(heads)} | sequential, mean of 200 orders |",
        "|---|---|--:|--:|" + "--:|" * (len(GATES) + 1),
    ]
    for (model, change), rows in frame.groupby(["model", "change"], sort=False):
        known = {(row.test, row.replay): row for row in rows.itertuples()}
        cells = [_cell(known[gate]) if gate in known else "" for gate in GATES]
        first = rows.iloc[0]
        flips = f"{100 * first.lost:.1f} | {100 * first.gained:.1f}"
        lines.append(f"| {model} | {change} | {flips} | {' | '.join(cells)} | {first.mean_share:.2f} |")
    return "\n".join(lines) + "\n"


def _cell(cost: Any) -> str:
    return f"{cost.share:.2f} {cost.verdict} ({cost.samples})"
