"""The result of `gauntlet.evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gauntlet.attacks.ops.norms import limit
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.report import html
from gauntlet.leaderboard.report.cell_text import attack_settings, describe_cell
from gauntlet.leaderboard.report.formatting import target_meaning
from gauntlet.leaderboard.report.notes import checks_off, evaluation_notes, phrased
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import DRAWS, CellResult, Flag
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.corruptions import CorruptionAccuracy
from gauntlet.leaderboard.rows.evidence import describe_lifted
from gauntlet.leaderboard.rows.worst_case import deciding
from gauntlet.leaderboard.stats.proportions import Proportion

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.figure import Figure


class CellFailedError(RuntimeError):
    """An attack failed, so there is no worst case; the message names the attack and the reason."""


class Accuracy(float):
    """A share of correct samples in [0, 1], with its 95 % interval."""

    n: int
    """Number of samples."""
    interval: tuple[float, float]
    """95 % Clopper-Pearson interval; it covers sampling only."""
    _proportion: Proportion

    def __new__(cls, proportion: Proportion) -> Accuracy:
        """The accuracy of a proportion."""
        made = super().__new__(cls, proportion.estimate)
        made.n, made.interval = proportion.n, proportion.interval
        made._proportion = proportion
        return made

    @property
    def proportion(self) -> Proportion:
        """The number of correct samples among all."""
        return self._proportion

    def __getnewargs__(self) -> tuple[Any, ...]:
        # The argument of __new__ when copying and unpickling; by default, a float passes its number.
        return (self._proportion,)

    def __repr__(self) -> str:
        low, high = self.interval
        return f"{100 * self:.1f} % [{100 * low:.1f}, {100 * high:.1f}] (n={self.n})"


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """The evaluation of a model under a threat model. Per-sample fields are in the order of the images."""

    threat: ThreatModel
    clean_accuracy: Accuracy
    robust_accuracy: Accuracy
    """In the worst case over the attacks: an upper bound of the true robust accuracy."""
    correct: Tensor
    """bool (N,), classified correctly when clean."""
    robust: Tensor
    """bool (N,), correct when clean and under every attack (targeted: never classified as the target)."""
    success: Tensor
    """float64 (N,), the probability that the worst example is misclassified. For a deterministic model 0 or 1; for a randomised
    model the share among fresh draws that were not used to choose the example."""
    success_interval: Tensor
    """float64 (N, 2), the 95 % Clopper-Pearson interval of `success`; for a deterministic model the value itself."""
    adversarials: Tensor
    """(N, C, H, W), the closest verified adversarial example within eps; the clean image if there is none."""
    distance: Tensor
    """float64 (N,), measured distance of the example in the threat model's norm; infinite if there is none."""
    flags: tuple[Flag, ...]
    """Warnings on the robust accuracy, from the checks."""
    per_attack: pd.DataFrame
    """A row for each attack: its result in words, robust accuracy, passes a sample and seconds. `settings` names cascades by
    their digest; see `settings`."""
    corruption: CorruptionAccuracy | None = None
    """Accuracy under common corruptions; None if none was requested."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The settings of each attack in full, by its label."""
    notes: tuple[str, ...] = ()
    """Sentences on why not to trust the robust accuracy, each with the argument that helps; often empty."""
    ids: tuple[str, ...] = ()
    """Ids of the samples."""
    labels: Tensor | None = None
    """int64 (N,)."""
    cells: tuple[CellResult, ...] = ()
    """The records of each attack, in the order of the plan, with their examples: what `save` and `compare` take."""
    run: Run | None = None
    """The plan, and what made the evaluation."""

    def to_pandas(self) -> pd.DataFrame:
        """A line for each sample, with the fields of the same names, and the attacks that broke it, separated by `; `."""
        broken: dict[str, list[str]] = {name: [] for name in self.ids}
        for result in self.cells:
            for block in result.blocks if result.cell.adversarial else ():
                for name in block.samples.id[block.samples.correct & ~block.samples.robust].tolist():
                    broken[str(name)].append(result.cell.attack)
        return pd.DataFrame(
            {
                "id": list(self.ids),
                "label": [] if self.labels is None else self.labels.numpy(),
                "correct": self.correct.numpy(),
                "robust": self.robust.numpy(),
                "success": self.success.numpy(),
                "distance": self.distance.numpy(),
                "broken_by": ["; ".join(dict.fromkeys(attacks)) for attacks in broken.values()],
            }
        )

    def save(self, folder: str | Path) -> None:
        """Write a results folder, as `gauntlet run --out` does, for `gauntlet show`, `gauntlet compare` and `store=`.

        What the folder has already is kept. Raises ValueError for an evaluation without records, StoreError and WriteError.
        """
        from gauntlet.bench.run.save_evaluation import save_results

        if self.run is None:
            raise ValueError("the evaluation has no records: save what gauntlet.evaluate returned")
        save_results(self.run, self.cells, Path(folder))

    def plot(self) -> Figure:
        """A figure of the accuracies, a bar with its 95 % interval for clean images, each attack and the worst case.

        Raises PicturesMissingError if matplotlib is not installed.
        """
        from gauntlet.leaderboard.pictures.bars import accuracy_bars

        attacks = [
            (row["attack"], Proportion(round(row["robust_accuracy"] * len(self.correct)), len(self.correct)))
            for row in self.per_attack.to_dict("records")
        ]
        worst = self.robust_accuracy.proportion
        bars = [("clean", self.clean_accuracy.proportion), *attacks, ("worst case", worst)]
        return accuracy_bars(bars, f"Accuracy under {self.threat}, n = {len(self.correct)}")

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = [["clean", repr(self.clean_accuracy), ""]]
        rows += [[row["attack"], row["result"], f"{row['seconds']:.2f}"] for row in self.per_attack.to_dict("records")]
        rows += [["worst case", repr(self.robust_accuracy), ""]]
        answered = [f"answered ({flag.name}): {describe_lifted(flag)}" for flag in self.flags if flag.lifted_by]
        lines = [*filter(None, [target_meaning(str(self.threat))]), *self.notes, *answered]
        caption = f"Robustness under {self.threat}: the worst case is an upper bound"
        return html.table(caption, ["attack", "accuracy", "seconds"], rows) + html.items(lines)

    def __repr__(self) -> str:
        count = sum(result.startswith("robust") for result in self.per_attack["result"])
        attacks = f"{count} attack{'' if count == 1 else 's'}"
        lines = [
            f"threat model     {self.threat}",
            *filter(None, [target_meaning(str(self.threat))]),
            f"clean accuracy   {self.clean_accuracy!r}",
            f"robust accuracy  {self.robust_accuracy!r}, an upper bound (worst case over {attacks})",
        ]
        lines += [
            f"  {row['attack']:<28} {row['result']}, {row['seconds']:.2f} s, "
            f"{row['forwards_per_sample']:.1f}/{row['backwards_per_sample']:.1f} passes a sample"
            for row in self.per_attack.to_dict("records")
        ]
        if self.corruption is not None:
            mean = self.corruption.mean
            low, high = (100 * end for end in mean.interval)
            figure = f"{100 * mean.estimate:.1f} % [{low:.1f}, {high:.1f}] (n={mean.n})"
            lines.append(f"corruptions      {figure}, the mean over {len(self.corruption.by_label)} corruptions")
        lines += self.notes
        lines += [f"answered ({flag.name}): {describe_lifted(flag)}" for flag in self.flags if flag.lifted_by]
        return "\n".join(lines)


def collect(
    results: Sequence[CellResult],
    stored: Sequence[CellResult],
    data: Data,
    threat: str,
    *,
    checks: str = "default",
    run: Run | None = None,
) -> Evaluation:
    """Combine the cells of a model. `stored`: the same cells with their adversarial examples; `checks`: those that were run;
    `run`: the plan whose cells these are.

    Raises CellFailedError if a cell failed; beside attacks a certificate that failed is a flag instead.
    """
    # All attacks form one row, whatever their suites.
    together = [replace(result, cell=replace(result.cell, suite="")) for result in results]
    decisive = deciding(together)
    for result in [*decisive, *(result for result in together if result.cell.corrupts)]:
        if result.error is not None:
            failure = f"attack {result.cell.attack!r} failed: {result.error.kind}: {result.error.message}"
            raise CellFailedError(phrased(failure, "python"))
    (row,) = build_rows(together)
    worst = row.worst_case
    if row.bracket is not None and row.bracket.alarm:
        raise CellFailedError(row.bracket.alarm)
    parsed = ThreatModel.parse(threat)
    place = {name: number for number, name in enumerate(data.ids)}
    correct = np.zeros(len(data), dtype=bool)
    robust = np.zeros(len(data), dtype=bool)
    success = np.zeros(len(data))
    for number, name in enumerate(worst.id):
        robust[place[str(name)]] = bool(worst.robust[number])
        success[place[str(name)]] = worst.success[number]
    random = any(result.cell.randomised for result in results)
    ends = [Proportion(round(DRAWS * one), DRAWS).interval if random else (one, one) for one in success.tolist()]
    adversarials, distance = data.images[:].clone(), np.full(len(data), np.inf)
    for result in stored:
        for block in result.blocks:
            samples = block.samples
            for number, image in enumerate(samples.adversarial):
                at = place[str(samples.id[number])]
                # For a randomised model, an example counts only if fresh draws confirm it.
                counts = image is not None and not samples.robust[number] and not robust[at]
                if counts and samples.distance[number] <= limit(parsed) and samples.distance[number] < distance[at]:
                    distance[at] = samples.distance[number]
                    adversarials[at] = torch.tensor(image)
    for block in decisive[0].blocks:
        for number, name in enumerate(block.samples.id):
            correct[place[str(name)]] = bool(block.samples.correct[number])
    n = len(data)
    table = [
        {
            "attack": result.cell.attack,
            "result": describe_cell(result),
            "settings": attack_settings(result.cell.attack_spec),
            "precision": cells.precision(result),
            "robust_accuracy": sum(int(block.samples.robust.sum()) for block in result.blocks) / n,
            "n": cells.covered(result),
            "seconds": cost.seconds,
            "forwards_per_sample": cost.forwards_per_sample,
            "backwards_per_sample": cost.backwards_per_sample,
            "peak_memory_mib": cost.peak_memory_mib,
            "occupancy": result.blocks[-1].stats.occupancy if result.blocks else None,
            "candidates_rejected": cost.candidates_rejected,
        }
        for result in decisive
        for cost in (cells.costs(result),)
    ]
    return Evaluation(
        threat=parsed,
        clean_accuracy=Accuracy(Proportion(int(correct.sum()), n)),
        robust_accuracy=Accuracy(Proportion(int(robust.sum()), n)),
        correct=torch.from_numpy(correct),
        robust=torch.from_numpy(robust),
        success=torch.from_numpy(success),
        success_interval=torch.tensor(ends, dtype=torch.float64).view(-1, 2),
        adversarials=adversarials,
        distance=torch.from_numpy(distance),
        flags=row.flags,
        per_attack=pd.DataFrame(table),
        corruption=row.corruption,
        settings={result.cell.attack: result.cell.attack_spec for result in decisive},
        ids=data.ids,
        labels=data.labels.cpu(),
        cells=tuple(stored),
        run=run,
        notes=(*evaluation_notes(row), *([checks_off("python")] if checks == "none" else [])),
    )
