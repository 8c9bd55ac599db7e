"""Restriction of a model to some of its classes, so that it cannot predict the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from gauntlet.bench.models.parts.class_list import ListedClass
from gauntlet.bench.models.parts.errors import ModelError

_WNIDS = Path(__file__).parents[1] / "imagenet_wnids.txt"
"""The WordNet ids of the classes of ILSVRC 2012, in the order of their labels."""
_SHOWN = 3


@dataclass(frozen=True)
class ClassSubset:
    """The outputs of a model that take part, in the order of the restricted model's classes."""

    indices: tuple[int, ...]
    """Places among the model's own outputs."""
    titles: tuple[str, ...]
    """Names for tables."""
    names: tuple[frozenset[str], ...]
    """All known names of each class, as `same_name` writes them."""


def resolve(listed: Sequence[ListedClass], outputs: int, known: Sequence[str] = ()) -> ClassSubset:
    """The subset of a model with so many outputs. `known`: names of its classes, in their order, where the model has them.

    A model of 1,000 outputs knows the WordNet ids of ImageNet. Raises ModelError for classes that the model has not.
    """
    wnids = _WNIDS.read_text(encoding="utf-8").split() if outputs == 1000 else []
    places: dict[str, set[int]] = {}
    for names in (wnids, known if len(known) == outputs else ()):
        for place, name in enumerate(names):
            for form in _forms(name):
                places.setdefault(form, set()).add(place)
    indices = [_index(one, outputs, places) for one in listed]
    if len(set(indices)) < len(indices):
        twice = next(index for index in indices if indices.count(index) > 1)
        raise ModelError(f"the list of classes names class {twice} of the model twice: name each once")
    every = [
        {*one.names, *(names[index] for names in (wnids, known) if len(names) == outputs)}
        for one, index in zip(listed, indices, strict=True)
    ]
    return ClassSubset(
        tuple(indices),
        tuple(one.title for one in listed),
        tuple(frozenset(form for name in names for form in _forms(name)) for names in every),
    )


def class_names(model: nn.Module) -> tuple[str, ...]:
    """The names of a model's classes, in their order, as its configuration has them (Hugging Face); empty if it has none."""
    for module in model.modules():
        table = getattr(getattr(module, "config", None), "id2label", None)
        if isinstance(table, dict) and sorted(map(int, table)) == list(range(len(table))):
            return tuple(str(table[key]) for key in sorted(table, key=int))
    return ()


def same_name(name: str) -> str:
    """A name as it is compared: without case, and with spaces for underscores."""
    return " ".join(name.replace("_", " ").casefold().split())


def _forms(name: str) -> Iterator[str]:
    """A name, and its first part: `goldfish, Carassius auratus` is `goldfish` too."""
    yield same_name(name)
    if "," in name:
        yield same_name(name.partition(",")[0])


def _index(one: ListedClass, outputs: int, places: dict[str, set[int]]) -> int:
    if one.index is not None:
        if one.index >= outputs:
            raise ModelError(
                f"the list of classes has class {one.index}, and the model has {outputs}: use 0 to {outputs - 1}"
            )
        return one.index
    for name in one.names:
        found = places.get(same_name(name), set())
        if len(found) == 1:
            return next(iter(found))
        if found:
            raise ModelError(
                f"the list of classes has {name!r}, which is the name of {len(found)} classes "
                f"({', '.join(map(str, sorted(found)[:_SHOWN]))}): write their indices"
            )
    raise ModelError(
        f"the list of classes has {one.names[0]!r}, and no class of the model has this name: write indices, `6 {one.title}`"
    )
