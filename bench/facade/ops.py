"""Operations for authors of attacks: projections, directions, random points, norms, losses, and validators of settings.

They work on batches of images (N, C, H, W) and keep the images of a batch apart. Random numbers come from `oracle.draws`.
"""

from __future__ import annotations

from gauntlet.attacks.ops.box_projection import dual_size, inner, shrink_to_ball
from gauntlet.attacks.ops.dlr import ce_targeted, cw_targeted, dlr, dlr_targeted, log_odds
from gauntlet.attacks.ops.l1_ball import sparse_ascent
from gauntlet.attacks.ops.losses import Loss, ce, cw, margin, named_loss
from gauntlet.attacks.ops.norms import distance, per_image, project, random_point, steepest
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.validators import boolean, number, one_of, positive, share, whole_number
from gauntlet.attacks.parts.apgd_common import checkpoint_period

__all__ = [
    "Draws",
    "Loss",
    "boolean",
    "ce",
    "ce_targeted",
    "checkpoint_period",
    "cw",
    "cw_targeted",
    "distance",
    "dlr",
    "dlr_targeted",
    "dual_size",
    "inner",
    "log_odds",
    "margin",
    "named_loss",
    "number",
    "one_of",
    "per_image",
    "positive",
    "project",
    "random_point",
    "share",
    "shrink_to_ball",
    "sparse_ascent",
    "steepest",
    "whole_number",
]
