"""From a cell to everything that running it needs: load, profile, choose the attack, choose the fast form, key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.solving.low_precision import rounding
from gauntlet.attacks.views.fast_model import FastModel
from gauntlet.attacks.views.kept_weights import weights_kept
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.schema import DataRef, ModelRef
from gauntlet.bench.data.samples.dataset import Data, block_digest, blocks
from gauntlet.bench.environment.stopwatch import timed
from gauntlet.bench.executors.example_index import FindExamples
from gauntlet.bench.executors.executable import Block, Executable, Facts, Prepared, RunSettings, Slots
from gauntlet.bench.models.parts.classifier import check_model
from gauntlet.bench.models.parts.half_precision import own_precision
from gauntlet.bench.prepare import fast_form
from gauntlet.bench.prepare.answers import answers_by_batch, answers_differ, gradients_fail
from gauntlet.bench.prepare.cache_key import block_key, digest, pipeline_parts
from gauntlet.bench.prepare.checked_flags import Checking, checked_subject
from gauntlet.bench.prepare.defense_facts import batch_flags, defense_flags
from gauntlet.bench.prepare.loaded import Loaded
from gauntlet.bench.prepare.loader import Loader
from gauntlet.bench.prepare.measure_profile import attack_views, measure_profile, read_profile
from gauntlet.bench.prepare.slots import device_probe, grown, memory_name
from gauntlet.bench.registries import executable_entry
from gauntlet.defenses.pipeline.batch_dependence import IMAGES, BatchDependence
from gauntlet.defenses.pipeline.defended_model import defend
from gauntlet.defenses.pipeline.find_inner_views import SAMPLES
from gauntlet.defenses.pipeline.profile import PipelineProfile
from gauntlet.leaderboard.results.measurements import Measurement
from gauntlet.leaderboard.results.record import Flag

MEASUREMENT_VERSION = 7
"""Rises when a profile, a form or a check is measured otherwise: stored measurements of older versions are then not taken."""
_FORMS_KEPT = 2


class Workbench(Loader):
    """Prepares cells on one device, and remembers what several cells share."""

    def __init__(
        self,
        device: torch.device,
        precision: str = "auto",
        checks: str = "default",
        examples: FindExamples | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        """`precision`, `checks`: see `Config`; `compiled`: its `compile`; `examples`: finds those of replays."""
        super().__init__(device)
        self.precision = precision
        self.checks = checks
        self.compiled = compiled
        self._examples = examples
        self._forms: dict[tuple[ModelRef, str, DataRef], FastModel] = {}
        self._measured: dict[str, Measurement] = {}
        self._last: tuple[Cell, str | None, Prepared] | None = None
        """The latest question and its answer, since a cell is prepared, checked and run in turn."""
        self._digests: dict[tuple[int, int], str] = {}
        """By the data, which the loader keeps, and the number of the block."""
        self._fitted: dict[tuple[ModelRef, str, DataRef], list[int]] = {}

    def prepare(
        self, cell: Cell, *, measured: Mapping[str, Measurement] | None = None, recorded: str | None = None
    ) -> Prepared:
        """Load what the cell names, measure the pipeline, choose attack and form, and compute the keys of the blocks.

        `measured`: stored measurements by key, which stand in place of measuring here. `recorded`: the form of stored results
        that are to be read again, perhaps made on another device; then no form is made, and no attack can be run.
        """
        if (last := self._last) is not None and last[:2] == (cell, recorded) and _agree(last[2].measured, measured):
            return last[2]
        # Stored measurements stand in place of those that were taken here before they were known.
        self._measured |= measured or {}
        loaded = self._load(cell)
        # One copy of the weights for all that is measured here.
        with weights_kept(loaded.pipeline):
            prepared = self._prepare(cell, loaded, recorded)
        self._last = cell, recorded, prepared
        return prepared

    def _prepare(self, cell: Cell, loaded: Loaded, recorded: str | None) -> Prepared:
        used: dict[str, Measurement] = {}
        shown = self._model_flags(loaded)
        attack = executable_entry(cell.attack.name).make(cell.threat, **cell.attack.keywords)
        profile, masked = self._profile(loaded, attack, used)
        pipeline = loaded.pipeline
        pipeline.randomised = self._is_random(loaded, profile, used)
        if attack.follows_gradients and self.checks != "none":
            few = self._first_block(loaded, SAMPLES if loaded.defense.card.samples is None else 2)
            pipeline.opaque = pipeline.opaque or gradients_fail(pipeline, *few, partial(self._known_as, loaded, used))
        views = attack_views(pipeline, None if recorded else profile, partial(self._first_block, loaded))
        loaded = replace(loaded, views=views)
        attack = self._choose_attack(loaded, attack, profile, masked=masked)
        subset = loaded.model.module.subset
        info = replace(cell.info, randomised=pipeline.randomised, rejects=pipeline.rejects)
        info = info if subset is None else replace(info, classes=subset.titles)
        cell = replace(cell, info=replace(info, techniques=attack.techniques(pipeline)))
        form = FastModel(pipeline, "") if recorded else self._choose_form(loaded, cell, attack, used)
        low = attack.in_low_precision(pipeline, recorded or form.form)
        form = fast_form.without_low_precision(form) if low is None else form
        cell = replace(
            cell, info=replace(cell.info, precision=recorded or form.form or own_precision(loaded.model.module.model))
        )
        runs = low if low is not None and rounding(cell.info.precision) else attack
        block = self._blocks(loaded, cell, runs)
        victim = attack.victim(pipeline, profile)
        declared = defense_flags(loaded.defense.card, pipeline, cell.model, checked=self.checks != "none")
        batch = BatchDependence(0, 0, 0.0) if recorded else self._batch_dependence(loaded, used)
        return Prepared(
            cell=cell,
            data=loaded.data,
            defended=pipeline,
            card=loaded.defense.card,
            attack=runs,
            light=form,
            victim=victim,
            check=partial(self._check, loaded, cell, attack, victim, declared, used),
            views=views,
            blocks=tuple(
                block(indices, self._content(loaded.data, number, indices))
                for number, indices in enumerate(blocks(loaded.data))
            ),
            weights=loaded.model.digest,
            flags=(*shown, *batch_flags(batch, loaded.model.module), *declared),
            by_batch=batch.found,
            slots=Slots(partial(self._slots, loaded, attack, form, used), self._fitted.setdefault(loaded.group, [])),
            block=block,
            device=self.device,
            measured=used,
        )

    def _load(self, cell: Cell) -> Loaded:
        data = self.data_for(cell.data, cell.model)
        model = self.model(cell.model)
        entry, defense_digest = self.defense(cell.defense.name)
        pipeline = defend(model.module, entry, cell.defense.keywords).to(self.device).eval()
        pipeline.randomised = pipeline.randomised or bool(cell.model.randomised)
        pipeline.opaque = bool(cell.model.not_differentiable)
        parts = pipeline_parts(cell, model, entry, defense_digest)
        return Loaded(cell, data, model, entry, defense_digest, pipeline, parts)

    def _model_flags(self, loaded: Loaded) -> tuple[Flag, ...]:
        """Flags of the undefended model on a few images. Raises ModelError where it cannot be evaluated."""
        pair = (loaded.cell.model, loaded.cell.data)
        if pair not in self._flags:
            data = loaded.data
            images = data.images[:64].to(self.device)
            self._flags[pair] = tuple(check_model(loaded.model.module, images, data.labels[:64], classes=data.classes))
        return self._flags[pair]

    def _profile(
        self, loaded: Loaded, attack: Executable, used: dict[str, Measurement]
    ) -> tuple[PipelineProfile | None, bool]:
        """The pipeline's profile, and whether its gradients are of no use to attacks that know its card.

        Attacks that do not depend on it take the card's word, so that stored results cost no passes.
        """
        if not attack.needs_profile:
            return None, False
        return read_profile(self._known(loaded, "profile", used, partial(self._measure_profile, loaded)))

    def _known(
        self, loaded: Loaded, what: str, used: dict[str, Measurement], measure: Callable[[], Measurement]
    ) -> Measurement:
        """A measurement of the pipeline: stored, remembered, or taken now."""
        indices = blocks(loaded.data)[0]
        content = self._content(loaded.data, 0, indices)
        key = digest({**loaded.parts, "version": MEASUREMENT_VERSION, "measured": what, "data": content})
        if key not in self._measured:
            with timed("check"):
                self._measured[key] = measure()
        used[key] = self._measured[key]
        return used[key]

    def _known_as(
        self, loaded: Loaded, used: dict[str, Measurement], what: str, measure: Callable[[], Measurement]
    ) -> Measurement:
        return self._known(loaded, what, used, measure)

    def _measure_profile(self, loaded: Loaded) -> Measurement:
        content = self._content(loaded.data, 0, blocks(loaded.data)[0])
        return measure_profile(loaded.pipeline, loaded.defense.card, *self._first_block(loaded, SAMPLES), content)

    def _first_block(self, loaded: Loaded, most: int | None = None) -> tuple[Tensor, Tensor]:
        data, indices = loaded.data, blocks(loaded.data)[0][:most]
        return data.images[indices].to(self.device), data.labels[indices].to(self.device)

    def _is_random(self, loaded: Loaded, profile: PipelineProfile | None, used: dict[str, Measurement]) -> bool:
        if profile is not None:
            return loaded.pipeline.randomised or profile.randomised
        few = self._first_block(loaded, SAMPLES if loaded.defense.card.samples is None else 2)[0]
        return answers_differ(loaded.pipeline, few, partial(self._known_as, loaded, used))

    def _batch_dependence(self, loaded: Loaded, used: dict[str, Measurement]) -> BatchDependence:
        few = loaded.data.images[:IMAGES].to(self.device)
        return answers_by_batch(loaded.pipeline, few, partial(self._known_as, loaded, used))

    def _choose_attack(
        self, loaded: Loaded, attack: Executable, profile: PipelineProfile | None, *, masked: bool
    ) -> Executable:
        """The attack with everything put in that depends on the pipeline or on the store."""
        return attack.resolve(
            Facts(loaded.pipeline, profile, masked, loaded.cell.info, loaded.data.ids, self._examples)
        )

    def _choose_form(self, loaded: Loaded, cell: Cell, attack: Executable, used: dict[str, Measurement]) -> FastModel:
        """The form that native attacks run on; the attack view itself where there is nothing to choose."""
        view = loaded.pipeline.attack_view()
        # Libraries are compared on the model itself; of a randomised one, equal draws of few images say little.
        compiles = (
            self.compiled and loaded.model.access == "white-box" and not self._batch_dependence(loaded, used).found
        )
        plain = self.precision == "float32" or (self.precision == "auto" and not fast_form.pays(attack.stages))
        if not attack.stages or cell.info.randomised or (plain and not compiles):
            return FastModel(view, "")
        example = loaded.data.images[: fast_form.FORM_IMAGES].to(self.device)
        slots = RunSettings(self.device).slots(example[0])

        def measure() -> Measurement:
            form = fast_form.chosen_form(view, example, self.precision, slots if compiles else None)
            self._forms[loaded.group] = form
            return {"form": form.form, "device": str(self.device)}

        what = f"form {self.precision}{' compiled' if compiles else ''}"
        name = self._known(loaded, what, used, measure)["form"]
        if not name:
            self._forms.pop(loaded.group, None)
            return FastModel(view, "")
        if loaded.group not in self._forms or self._forms[loaded.group].form != name:
            self._forms[loaded.group] = fast_form.rebuilt_form(view, name, example, slots)
        for old in list(self._forms)[:-_FORMS_KEPT]:
            del self._forms[old]
        return self._forms[loaded.group]

    def _slots(self, loaded: Loaded, attack: Executable, form: FastModel, used: dict[str, Measurement]) -> int | None:
        """The slots of a native attack as measured on a GPU; None elsewhere, and of a black box, whose queries count."""
        if not attack.stages or loaded.model.access != "white-box":
            return None
        images, name = loaded.data.images, memory_name(self.device)
        if (probe := device_probe(form.module, self.device, lambda: images[:1])) is None:
            return None

        def measure() -> Measurement:
            return {"slots": grown(probe, RunSettings(self.device).slots(images[0])), "device": name}

        return int(self._known(loaded, f"slots {name} {form.form}", used, measure)["slots"])

    def _blocks(self, loaded: Loaded, cell: Cell, attack: Executable) -> Any:
        """A function from samples to their block, with its key."""
        key = block_key(cell, dict(loaded.parts), attack, self.checks, loaded.data)

        def block(indices: Sequence[int], content: str | None = None) -> Block:
            content = content or block_digest(loaded.data, indices)
            return Block(key(indices, content), indices, content)

        return block

    def _content(self, data: Data, number: int, indices: Sequence[int]) -> str:
        place = id(data), number
        if place not in self._digests:
            self._digests[place] = block_digest(data, indices)
        return self._digests[place]

    def _check(
        self,
        loaded: Loaded,
        cell: Cell,
        attack: Executable,
        victim: nn.Module,
        declared: Sequence[Flag],
        used: dict[str, Measurement],
    ) -> tuple[Flag, ...]:
        """The flags of the checks, once for a pair; the tests of an attack's strength for each attack."""
        return Checking(
            cell,
            attack,
            self.checks,
            declared,
            partial(checked_subject, loaded, cell, attack, victim, self.device),
            partial(self._known_as, loaded, used),
            str(self.device),
        ).flags()


def _agree(used: Mapping[str, Measurement], stored: Mapping[str, Measurement] | None) -> bool:
    """Whether the measurements that were used are the stored ones, as far as there are any."""
    return all((stored or {}).get(key, measured) == measured for key, measured in used.items())
