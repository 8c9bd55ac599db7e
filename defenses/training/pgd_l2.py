"""PGD training in L2: Madry et al., ICLR 2018, as in the authors' library (MadryLab/robustness, attack_steps.py)."""

from __future__ import annotations

from gauntlet.defenses.training.pgd import loss
from gauntlet.defenses.training.recipe import Recipe

# The loss supports any norm: steps follow the normalised gradient, and a random start outside the ball is projected.
RECIPE = Recipe(
    name="pgd_l2",
    summary="projected gradient descent in L2, 10 steps, in training mode",
    source="Madry et al. 2018, arXiv 1706.06083, in L2 as in MadryLab/robustness; Adam in place of SGD",
    loss=loss,
    norm="L2",
)
