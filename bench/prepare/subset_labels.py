"""Labels of data for a model that is restricted to some of its classes."""

from __future__ import annotations

from dataclasses import replace

import torch

from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.models.parts.class_subset import ClassSubset, same_name
from gauntlet.bench.models.parts.classifier import Classifier


def restricted(module: Classifier, data: Data, device: torch.device) -> ClassSubset:
    """The subset of a model with listed classes, which is found by a pass over an image where it is not known yet.

    A folder for each class of the model gives these names, where the model has none. Raises ModelError.
    """
    if module.subset is None:
        listed, module.listed = module.listed, ()
        try:
            with torch.no_grad(), guarded(module, 0):
                outputs = module(data.images[:1].to(device)).shape[1]
        finally:
            module.listed = listed
        module.restrict(outputs, data.class_names if len(data.class_names) == outputs else ())
    assert module.subset is not None
    return module.subset


def in_subset(data: Data, subset: ClassSubset, labels: str | None = None) -> Data:
    """The data with labels that are places in the subset.

    Where data name their classes (folders of images), these names decide. Else labels are classes of the model (`labels="model"`)
    or places in the list (`"list"`); by default whichever fits. Raises ValueError for samples of classes that are not in the
    subset, and where labels can be read in both ways.
    """
    places = _places(data, subset, labels)
    mapped = torch.tensor([places.get(label, -1) for label in range(max(data.classes, max(places, default=0) + 1))])
    new = mapped[data.labels]
    if (outside := new < 0).any():
        index = int(outside.nonzero()[0])
        label = int(data.labels[index])
        name = f" ({data.class_names[label]})" if data.class_names else ""
        raise ValueError(
            f"sample {data.ids[index]!r} of data {data.name!r} has class {label}{name}, which is not in the list of classes "
            f"({int(outside.sum())} of {len(data)} samples): add the class, or leave these samples out by --samples FILE"
        )
    return replace(data, labels=new, classes=len(subset.indices), class_names=subset.titles)


def _places(data: Data, subset: ClassSubset, labels: str | None) -> dict[int, int]:
    """The place in the subset of each label of the data that has one."""
    if labels is None and data.class_names:
        found = {
            label: place
            for label, name in enumerate(data.class_names)
            for place, names in enumerate(subset.names)
            if same_name(name) in names
        }
        if found:
            return found
    as_listed = {place: place for place in range(len(subset.indices))}
    as_model = {index: place for place, index in enumerate(subset.indices)}
    if labels is not None:
        return as_model if labels == "model" else as_listed
    used = set(data.labels.tolist())
    fits = [table for table in (as_listed, as_model) if used <= table.keys()]
    if len(fits) == 2 and any(as_listed[label] != as_model[label] for label in used):
        if data.class_names and data.classes == len(subset.indices):
            return as_listed
        raise ValueError(
            f"labels of data {data.name!r} may be classes of the model or places in the list of classes: write "
            "--classes 'FILE(labels=model)' or --classes 'FILE(labels=list)'"
        )
    return fits[0] if fits else as_model
