"""Adaptive attacks: a cascade whose stages depend on the pipeline under attack.

"On adaptive attacks to adversarial example defenses" (Tramèr, Carlini, Brendel, Madry, NeurIPS 2020, arXiv 2002.08347) and
"Obfuscated gradients give a false sense of security" (Athalye, Carlini, Wagner, ICML 2018, arXiv 1802.00420): use true gradients
if they exist, BPDA if they do not, the expectation over random draws (EOT) for randomised defenses, the outputs beneath an output
defense, transfer from the undefended model and from networks within the pipeline, and always an attack without gradients too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.expectation import expectation_stages
from gauntlet.attacks.gauntlet import budget, in_norm
from gauntlet.attacks.hop_skip_jump import HopSkipJump
from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.parts.averaged import Averaged
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.solver import Stage
from gauntlet.attacks.solving.stage_conditions import Masked
from gauntlet.attacks.square import Square
from gauntlet.attacks.views.backward_modes import Backward

BENEATH, TWIN = "beneath", "twin"
"""Views for stages: the pipeline without its output defense, and the model without any defense."""
_DRAWS = 8
"""Number of frozen draws whose mean outputs a search compares on a randomised pipeline."""


@dataclass(frozen=True)
class Pipeline:
    """Properties of the pipeline under attack."""

    masked: bool = False
    """Gradients vanish or do not exist although nothing was declared, or in spite of BPDA."""
    randomised: bool = False
    beneath: bool = False
    """It has an output defense."""
    twin: bool = False
    """It has a defense."""
    inner: tuple[tuple[str, Backward], ...] = ()
    """Views of classifiers within it, the strongest first, each with its backward pass."""
    noise: float | None = None
    """Gradient noise of a randomised pipeline, see `draws_for_noise`; None if it is not known, or no gradient was seen."""

    @property
    def blind(self) -> bool:
        """No gradient was seen, not even by interception."""
        return self.masked and self.noise is None


@dataclass(frozen=True)
class Adaptive:
    """Stands for a cascade that is chosen once the pipeline has been measured."""

    norm: Norm

    version: ClassVar[int] = 6

    def against(self, pipeline: Pipeline) -> Cascade:
        """The cascade. For an undefended model with useful gradients it is `gauntlet`."""
        usual = budget("gauntlet", self.norm)
        after = 1 + max(place for place, stage in enumerate(usual) if stage.label in ("targets", "along"))
        expectation = expectation_stages(pipeline.noise, self.norm, "through" if pipeline.masked else "true")
        first = expectation if pipeline.randomised else usual[:after]
        rest = () if pipeline.randomised else usual[after:]
        suspicious = pipeline.masked or pipeline.twin or pipeline.randomised
        before = _BENEATH if pipeline.beneath else ()
        more = (
            *(_THROUGH if pipeline.masked and not pipeline.randomised else ()),
            *(_TRANSFER if pipeline.twin else ()),
            *(_inner(pipeline.inner) if pipeline.masked else ()),
            *(_search(pipeline) if suspicious else ()),
            *((_DECISIONS,) if pipeline.masked and not pipeline.randomised and self.norm != "L1" else ()),
            *((_DECISIONS_DRAWS,) if pipeline.blind and pipeline.randomised and self.norm != "L1" else ()),
        )
        stages = [
            *(in_norm(stage, self.norm) for stage in before),
            *first,
            *(in_norm(stage, self.norm) for stage in more),
            # A stage that all samples face is not repeated for samples with masked gradients.
            *(stage for stage in rest if not (isinstance(stage.when, Masked) and _done(stage, pipeline))),
        ]
        return Cascade(tuple(stages))


def _search(pipeline: Pipeline) -> tuple[Stage, ...]:
    # Margins of a random pipeline differ between passes, so that a least one says nothing of gains.
    if pipeline.randomised:
        return (_SEARCH_DRAWS,)
    return (_LONG_SEARCH if pipeline.masked else _SEARCH,)


def _done(stage: Stage, pipeline: Pipeline) -> bool:
    if stage.technique == "bpda":
        return pipeline.masked
    return pipeline.masked or pipeline.twin or pipeline.randomised


_BENEATH = (
    Stage("beneath", PGD(steps=20, loss="cw"), view=BENEATH, technique="beneath"),
    Stage("beneath-targets", APGD(steps=10, loss="dlr_targeted"), view=BENEATH, technique="beneath"),
)
_THROUGH = (
    Stage("through", PGD(steps=20, loss="cw"), None, "through", technique="bpda"),
    Stage("through-targets", APGD(steps=20, loss="cw_targeted"), None, "through", technique="bpda"),
    Stage("sharp", PGD(steps=40, loss="cw", restarts=2), None, "sharp", technique="bpda"),
    Stage("wide", PGD(steps=40, loss="cw", restarts=2, step_size=0.1), None, "through", technique="bpda"),
)
# Iterates go on where the twin is wrong already: a point far beyond its boundary is more likely to be beyond the pipeline's.
_TRANSFER = (
    Stage("transfer", PGD(steps=40, loss="cw"), view=TWIN, technique="transfer"),
    Stage("transfer-targets", APGD(steps=10, loss="dlr_targeted", targets=4), view=TWIN, technique="transfer"),
)

_SINGLE = 3
"""Number of inner views that have a stage of their own beside the first."""


def _inner(views: tuple[tuple[str, Backward], ...]) -> tuple[Stage, ...]:
    """Stages on the strongest view, and one on each of those that follow."""

    def stage(label: str, rule: PGD | APGD, view: str, backward: Backward) -> Stage:
        return Stage(label, rule, None, backward, view, "transfer")

    margin, towards = PGD(steps=40, loss="cw"), APGD(steps=10, loss="cw_targeted")
    single = [stage(f"inner-{place}", margin, *view) for place, view in enumerate(views[1 : 1 + _SINGLE], 1)]
    # Search by decisions starts where the latest stages ended: that on the strongest view is one of them.
    return tuple(
        [stage("inner", margin, *views[0]), *single, stage("inner-targets", towards, *views[0])] if views else []
    )


# Searches go on as long as their gains would suffice. Behind masks search is all there is where interception fails.
_SEARCH = Stage("square", Square(queries=1000), technique="black-box", patience=200)
_LONG_SEARCH = replace(_SEARCH, rule=Square(queries=5000), patience=500)
_SEARCH_DRAWS = Stage("square", Averaged(rule=Square(queries=200), eot=_DRAWS), technique="black-box")

# Behind masks scores may lead a search no better than gradients do: labels, votes, ripples.
_DECISIONS = Stage("decisions", HopSkipJump(queries=5000, stop_inside=True), technique="decision-based", patience=500)

_DECISIONS_DRAWS = replace(
    _DECISIONS, rule=Averaged(rule=HopSkipJump(queries=500, stop_inside=True), eot=_DRAWS), patience=0
)

_NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")


def build(threat: ThreatModel) -> Adaptive:
    """It has no settings: the pipeline decides which stages run."""
    return Adaptive(threat.norm)


ENTRY = AttackEntry(
    AttackCard(
        name="adaptive",
        summary="gauntlet, with BPDA, EOT, transfer and search where the defense needs them",
        source="Tramèr et al. 2020, arXiv 2002.08347; Athalye et al. 2018, arXiv 1802.00420",
        norms=_NORMS,
    ),
    build,
)
