"""Labels only: the output is the predicted class (Tramèr et al., USENIX Security 2016, section 6).

Decision-based attacks are for this case (Brendel, Rauber, Bethge, ICLR 2018, arXiv 1712.04248). ART's ClassLabels is not
used: in every row it sets the columns of all classes that are predicted anywhere in the batch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.on_probabilities import OnProbabilities


def _one_hot(p: Tensor) -> Tensor:
    return functional.one_hot(p.argmax(1), p.shape[1]).to(p.dtype)


def build() -> OnProbabilities:
    """1 for the predicted class (the first of the largest) and 0 for the others, without a gradient."""
    return OnProbabilities(_one_hot)


ENTRY = DefenseEntry(
    DefenseCard(
        name="class_labels",
        summary="1 for the predicted class, 0 for the others",
        source="Tramèr et al. 2016, arXiv 1609.02943; as ART ClassLabels for one image",
        differentiable=False,
        randomised=False,
        kind="output",
    ),
    build,
)
