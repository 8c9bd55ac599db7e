"""The result of `gauntlet.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gauntlet.attacks.ops.norms import limit
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.leaderboard.report.formatting import target_meaning
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import DRAWS, CellResult, Flag
from gauntlet.leaderboard.rows.answered import answered_by, lift
from gauntlet.leaderboard.rows.bracket import bracket
from gauntlet.leaderboard.rows.corruptions import CorruptionAccuracy, corruption_accuracy
from gauntlet.leaderboard.rows.crosschecks import cross_flags
from gauntlet.leaderboard.rows.worst_case import deciding, worst_case
from gauntlet.leaderboard.stats.proportions import Proportion


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
    """A row for each attack: robust accuracy, passes a sample and seconds."""
    corruption: CorruptionAccuracy | None = None
    """Accuracy under common corruptions; None if none was requested."""

    def __repr__(self) -> str:
        lines = [
            f"threat model     {self.threat}",
            *filter(None, [target_meaning(str(self.threat))]),
            f"clean accuracy   {self.clean_accuracy!r}",
            f"robust accuracy  {self.robust_accuracy!r}, an upper bound (worst case over {len(self.per_attack)} attacks)",
        ]
        lines += [
            f"  {row['attack']:<28} {100 * row['robust_accuracy']:5.1f} %   {row['seconds']:7.2f} s   "
            f"{row['forwards_per_sample']:.1f}/{row['backwards_per_sample']:.1f} passes a sample"
            for row in self.per_attack.to_dict("records")
        ]
        if self.corruption is not None:
            mean = self.corruption.mean
            low, high = (100 * end for end in mean.interval)
            figure = f"{100 * mean.estimate:.1f} % [{low:.1f}, {high:.1f}] (n={mean.n})"
            lines.append(f"corruptions      {figure}, the mean over {len(self.corruption.by_label)} corruptions")
        lines += [f"{flag.severity.upper()} {flag.name}: {flag.message}" for flag in self.flags if not flag.lifted_by]
        lines += [f"ANSWERED {flag.name}: by {', '.join(flag.lifted_by)}" for flag in self.flags if flag.lifted_by]
        return "\n".join(lines)


def collect(results: Sequence[CellResult], stored: Sequence[CellResult], data: Data, threat: str) -> Evaluation:
    """Combine the cells of a model. `stored`: the same cells with their adversarial examples.

    Raises CellFailedError if a cell failed; beside attacks a certificate that failed is a flag instead.
    """
    # All attacks form one row, whatever their suites.
    together = [replace(result, cell=replace(result.cell, suite="")) for result in results]
    decisive = deciding(together)
    for result in [*decisive, *(result for result in together if result.cell.corrupts)]:
        if result.error is not None:
            raise CellFailedError(f"attack {result.cell.attack!r} failed: {result.error.kind}: {result.error.message}")
    worst, crossed = worst_case(together), cross_flags(together)
    proven = bracket(together, worst)
    if proven is not None and proven.alarm:
        raise CellFailedError(proven.alarm)
    flags = list(dict.fromkeys([*(flag for result in results for flag in cells.flags(result)), *crossed]))
    parsed = ThreatModel.parse(threat)
    place = {name: row for row, name in enumerate(data.ids)}
    correct = np.zeros(len(data), dtype=bool)
    robust = np.zeros(len(data), dtype=bool)
    success = np.zeros(len(data))
    for row, name in enumerate(worst.id):
        robust[place[str(name)]] = bool(worst.robust[row])
        success[place[str(name)]] = worst.success[row]
    random = any(result.cell.randomised for result in results)
    ends = [Proportion(round(DRAWS * one), DRAWS).interval if random else (one, one) for one in success.tolist()]
    adversarials, distance = data.images[:].clone(), np.full(len(data), np.inf)
    for result in stored:
        for block in result.blocks:
            samples = block.samples
            for row, image in enumerate(samples.adversarial):
                at = place[str(samples.id[row])]
                # For a randomised model, an example counts only if fresh draws confirm it.
                counts = image is not None and not samples.robust[row] and not robust[at]
                if counts and samples.distance[row] <= limit(parsed) and samples.distance[row] < distance[at]:
                    distance[at] = samples.distance[row]
                    adversarials[at] = torch.tensor(image)
    for block in decisive[0].blocks:
        for row, name in enumerate(block.samples.id):
            correct[place[str(name)]] = bool(block.samples.correct[row])
    n = len(data)
    table = [
        {
            "attack": result.cell.attack,
            "settings": result.cell.attack_spec,
            "precision": cells.precision(result),
            "robust_accuracy": sum(int(block.samples.robust.sum()) for block in result.blocks) / n,
            "n": cells.covered(result),
            "seconds": cost.seconds,
            "forwards_per_sample": cost.forwards_per_sample,
            "backwards_per_sample": cost.backwards_per_sample,
            "peak_memory_mib": cost.peak_memory_mib,
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
        flags=lift(flags, answered_by(together, worst)),
        per_attack=pd.DataFrame(table),
        corruption=corruption_accuracy(together),
    )
