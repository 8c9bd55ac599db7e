"""The workbench: data, models and defenses of a plan, loaded once, and the keys of the plan's blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from gauntlet.attacks.adaptive import Adaptive, Pipeline
from gauntlet.attacks.registry.card import AnyAttack
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.views.fast_model import FastModel, choose_form
from gauntlet.bench.checks.catalog import flags, run_checks
from gauntlet.bench.checks.pipeline_profile import Profile, profile
from gauntlet.bench.checks.subject import FEW, Subject
from gauntlet.bench.config.schema import DataRef, ModelRef
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.dataset import Data, block_digest, blocks
from gauntlet.bench.data.samples.lazy_images import MEMORY_LIMIT, image_bytes
from gauntlet.bench.executors.example_index import Replay, Shelf
from gauntlet.bench.models.load_model import LoadedModel, load_model
from gauntlet.bench.models.parts.classifier import check_model
from gauntlet.bench.planning.plan import Cell
from gauntlet.bench.prepare.attack_choice import defense_flags, victim, views, ways
from gauntlet.bench.prepare.cache_key import attack_version, factory, key, library_version, tried
from gauntlet.bench.registries import DEFENSES
from gauntlet.bench.registry.validate import told
from gauntlet.bench.verify import verifier
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.defended_model import DefendedModel, defend
from gauntlet.leaderboard.results.record import SCHEMA_VERSION, Flag
from gauntlet.leaderboard.results.store import Store

_MODELS_KEPT = _FORMS_KEPT = 2
_ASKING = ("adaptive", "naive", "certificate", "replay")
"""Attacks that depend on what is measured of the pipeline: those of one suite must agree on whether it is random."""


@dataclass(frozen=True)
class Block:
    """A fixed block of samples: the key of its result, and its samples as indices into the cell's data."""

    key: str
    indices: Sequence[int]
    data: str
    """sha256 of its images, labels and ids."""


@dataclass(frozen=True)
class Prepared:
    """All that running a cell needs."""

    cell: Cell
    data: Data
    defended: DefendedModel
    card: DefenseCard
    attack: AnyAttack
    light: FastModel
    """The form of `defended` that native attacks run on."""
    victim: nn.Module
    """What whole attacks are given."""
    check: Callable[[], tuple[Flag, ...]]
    """Runs the checks that were asked for; they are remembered, and only run where the store does not answer."""
    views: Mapping[str, nn.Module]
    """What stages of adaptive attacks are shown in its place, by name."""
    blocks: tuple[Block, ...]
    weights: str
    """sha256 of the model's parameters and buffers."""
    flags: tuple[Flag, ...]
    block: Callable[[Sequence[int]], Block]
    """A block of the samples with these indices, for who does not need all."""


class Workbench:
    """Loads what cells name, on one device, and remembers it. Objects in memory are laid on it by `put_…`."""

    def __init__(
        self, device: torch.device, precision: str = "auto", checks: str = "default", store: Store | None = None
    ) -> None:
        """`precision` and `checks`: see `gauntlet.bench.config.schema.Config`; `store`: where replays find their examples."""
        self.device = device
        self.precision = precision
        self.checks = checks
        self._checked: dict[tuple[object, ...], tuple[Flag, ...]] = {}
        self._data: dict[DataRef, Data] = {}
        self._models: dict[ModelRef, LoadedModel] = {}
        self._forms: dict[tuple[ModelRef, str, DataRef], FastModel | None] = {}
        self._profiles: dict[tuple[ModelRef, str, DataRef], tuple[Profile, bool]] = {}
        self._shelf = None if store is None else Shelf(store)
        self._flags: dict[tuple[ModelRef, DataRef], tuple[Flag, ...]] = {}
        self._digests: dict[tuple[DataRef, int], str] = {}
        self._pinned: set[ModelRef] = set()
        self._defenses: dict[str, tuple[DefenseEntry, str]] = {}

    def put_data(self, ref: DataRef, data: Data) -> None:
        """Data that is in memory already."""
        self._data[ref] = data

    def put_model(self, ref: ModelRef, model: LoadedModel) -> None:
        """A model that is in memory already."""
        self._models[ref] = model
        self._pinned.add(ref)

    def put_defense(self, name: str, entry: DefenseEntry, digest: str) -> None:
        """A defense that is not registered; `digest` stands for its content in keys."""
        self._defenses[name] = entry, digest

    def data(self, ref: DataRef) -> Data:
        """The samples that `ref` names."""
        if ref not in self._data:
            self._data[ref] = load_data(ref.spec, samples=ref.samples)
        return self._data[ref]

    def model(self, ref: ModelRef) -> LoadedModel:
        """The model that `ref` names; the last few are kept."""
        if ref not in self._models:
            loose = [one for one in self._models if one not in self._pinned]
            for old in loose[: max(0, len(loose) - _MODELS_KEPT + 1)]:
                del self._models[old]
            self._models[ref] = load_model(
                ref.spec, weights=ref.weights, mean=ref.mean, std=ref.std, device=str(self.device)
            )
        return self._models[ref]

    def prepare(self, cell: Cell, *, recorded: str | None = None) -> Prepared:
        """Load what the cell names, check the model, choose the form that is attacked, and compute the keys of the blocks.

        The prepared cell's precision is that form. `recorded`: the precision of stored results that are to be found again,
        perhaps made on another device; then no form is made, and no attack can be run.
        """
        data, model = self.data(cell.data), self.model(cell.model)
        entry, defense_digest = self._defense(cell.defense.name)
        defended = defend(model.module, entry, cell.defense.keywords).to(self.device).eval()
        shown = self._check(cell, data, model)
        looked, masked = self._look(cell, data, defended, entry.card)
        randomised = defended.randomised = defended.randomised or (looked is not None and looked.randomised)
        shown = (*shown, *defense_flags(entry.card, randomised))
        attack = self._chosen(cell, data, defended, masked=masked)
        cell = replace(cell, info=replace(cell.info, randomised=randomised, ways=ways(cell, attack, defended)))
        light = FastModel(defended, "") if recorded else self._light(cell, data, defended, attack)
        cell = replace(cell, info=replace(cell.info, precision=recorded or light.form or "float32"))
        what = {
            "schema": SCHEMA_VERSION,
            "verifier": verifier.VERSION,
            "model": [model.digest, model.source_digest, factory(cell.model.spec)],
            "normalisation": [cell.model.mean, cell.model.std],
            "defense": [str(cell.defense), entry.version, library_version(entry.card.source), defense_digest],
            "attack": [cell.info.attack_spec, *attack_version(cell, attack), told(attack)],
            "threat": str(cell.threat),
            "seed": cell.info.seed,
            "precision": cell.info.precision,
            **({} if self.checks == "default" else {"checks": self.checks}),
        }

        def block(indices: Sequence[int], content: str | None = None) -> Block:
            content = content or block_digest(data, indices)
            return Block(key({**what, "data": content, **tried(attack, data, indices)}), indices, content)

        found = tuple(
            block(indices, self._digest(cell.data, data, number, indices))
            for number, indices in enumerate(blocks(data))
        )
        given = victim(attack, defended, looked)
        check = partial(self._run_checks, cell, data, defended, entry.card, attack, given)
        return Prepared(
            cell,
            data,
            defended,
            entry.card,
            attack,
            light,
            given,
            check,
            views(defended),
            found,
            model.digest,
            shown,
            block,
        )

    def _defense(self, name: str) -> tuple[DefenseEntry, str]:
        """The defense of that name, and what stands for its code where it is not Gauntlet's."""
        if name in self._defenses:
            return self._defenses[name]
        entry = DEFENSES.get(name)
        return entry, entry.source_digest

    def _run_checks(
        self, cell: Cell, data: Data, defended: DefendedModel, card: DefenseCard, attack: AnyAttack, given: nn.Module
    ) -> tuple[Flag, ...]:
        """The flags of a pair, once; the checks of an attack's strength for each attack."""
        if self.checks == "none":
            return ()
        every = self.checks == "all" and not isinstance(attack, Replay) and cell.info.adversarial
        pair = (cell.model, str(cell.defense), cell.data, cell.threat, cell.info.seed, cell.attack if every else None)
        if pair not in self._checked:
            # As many as are in memory at once: of larger sets the first.
            most = max(FEW, MEMORY_LIMIT // image_bytes(data.images)) if card.samples is None else 2
            subject = Subject(
                defended,
                data.images[:most].to(self.device),
                data.labels[:most].to(self.device),
                data.ids[:most],
                cell.threat,
                card=card,
                seed=cell.info.seed,
                classes=data.classes,
                attack=attack if every else None,
                victim=given if every else None,
            )
            self._checked[pair] = tuple(flags(run_checks(subject, "all" if every else "cheap")))
        return self._checked[pair]

    def _look(self, cell: Cell, data: Data, defended: DefendedModel, card: DefenseCard) -> tuple[Profile | None, bool]:
        """The pipeline's profile, and whether gradients are of no use to attacks that know its card.

        Other attacks than those that depend on it take the card's word, so that what is stored costs no passes.
        """
        if cell.attack.name not in _ASKING:
            return None, False
        triple = (cell.model, str(cell.defense), cell.data)
        if triple not in self._profiles:
            count = 16 if card.samples is None else 2
            few, labels = data.images[:count].to(self.device), data.labels[:count].to(self.device)
            found = profile(defended, few, labels)
            known = found if defended.differentiable else profile(defended.attack_view(), few, labels)
            self._profiles[triple] = found, known.gradients != "useful" or found.takes_gradients
        return self._profiles[triple]

    def _chosen(self, cell: Cell, data: Data, defended: DefendedModel, *, masked: bool) -> AnyAttack:
        """The attack, with what depends on the pipeline, or on what is stored, put in."""
        attack = cell.make_attack()
        if isinstance(attack, Adaptive):
            defense = {"beneath": defended.beneath is not None, "twin": defended.twin is not None}
            return attack.against(Pipeline(masked=masked, randomised=defended.randomised, **defense))
        if isinstance(attack, Replay) and self._shelf is not None:
            return self._shelf.load(attack, cell.info, data.ids)
        return attack

    def _light(self, cell: Cell, data: Data, defended: DefendedModel, attack: AnyAttack) -> FastModel:
        view = defended.attack_view()
        # Libraries are compared on the model as it is; of a randomised one, equal draws of few images say little.
        native = isinstance(attack, Rule | Cascade) and not cell.info.randomised
        if not native or self.precision == "float32":
            return FastModel(view, "")
        triple = (cell.model, str(cell.defense), cell.data)
        if triple not in self._forms:
            # Low precision costs a second attack on what it leaves standing: it is for those who ask for it.
            wanted = "float32" if self.precision == "auto" else self.precision
            found = choose_form(view, data.images[:8].to(self.device), precision=wanted)
            self._forms[triple] = found if found.form else None
            for old in [one for one, form in self._forms.items() if form is not None][:-_FORMS_KEPT]:
                del self._forms[old]
        light = self._forms[triple] or FastModel(view, "")
        # Low precision moves the boundary, and with it the distances that these attacks measure.
        return light.full or light if cell.info.minimum_norm else light

    def _digest(self, ref: DataRef, data: Data, number: int, indices: Sequence[int]) -> str:
        if (ref, number) not in self._digests:
            self._digests[ref, number] = block_digest(data, indices)
        return self._digests[ref, number]

    def _check(self, cell: Cell, data: Data, model: LoadedModel) -> tuple[Flag, ...]:
        pair = (cell.model, cell.data)
        if pair not in self._flags:
            few = data.images[:64].to(self.device)
            self._flags[pair] = tuple(check_model(model.module, few, data.labels[:64], classes=data.classes))
        return self._flags[pair]
