"""What a model answers and hides: classes, randomness, dependence on the batch, gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.first_look.line import Line
from gauntlet.bench.first_look.seen import Seen
from gauntlet.bench.models.load_model import LoadedModel
from gauntlet.bench.models.parts.classifier import check_model
from gauntlet.bench.prepare.defense_facts import batch_flags
from gauntlet.defenses.pipeline.batch_dependence import batch_dependence
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.profile import PipelineProfile, is_random, pipeline_profile

_GRADIENTS = {
    "useful": "useful: they agree with finite differences",
    "wrong": "wrong: they differ from finite differences at every scale",
    "zero": "zero or not finite on half of the images",
    "none": "none reaches the images",
}


def class_lines(loaded: LoadedModel, seen: Seen) -> Iterator[Line]:
    """Outputs and classes, and what else is wrong with the outputs. Raises ModelError if the model cannot be evaluated."""
    with torch.random.fork_rng():
        flags = check_model(loaded.module, seen.images, seen.labels, classes=seen.classes)
        with guarded(loaded.module, 0), torch.no_grad():
            outputs = loaded.module(seen.images[:1]).shape[1]
    known = "" if seen.classes is None else f", and the data have {seen.classes} classes"
    yield Line("classes", f"{outputs} outputs{known}")
    # Remarks on loading stand above, and the normalisation has a line of its own.
    shown = {"normalisation", *(flag.name for flag in loaded.module.remarks)}
    for flag in flags:
        if flag.name not in shown:
            yield Line("", flag.message, "note")


def hidden_lines(pipeline: DefendedModel, seen: Seen) -> Iterator[Line]:
    """Randomness, dependence on the batch and gradients, each measured on a few images. Sets `pipeline.randomised`."""
    declared = pipeline.randomised
    pipeline.randomised = declared or is_random(pipeline, seen.images)
    if pipeline.randomised:
        word = "declared" if declared else "passes over the same images differ; the command below declares it"
        yield Line("randomness", f"{word}: attacks average over draws, and figures are by majority", "note")
    else:
        yield Line("randomness", "none: passes over the same images agree")
        measured = batch_dependence(pipeline, seen.images)
        for flag in batch_flags(measured, pipeline.model):
            yield Line("batch", flag.message, "problem")
        if not measured.found:
            yield Line("batch", "each image is answered alone as in a batch")
    labels = seen.labels
    if labels is None:
        with guarded(pipeline, 0), torch.no_grad():
            labels = pipeline(seen.images).argmax(1)
    profile = pipeline_profile(pipeline, seen.images, labels, judge=not pipeline.opaque)
    yield _gradients(profile, declared=pipeline.opaque)


def _gradients(profile: PipelineProfile, *, declared: bool) -> Line:
    if declared:
        return Line("gradients", "declared to be of no use: attacks use BPDA, and adaptive searches too", "note")
    more = [f"hidden by {', '.join(profile.intercepted)}"] if profile.intercepted else []
    more += ["the forward pass takes gradients itself"] if profile.takes_gradients else []
    more += [f"the outputs are {profile.outputs}"] if profile.outputs != "scores" else []
    fine = profile.gradients == "useful" and not more
    advice = [] if fine else ["adaptive attacks it by BPDA, views of its parts, and search"]
    return Line("gradients", "; ".join([_GRADIENTS[profile.gradients], *more, *advice]), "ok" if fine else "note")
