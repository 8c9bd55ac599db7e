"""Attacks of other libraries by name, as lazy `module:object` entries: listing them imports nothing."""

from __future__ import annotations

_TORCHATTACKS = "gauntlet.attacks.adapters.torchattacks_adapter"
_ART = "gauntlet.attacks.adapters.art_adapter"

ADAPTERS: dict[str, str] = {
    "torchattacks.APGD": f"{_TORCHATTACKS}:APGD",
    "torchattacks.APGDT": f"{_TORCHATTACKS}:APGDT",
    "torchattacks.AutoAttack": f"{_TORCHATTACKS}:AUTOATTACK",
    "torchattacks.CW": f"{_TORCHATTACKS}:CW",
    "torchattacks.DeepFool": f"{_TORCHATTACKS}:DEEPFOOL",
    "torchattacks.FGSM": f"{_TORCHATTACKS}:FGSM",
    "torchattacks.PGD": f"{_TORCHATTACKS}:PGD",
    "torchattacks.Square": f"{_TORCHATTACKS}:SQUARE",
    "art.AutoAttack": f"{_ART}:AUTOATTACK",
    "art.CarliniL2Method": f"{_ART}:CARLINI_L2",
    "art.DeepFool": f"{_ART}:DEEPFOOL",
    "art.FastGradientMethod": f"{_ART}:FAST_GRADIENT_METHOD",
    "art.HopSkipJump": f"{_ART}:HOP_SKIP_JUMP",
    "art.ProjectedGradientDescent": f"{_ART}:PROJECTED_GRADIENT_DESCENT",
    "art.SquareAttack": f"{_ART}:SQUARE",
}
