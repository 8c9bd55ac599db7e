"""The workbench: data, models and defenses of a plan, loaded once, and the keys of the plan's blocks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gauntlet.attacks.card import AnyAttack
from gauntlet.attacks.cascade import Cascade
from gauntlet.attacks.lighter import Lighter, lighter
from gauntlet.attacks.rule import Rule
from gauntlet.bench import verifier
from gauntlet.bench.config import DataRef, ModelRef
from gauntlet.bench.data.dataset import Data, block_digest, blocks
from gauntlet.bench.data.sources import load_data
from gauntlet.bench.models.classifier import check_model
from gauntlet.bench.models.loading import LoadedModel, load_model
from gauntlet.bench.plan import Cell
from gauntlet.bench.provenance import package_version
from gauntlet.bench.registries import DEFENSES
from gauntlet.defenses.card import DefenseCard, DefenseEntry
from gauntlet.defenses.defended import DefendedModel
from gauntlet.leaderboard.record import SCHEMA_VERSION, Flag

_MODELS_KEPT = _FORMS_KEPT = 2


@dataclass(frozen=True)
class Block:
    """A fixed block of samples: the key of its result, and its samples as indices into the cell's data."""

    key: str
    indices: Sequence[int]


@dataclass(frozen=True)
class Prepared:
    """All that running a cell needs."""

    cell: Cell
    data: Data
    defended: DefendedModel
    card: DefenseCard
    attack: AnyAttack
    light: Lighter
    """The form of `defended` that the attack runs on."""
    blocks: tuple[Block, ...]
    flags: tuple[Flag, ...]


class Workbench:
    """Loads what cells name, on one device, and remembers it. Objects in memory are laid on it by `put_…`."""

    def __init__(self, device: torch.device, precision: str = "auto") -> None:
        """`precision`: one of `gauntlet.bench.config.PRECISIONS`."""
        self.device = device
        self.precision = precision
        self._data: dict[DataRef, Data] = {}
        self._models: dict[ModelRef, LoadedModel] = {}
        self._forms: dict[tuple[ModelRef, str, DataRef], Lighter | None] = {}
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
        entry, digest = self._defenses.get(cell.defense.name) or (DEFENSES.get(cell.defense.name), "")
        transform = entry.make(**cell.defense.keywords).to(self.device)
        defended = DefendedModel(
            model.module, transform, differentiable=entry.card.differentiable, randomised=entry.card.randomised
        ).eval()
        attack = cell.make_attack()
        flags = (*self._check(cell, data, model), *_defense_flags(entry.card))
        light = Lighter(defended, "") if recorded else self._light(cell, data, defended, attack)
        cell = replace(cell, info=replace(cell.info, precision=recorded or light.form or "float32"))
        what = {
            "schema": SCHEMA_VERSION,
            "verifier": verifier.VERSION,
            "model": [model.digest, model.source_digest, _factory(cell.model.spec)],
            "normalisation": [cell.model.mean, cell.model.std],
            "defense": [str(cell.defense), entry.version, _library_version(entry.card.source), digest],
            "attack": [cell.info.attack_spec, *_attack_version(cell, attack)],
            "threat": str(cell.threat),
            "seed": cell.info.seed,
            "precision": cell.info.precision,
        }
        found = tuple(
            Block(_key({**what, "data": self._digest(cell.data, data, number, indices)}), indices)
            for number, indices in enumerate(blocks(data))
        )
        return Prepared(cell, data, defended, entry.card, attack, light, found, flags)

    def _light(self, cell: Cell, data: Data, defended: DefendedModel, attack: AnyAttack) -> Lighter:
        view = defended.attack_view()
        # Libraries are compared on the model as it is; of a randomised one, equal draws of few images say little.
        native = isinstance(attack, Rule | Cascade) and not cell.info.randomised
        if not native or self.precision == "float32":
            return Lighter(view, "")
        triple = (cell.model, str(cell.defense), cell.data)
        if triple not in self._forms:
            # Low precision costs a second attack on what it leaves standing: it is for those who ask for it.
            wanted = "float32" if self.precision == "auto" else self.precision
            found = lighter(view, data.images[:8].to(self.device), precision=wanted)
            self._forms[triple] = found if found.form else None
            for old in [one for one, form in self._forms.items() if form is not None][:-_FORMS_KEPT]:
                del self._forms[old]
        light = self._forms[triple] or Lighter(view, "")
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


def _attack_version(cell: Cell, attack: AnyAttack) -> list[Any]:
    """The version of a rule; of a whole attack also its library's, and the size of its batches (a block's, at most)."""
    if isinstance(attack, Rule | Cascade):
        return [attack.version]
    return [attack.version, _library_version(cell.attack.name), "batch: a block"]


def _library_version(text: str) -> str | None:
    for word, name in (("torchattacks", "torchattacks"), ("art.", "adversarial-robustness-toolbox")):
        if text.startswith(word):
            return f"{name} {package_version(name)}"
    if "ART" in text:
        return f"adversarial-robustness-toolbox {package_version('adversarial-robustness-toolbox')}"
    return None


def _factory(spec: str) -> str:
    # Not the path: the same file elsewhere builds the same model.
    return spec.rpartition(":")[2]


def _key(what: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def _defense_flags(card: DefenseCard) -> list[Flag]:
    flags = []
    if not card.differentiable:
        flags.append(
            Flag(
                "non-differentiable-defense",
                "warn",
                "non-differentiable defense: gradient attack was run by straight-through (BPDA); the figure is an upper "
                "bound, unranked until BPDA, a black-box attack and transfer have been run",
            )
        )
    if card.randomised:
        flags.append(
            Flag(
                "randomised-defense",
                "block",
                "randomised defense: the attack saw one draw a step; the figure is an upper bound, unranked until an "
                "attack on the expectation over draws (EOT) has been run",
            )
        )
    return flags
