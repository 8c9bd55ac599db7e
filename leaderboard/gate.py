"""The gate: did a change lose robustness? A paired verdict for each cell, with known error rates.

*regressed*: the one-sided exact McNemar test finds a drop, with Holm's correction over the cells that are compared. The
chance that any cell without a drop is called regressed is at most alpha. It takes precedence over all other verdicts.

*held*: the one-sided upper bound of the drop (`paired.drop_upper`: Tango's score method, never below the exact bound for
one-way flips; confidence 1 - alpha) is below the margin. Each cell is judged at level alpha without a correction, because the
gate passes only where *every* cell is held: if some cell dropped by the margin or more, the chance to pass is at most that of
calling this one cell held, which is alpha (an intersection-union test: Berger, Technometrics 24, 1982). That level is
approximate where flips are many: exact enumeration gives at most 5.1 % at alpha 5 % and a margin of 2 points.

*suspicious*: a significant rise (the same test the other way round, Holm over the cells) though the weights are the
baseline's: a weaker attack looks like a stronger model. With other weights a rise is reported as an improvement.

*undecided*: none of these; where such cells may pass, nothing is promised of them. *incomparable*: other data, samples or
threat model, a cell that is missing on either side, has failed or is not finished. A gate that compared nothing does not pass.

Bits of a randomised model are majority verdicts over fresh draws, one for each sample: the tests say whether these changed.
Between two runs of the same model they flip either way equally often, so that false alarms stay below alpha.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gauntlet.leaderboard.baseline import Baseline, BaselineCell, Key
from gauntlet.leaderboard.gate_limits import below_floors, costs, over_budget
from gauntlet.leaderboard.gate_report import CellVerdict, GateReport, Verdict
from gauntlet.leaderboard.paired import drop_upper, needed_n
from gauntlet.leaderboard.statistics import PairedTest, holm, mcnemar

__all__ = ["CellVerdict", "GateReport", "Policy", "Verdict", "judge"]


@dataclass(frozen=True)
class Policy:
    """What a gate asks for. Raises ValueError for a value that makes no sense."""

    alpha: float = 0.05
    """Chance of a false alarm among all cells, and of passing a drop as large as the margin."""
    margin: float = 0.02
    """The drop that must be ruled out, a share of the samples."""
    min_robust: float | Mapping[str, float] | None = None
    """Floor of the robust accuracy, 0..1, in the worst case over a model's cells: one for all, or by a pattern with shell
    wildcards of the model's or the suite's name. It is the observed accuracy that is held against it."""
    allow_undecided: bool = False
    """Whether undecided cells may pass."""
    max_passes_ratio: float = 1.25
    """Most forward and backward passes of a cell, as a multiple of the baseline's."""
    max_memory_ratio: float = 1.5
    """Most peak memory of a cell, likewise."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("alpha", self.alpha, 0, 0.5),
            ("margin", self.margin, 0, 1),
            ("max_passes_ratio", self.max_passes_ratio, 0, np.inf),
            ("max_memory_ratio", self.max_memory_ratio, 0, np.inf),
        ):
            if not low < value < high:
                raise ValueError(f"{name} {value!r} must lie between {low} and {high}, both excluded")
        for pattern, floor in self.floors.items():
            if not 0 <= floor <= 1:
                raise ValueError(f"min_robust {floor!r} of {pattern!r} must be a share in 0..1, such as 0.5")

    @property
    def floors(self) -> Mapping[str, float]:
        """Floors by pattern."""
        if self.min_robust is None:
            return {}
        return self.min_robust if isinstance(self.min_robust, Mapping) else {"*": self.min_robust}


def judge(baseline: Baseline, current: Baseline, policy: Policy) -> GateReport:
    """Compare a run with its baseline, cell by cell; nothing is run or read.

    Cells are matched by their key; where that leaves one over on either side that differs in the seed alone, they are
    compared too, because the question is about the model and not about a seed.
    """
    pairs = _pairs(baseline.cells, current.cells)
    obstacles = [_obstacle(old, new) for old, new in pairs]
    compared = [
        (old, new)
        for (old, new), obstacle in zip(pairs, obstacles, strict=True)
        if old is not None and new is not None and not obstacle
    ]
    judged = iter(_judged(compared, policy))
    verdicts = [
        CellVerdict(_title(old, new), "incomparable", obstacle, key=new.key if new else None)
        if obstacle
        else next(judged)
        for (old, new), obstacle in zip(pairs, obstacles, strict=True)
    ]
    if not pairs:
        verdicts.append(CellVerdict("all cells", "incomparable", "Neither the baseline nor the run has a cell."))
    problems = (
        *over_budget(compared, policy.max_passes_ratio, policy.max_memory_ratio),
        *below_floors(current.cells, policy.floors),
    )
    fine = {"held", "undecided"} if policy.allow_undecided else {"held"}
    passed = not problems and all(verdict.verdict in fine for verdict in verdicts)
    return GateReport(tuple(verdicts), problems, passed, costs(compared))


_Pair = tuple[BaselineCell | None, BaselineCell | None]


def _pairs(old: Sequence[BaselineCell], new: Sequence[BaselineCell]) -> list[_Pair]:
    """Each cell with its partner: the one of the same key, else the only one left that differs in the seed, else in the data
    or threat model (which `_obstacle` names), else none."""
    partner: dict[Key, BaselineCell] = {}
    left = list(new)
    for length in (7, 6, 3):
        waiting = Counter(cell.key[:length] for cell in old if cell.key not in partner)
        offered = Counter(cell.key[:length] for cell in left)
        single = {part for part, count in waiting.items() if count == offered[part] == 1}
        found = {cell.key[:length]: cell for cell in left if cell.key[:length] in single}
        for cell in old:
            if cell.key not in partner and cell.key[:length] in single:
                partner[cell.key] = found[cell.key[:length]]
        left = [cell for cell in left if cell.key[:length] not in single]
    return [*((cell, partner.get(cell.key)) for cell in old), *((None, cell) for cell in left)]


def _obstacle(old: BaselineCell | None, new: BaselineCell | None) -> str:
    """Why the two cannot be compared, a sentence; empty where they can."""
    if old is None:
        return "The baseline lacks this cell: accept a new baseline that has it."
    if new is None:
        return "The run lacks this cell: run what the baseline ran, or accept a new baseline without it."
    for name, cell in (("the baseline", old), ("the run", new)):
        if cell.status == "error":
            return f"The cell failed in {name} ({cell.error}): run it again."
        if cell.status != "ok" or not cell.n:
            return f"The cell is not finished in {name} ({cell.n} samples): run it again."
        if not cell.data_digest:
            return (
                f"What images {name} was made on is not recorded: run it again with --fresh into another --out folder."
            )
    names = {"threat": "threat model", "suite": "suite", "data": "data", "n": "number of samples"}
    other = [
        f"{text} {getattr(old, name)} → {getattr(new, name)}"
        for name, text in names.items()
        if getattr(old, name) != getattr(new, name)
    ]
    if not other and old.data_digest != new.data_digest:
        other = ["images, labels, or sample ids and their order"]
    return (
        f"Not the same question: other {', '.join(other)}. Run what the baseline ran, or accept anew." if other else ""
    )


def _title(old: BaselineCell | None, new: BaselineCell | None) -> str:
    cell = new or old
    return f"{cell.title}, seed {cell.seed}" if cell else ""


def _judged(pairs: Sequence[tuple[BaselineCell, BaselineCell]], policy: Policy) -> list[CellVerdict]:
    drops = [mcnemar(old.robust, new.robust, "greater") for old, new in pairs]
    rises = [mcnemar(old.robust, new.robust, "less") for old, new in pairs]
    fallen, risen = (holm([test.p_value for test in tests]) for tests in (drops, rises))
    return [
        _verdict(old, new, drop, rise, (float(p_drop), float(p_rise)), len(pairs), policy)
        for (old, new), drop, rise, p_drop, p_rise in zip(pairs, drops, rises, fallen, risen, strict=True)
    ]


def _verdict(
    old: BaselineCell,
    new: BaselineCell,
    drop: PairedTest,
    rise: PairedTest,
    adjusted: tuple[float, float],
    tests: int,
    policy: Policy,
) -> CellVerdict:
    lost, gained, n = drop.only_first, drop.only_second, old.n
    upper = drop_upper(lost, gained, n, 1 - policy.alpha)
    risen = adjusted[1] < policy.alpha
    verdict: Verdict
    if adjusted[0] < policy.alpha:
        verdict = "regressed"
    elif risen and old.weights and old.weights == new.weights:
        verdict = "suspicious"
    else:
        verdict = "held" if upper < policy.margin else "undecided"
    test, p = (rise, adjusted[1]) if verdict == "suspicious" else (drop, adjusted[0])
    before, now = float(old.robust.mean()), float(new.robust.mean())
    figures = (
        f"{100 * before:.1f} % → {100 * now:.1f} % (n={n}; {lost} lost, {gained} gained; "
        f"drop {100 * (lost - gained) / n:.1f}, at most {100 * upper:.1f}; p={test.p_value:.2g}, Holm {p:.2g})"
    )
    notes = []
    if verdict == "suspicious":
        notes.append("robustness rose though the weights are the baseline's: is the attack weaker? If not, accept anew")
    elif risen:
        notes.append("improved")
    if verdict == "undecided":
        needed = needed_n(lost, gained, n, margin=policy.margin, alpha=policy.alpha, tests=tests)
        notes.append(f"about {needed:,} samples would decide if flips go on at this rate")
    if old.spec != new.spec:
        notes.append("the attack's settings are not the baseline's")
    if old.seed != new.seed:
        notes.append(f"the baseline's seed was {old.seed}")
    if old.randomised or new.randomised:
        notes.append("randomised: bits are majority verdicts over fresh draws")
    return CellVerdict(
        title=_title(old, new),
        verdict=verdict,
        sentence="; ".join([figures, *notes]),
        lost=lost,
        gained=gained,
        n=n,
        p_value=p,
        upper=upper,
        baseline_robust=before,
        robust=now,
        key=new.key,
        lost_at=tuple(int(at) for at in np.flatnonzero(old.robust & ~new.robust)),
    )
