"""Native attacks: cascades of rules that the solver runs, on all blocks of a cell at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch

from gauntlet.attacks.adaptive import Adaptive, Pipeline
from gauntlet.attacks.solving.batch_size import useful_batch
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.low_precision import COARSE, low_precision_first, rounding, takes_low_precision
from gauntlet.attacks.solving.low_precision import VERSION as LOW_PRECISION
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Meter, Outcome, Stage, Task, solve
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.environment.device import peak_memory
from gauntlet.bench.environment.stopwatch import note_stages
from gauntlet.bench.executors.executable import (
    BlockBatch,
    BlockResult,
    Executable,
    Facts,
    Trial,
)
from gauntlet.bench.executors.settings import doubled, without_addresses
from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.inner_view import VERSION
from gauntlet.leaderboard.results.record import Stats

_TRIAL_BATCH = 256


@dataclass(frozen=True)
class NativeExecutable(Executable):
    """A cascade of rules. A single rule is a cascade of one stage with an empty label."""

    text: str
    """See `spec`."""
    cascade: Cascade
    averages: bool = False
    """Whether it averages gradients over draws of a randomised model."""
    code: str = ""
    """Digest of its code; empty for Gauntlet's own attacks, which have versions."""
    inner_views: int = 0
    """The version of the inner views that stages see; 0 if none does."""
    low: str = ""
    """The form in low precision that its first stages see (`gauntlet.attacks.solving.low_precision`); empty: none."""
    reported: str = ""
    """See `report_as`."""
    watched: bool = False
    """Whether a check looks at each of its steps: then restarts do not run side by side."""

    @property
    def spec(self) -> str:
        """The attack with all its resolved settings."""
        return self.text

    @property
    def report_as(self) -> str:
        """The name on its card."""
        return self.reported

    @classmethod
    def of(cls, rule: Rule[Any]) -> NativeExecutable:
        """The executable of a single rule; its `spec` is the rule's settings."""
        return cls(without_addresses(rule), Cascade((Stage("", rule),)))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in order."""
        return low_precision_first(self.cascade.stages, self.low) if self.low else self.cascade.stages

    @property
    def follows_gradients(self) -> bool:
        """Whether a stage does; cascades with stages by BPDA find out themselves, sample by sample."""
        stages = self.cascade.stages
        return any(map(_own, stages)) and all(stage.technique != "bpda" for stage in stages)

    def resolve(self, facts: Facts) -> NativeExecutable:
        """Of a model that is not differentiable, as declared or measured, gradients are those of BPDA within its forward pass."""
        if not facts.pipeline.opaque:
            return self
        stages = tuple(
            replace(stage, backward="through", technique="bpda") if _own(stage) else stage
            for stage in self.cascade.stages
        )
        return replace(self, cascade=Cascade(stages))

    def in_low_precision(self, pipeline: DefendedModel, form: str) -> NativeExecutable | None:
        """With the stages that `takes_low_precision` names in low precision; BPDA is not, since it answers flags."""
        bridged = not pipeline.differentiable or pipeline.opaque
        takes = not bridged and any(takes_low_precision(stage) for stage in self.cascade.stages)
        return replace(self, low=form) if takes else None

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of the stages' rules."""
        return self.cascade.version

    def run(self, batch: BlockBatch) -> Iterator[BlockResult]:
        """Solve all blocks together, so that batches stay full across blocks."""
        prepared, verify, clean, places = batch.prepared, batch.verify, batch.clean, batch.places
        cell = prepared.cell
        rows = clean.attacked.nonzero().squeeze(1)
        where = rows.tolist()
        task = Task(
            verify.images[rows],
            verify.labels[rows],
            [verify.ids[i] for i in where],
            cell.threat,
            cell.info.seed,
            cell.attack.name,
            verify.targets()[rows] if cell.threat.target else None,
            None if clean.measured.logits is None else clean.measured.logits[rows],
        )
        # Restarts that may turn out not to be needed are no queries to pay for.
        observable = model_access(prepared.defended) == "white-box"
        block_of = [number for number, place in enumerate(places) for _ in place]
        outcomes: list[list[Outcome]] = [[] for _ in places]
        left = [0] * len(places)
        for i in where:
            left[block_of[i]] += 1
        for number in (number for number, count in enumerate(left) if count == 0):
            yield BlockResult(number, [], Stats(0.0, 0.0))
        meter, size = Meter(), prepared.slots.count(batch.settings, verify.images[0])
        full = prepared.light.full or prepared.light
        certainty = verify.certainty if observable else None
        if certainty is not None and self.low:
            certainty = replace(certainty, coarse=COARSE * rounding(self.low))
        attack = partial(
            solve,
            self.stages,
            full.module,
            batch_size=size,
            verify_every=10 if cell.info.randomised else 1,
            classes=clean.classes,
            views=prepared.views,
            rejects=prepared.defended.rejects,
            useful=partial(useful_batch, prepared.light.module, verify.images[:1], size) if observable else None,
            low=prepared.light.module,
        )

        def again(samples: Sequence[int]) -> list[Outcome]:
            """The samples attacked once more, every candidate verified as it is found."""
            chosen = torch.tensor(samples, device=rows.device)
            places = torch.searchsorted(rows, chosen).tolist()
            found = attack(
                task.of(places),
                lambda points, samples, attempt: verify(points, chosen[samples], attempt),
                meter=meter,
                batch_size=min(size, meter.fitted or size),
            )
            outcomes = sorted(found, key=lambda outcome: outcome.sample)
            return [replace(outcome, sample=sample) for outcome, sample in zip(outcomes, samples, strict=True)]

        with peak_memory(batch.settings.device) as peak, _stages_noted(meter):
            began, judged = synchronised_time(), verify.seconds
            for outcome in attack(
                task,
                lambda points, samples, attempt: verify(points, rows[samples], attempt),
                meter=meter,
                progress=batch.settings.watch,
                certainty=certainty,
            ):
                sample = where[outcome.sample]
                number = block_of[sample]
                outcome.sample = sample
                outcomes[number].append(outcome)
                left[number] -= 1
                if left[number] == 0:
                    seconds = synchronised_time() - began - (verify.seconds - judged)
                    peak.update()
                    costs = Stats(seconds, peak.mib, occupancy=meter.occupancy, halved=meter.halved)
                    yield BlockResult(number, outcomes[number], costs, again=again)
                    began, judged = synchronised_time(), verify.seconds
        prepared.slots.note(batch.settings, meter)

    def key_parts(self, ids: Sequence[str]) -> dict[str, Any]:
        """The stages with their settings, and the versions of their rules."""
        return {
            "kind": "native",
            "stages": without_addresses(self.cascade),
            "versions": self.versions,
            "code": self.code,
            **({"inner views": self.inner_views} if self.inner_views else {}),
            **({"low precision": LOW_PRECISION} if self.low else {}),
        }

    def techniques(self, pipeline: DefendedModel) -> dict[str, str]:
        """The technique of each stage, by its label."""
        averaged = self.averages and pipeline.randomised
        stages = self.cascade.stages
        return {stage.label: technique("eot" if averaged else stage.technique, pipeline) for stage in stages}

    def harder(self) -> NativeExecutable:
        """Twice the steps or queries and one more restart in every stage."""
        return replace(self, cascade=Cascade(tuple(replace(stage, rule=doubled(stage.rule)) for stage in self.stages)))

    def attempt(self, trial: Trial) -> list[Outcome]:
        """Attack without the stages whose view the trial does not have, such as a twin without a defense."""
        views = trial.views or {}
        task = Task(trial.images, trial.labels, trial.ids, trial.threat, trial.seed, "check")
        outcomes = solve(
            [stage for stage in self.cascade.stages if not stage.view or stage.view in views],
            trial.view,
            task,
            trial.verify,
            batch_size=_TRIAL_BATCH,
            verify_every=10 if trial.randomised else 1,
            classes=trial.classes,
            views=views,
            rejects=trial.rejects,
            useful=None if self.watched else partial(useful_batch, trial.view, trial.images[:1], _TRIAL_BATCH),
        )
        return sorted(outcomes, key=lambda outcome: outcome.sample)


@contextmanager
def _stages_noted(meter: Meter) -> Iterator[None]:
    """Note what the stages took, also of an attack that fails or is interrupted."""
    try:
        yield
    finally:
        note_stages(meter.seconds)


@dataclass(frozen=True)
class AdaptiveExecutable(Executable):
    """A placeholder for the cascade that `resolve` chooses for a pipeline. It cannot run itself."""

    text: str
    """See `spec`."""
    adaptive: Adaptive

    needs_profile: ClassVar[bool] = True

    @property
    def spec(self) -> str:
        """The attack with all its resolved settings."""
        return self.text

    def resolve(self, facts: Facts) -> NativeExecutable:
        """The cascade for this pipeline."""
        pipeline, views = facts.pipeline, () if facts.profile is None else facts.profile.inner
        known = Pipeline(
            masked=facts.masked,
            randomised=pipeline.randomised,
            beneath=pipeline.beneath is not None,
            twin=pipeline.twin is not None,
            inner=tuple((view.name, view.backward) for view in views),
            noise=None if facts.profile is None else facts.profile.gradient_noise,
        )
        return NativeExecutable(self.text, self.adaptive.against(known), inner_views=VERSION if views else 0)

    def run(self, batch: BlockBatch) -> Iterator[BlockResult]:
        """Raises TypeError."""
        raise self._unresolved()

    def key_parts(self, ids: Sequence[str]) -> dict[str, Any]:
        """Raises TypeError."""
        raise self._unresolved()

    def techniques(self, pipeline: DefendedModel) -> dict[str, str]:
        """Raises TypeError."""
        raise self._unresolved()

    def _unresolved(self) -> TypeError:
        return TypeError(f"{self.text} depends on the pipeline: call resolve first")


def _own(stage: Stage) -> bool:
    """Whether a stage takes the model's own gradients."""
    return stage.backward == "true" and not stage.view and stage.technique == "white-box"


def technique(name: str, pipeline: DefendedModel) -> str:
    """The technique on this pipeline: without differentiability, gradients are those of BPDA."""
    if pipeline.differentiable or name not in ("white-box", "eot"):
        return name
    return "bpda" if name == "white-box" else f"bpda+{name}"
