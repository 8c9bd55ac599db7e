"""Data, models and defenses that cells name, loaded once on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from gauntlet.bench.config.schema import DataRef, ModelRef
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.environment.stopwatch import timed
from gauntlet.bench.models.load_model import LoadedModel, load_model
from gauntlet.bench.models.parts.class_list import class_file
from gauntlet.bench.models.parts.class_subset import ClassSubset
from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.bench.prepare.subset_labels import in_subset, restricted
from gauntlet.bench.registries import DEFENSES
from gauntlet.defenses.pipeline.card import DefenseEntry
from gauntlet.leaderboard.results.record import Flag

_MODELS_KEPT = 2


class Loader:
    """Loads what cells name and remembers it. Objects in memory are added by `put_…`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._data: dict[DataRef, Data] = {}
        self._restricted: dict[tuple[DataRef, ClassSubset, str | None], Data] = {}
        self._models: dict[ModelRef, LoadedModel] = {}
        self._pinned: set[ModelRef] = set()
        self._defenses: dict[str, tuple[DefenseEntry, str]] = {}
        self._flags: dict[tuple[ModelRef, DataRef], tuple[Flag, ...]] = {}

    def put_data(self, ref: DataRef, data: Data) -> None:
        """Add data that is in memory already."""
        self._data[ref] = data

    def put_model(self, ref: ModelRef, model: LoadedModel) -> None:
        """Add a model that is in memory already."""
        self._models[ref] = model
        self._pinned.add(ref)

    def put_defense(self, name: str, entry: DefenseEntry, digest: str) -> None:
        """Add a defense that is not registered; `digest` stands for its content in keys."""
        self._defenses[name] = entry, digest

    def put_flags(self, model: ModelRef, data: DataRef, flags: Sequence[Flag]) -> None:
        """Add the flags of a model in memory that was checked on the data already."""
        self._flags[model, data] = tuple(flags)

    @timed("load")
    def data(self, ref: DataRef) -> Data:
        """The samples that `ref` names."""
        if ref not in self._data:
            self._data[ref] = load_data(ref.spec, samples=ref.samples)
        return self._data[ref]

    @timed("load")
    def data_for(self, ref: DataRef, model: ModelRef) -> Data:
        """The samples that `ref` names, with labels that are classes of the model, which may be restricted to some of its own.

        Raises ModelError where the list of classes does not fit the model, ValueError where it does not fit the data.
        """
        if model.classes is None:
            return self.data(ref)
        loaded = self.model(model)
        _, labels = class_file(model.classes)
        subset = restricted(loaded.module, self.data(ref), self.device)
        self._models[model] = replace(loaded, digest=model_digest(loaded.module))
        if (ref, subset, labels) not in self._restricted:
            self._restricted[ref, subset, labels] = in_subset(self.data(ref), subset, labels)
        return self._restricted[ref, subset, labels]

    @timed("load")
    def model(self, ref: ModelRef) -> LoadedModel:
        """The model that `ref` names; the last two are kept in memory."""
        if ref not in self._models:
            loose = [loaded for loaded in self._models if loaded not in self._pinned]
            for old in loose[: max(0, len(loose) - _MODELS_KEPT + 1)]:
                del self._models[old]
            self._models[ref] = load_model(
                ref.spec,
                weights=ref.weights,
                mean=ref.mean,
                std=ref.std,
                logits=ref.logits,
                binary=bool(ref.binary),
                classes=ref.classes,
                device=str(self.device),
            )
        return self._models[ref]

    def defense(self, name: str) -> tuple[DefenseEntry, str]:
        """The defense of that name, and the digest of its code where it is not Gauntlet's own."""
        if name in self._defenses:
            return self._defenses[name]
        entry = DEFENSES.get(name)
        return entry, entry.source_digest
