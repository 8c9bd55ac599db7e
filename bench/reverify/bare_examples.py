"""Verifying a bare tensor of adversarial images: one for each sample, in the order of the data, and no run beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gauntlet.attacks.ops.norms import limit
from gauntlet.bench.config.schema import DataRef, Group, ModelRef
from gauntlet.bench.environment.foreign_exit import exits_reported
from gauntlet.bench.executors.executable import Prepared
from gauntlet.bench.planning.plan import resolve_plan
from gauntlet.bench.planning.plan_request import PlanRequest
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.reverify.examples_file import ExamplesError, fitting
from gauntlet.bench.verify.sample_record import examine_clean
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.bench.worker.attack_blocks import frozen
from gauntlet.leaderboard.report.csv_writer import TEXT
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.stats.proportions import Proportion

_TOGETHER = 500
_ATTACK = "square"
"""Any attack that every model and norm admits: nothing is attacked."""

Verdict = str
"""`misclassified` (when clean), `adversarial`, `not adversarial`, `not finite`, `outside the box`, `beyond eps`, or `unstable`
(misclassified in a batch and not alone, or the other way round, which counts as not adversarial)."""
INVALID: tuple[Verdict, ...] = ("not finite", "outside the box", "beyond eps")
"""Verdicts on images that are not within the threat model. They count as no adversarial examples."""


@dataclass(frozen=True)
class BareVerdicts:
    """The verdict on each image, in the order of the data."""

    data: str
    samples: int
    """Number of samples of the data; there may be fewer images."""
    threat: str
    table: pd.DataFrame
    """A line for each image: `id`, `label`, `clean_prediction`, `prediction`, `distance`, `verdict`."""
    flags: tuple[Flag, ...] = ()
    """What the model's outputs on clean images warn of."""
    randomised: bool = False

    def of(self, *verdicts: Verdict) -> pd.DataFrame:
        """The lines with one of these verdicts."""
        return self.table[self.table["verdict"].isin(verdicts)]

    @property
    def clean(self) -> Proportion:
        """Images that are classified correctly when clean."""
        return Proportion(int((self.table["clean_prediction"] == self.table["label"]).sum()), len(self.table))

    @property
    def robust(self) -> Proportion:
        """Samples that are correct when clean and whose image is no adversarial example."""
        return Proportion(self.clean.successes - len(self.of("adversarial")), len(self.table))


def verify_examples(
    examples: Tensor, model: ModelRef, data: DataRef, threat: str, defense: str, device: torch.device
) -> BareVerdicts:
    """Measure images (N, C, H, W) for the first N samples of the data, on the model behind the defense.

    Distances are measured in float64, as for every example; an image is adversarial if the verifier agrees. Raises ExamplesError,
    and what loading model and data raises: ConfigError, ModelError, LookupError, FileNotFoundError.
    """
    plan = resolve_plan(PlanRequest((Group((model,), (defense,), (_ATTACK,), (threat,), data),)))
    if len(plan.cells) != 1:
        raise ExamplesError(f"--model {model.spec!r} names {len({cell.model for cell in plan.cells})} models: name one")
    workbench = Workbench(device, "float32", "none")
    with exits_reported():
        prepared = workbench.prepare(plan.cells[0])
        images = prepared.data.images
        points = fitting(examples, tuple(images.shape[1:]), len(prepared.data), prepared.cell.info.data)
        with frozen(prepared.defended, prepared.cell.info.seed):
            rows = range(len(points))
            parts = [
                _part(prepared, rows[start : start + _TOGETHER], points[start : start + _TOGETHER])
                for start in range(0, len(points), _TOGETHER)
            ]
    return BareVerdicts(
        prepared.cell.info.data,
        len(prepared.data),
        str(prepared.cell.threat),
        pd.concat(parts, ignore_index=True),
        prepared.flags,
        prepared.cell.info.randomised,
    )


def _part(prepared: Prepared, rows: Sequence[int], points: Tensor) -> pd.DataFrame:
    verify = Verifier.of(prepared, rows, minimum_norm=False)
    verify.alone = prepared.by_batch
    clean = examine_clean(verify)
    given = points.to(verify.images)
    verdicts = np.full(len(rows), "not adversarial", dtype=object)
    prediction, distance = np.full(len(rows), -1, dtype=np.int64), np.full(len(rows), np.nan)
    flat = given.flatten(1)
    finite = flat.isfinite().all(1)
    boxed = finite & (flat >= 0).all(1) & (flat <= 1).all(1)
    measured = finite.nonzero().squeeze(1)
    if len(measured):
        judged = verify(given[measured], measured, torch.zeros_like(measured))
        again = verify.measure(given[measured], measured)
        at = measured.cpu().numpy()
        prediction[at], distance[at] = again.prediction.numpy(), again.distance.numpy()
        verdicts[at[judged.disagreement.cpu().numpy()]] = "unstable"
        # A sample of the target class is not attacked, and nothing moves it there.
        verdicts[at[(judged.success & clean.attacked[measured]).cpu().numpy()]] = "adversarial"
    labels, clean_prediction = verify.labels.cpu().numpy(), clean.measured.prediction.numpy()
    verdicts[clean_prediction != labels] = "misclassified"
    verdicts[distance > limit(prepared.cell.threat)] = "beyond eps"
    verdicts[~boxed.cpu().numpy()] = "outside the box"
    verdicts[~finite.cpu().numpy()] = "not finite"
    return pd.DataFrame(
        {
            "id": pd.array(list(verify.ids), dtype=TEXT),
            "label": labels,
            "clean_prediction": clean_prediction,
            "prediction": prediction,
            "distance": distance,
            "verdict": pd.array(verdicts, dtype=TEXT),
        }
    )
