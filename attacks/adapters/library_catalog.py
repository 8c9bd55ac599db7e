"""Attacks of other libraries by name, as lazy `module:object` entries: listing them imports nothing."""

from __future__ import annotations

_TORCHATTACKS = "gauntlet.attacks.adapters.torchattacks_adapter"
_ART = "gauntlet.attacks.adapters.art_adapter"
_OFFICIAL = "gauntlet.attacks.adapters.pyautoattack_adapter"
_FOOLBOX = "gauntlet.attacks.adapters.foolbox_adapter"
_ADV_LIB = "gauntlet.attacks.adapters.adv_lib_adapter"

MODULES: dict[str, tuple[str, ...]] = {
    "torchattacks": ("torchattacks",),
    "adversarial-robustness-toolbox": ("art.attacks.evasion", "art.estimators.classification"),
    "pyautoattack": ("pyautoattack",),
    "foolbox": ("foolbox",),
    "adv-lib": ("adv_lib.attacks",),
}
"""The modules that the adapters import when they run, by distribution."""

ADAPTERS: dict[str, str] = {
    "torchattacks.APGD": f"{_TORCHATTACKS}:APGD",
    "torchattacks.APGDT": f"{_TORCHATTACKS}:APGDT",
    "torchattacks.AutoAttack": f"{_TORCHATTACKS}:AUTOATTACK",
    "torchattacks.CW": f"{_TORCHATTACKS}:CW",
    "torchattacks.DeepFool": f"{_TORCHATTACKS}:DEEPFOOL",
    "torchattacks.FAB": f"{_TORCHATTACKS}:FAB",
    "torchattacks.FGSM": f"{_TORCHATTACKS}:FGSM",
    "torchattacks.PGD": f"{_TORCHATTACKS}:PGD",
    "torchattacks.Square": f"{_TORCHATTACKS}:SQUARE",
    "art.AutoAttack": f"{_ART}:AUTOATTACK",
    "art.AutoProjectedGradientDescent": f"{_ART}:AUTO_PGD",
    "art.CarliniL2Method": f"{_ART}:CARLINI_L2",
    "art.DeepFool": f"{_ART}:DEEPFOOL",
    "art.FastGradientMethod": f"{_ART}:FAST_GRADIENT_METHOD",
    "art.HopSkipJump": f"{_ART}:HOP_SKIP_JUMP",
    "art.ProjectedGradientDescent": f"{_ART}:PROJECTED_GRADIENT_DESCENT",
    "art.SquareAttack": f"{_ART}:SQUARE",
    "pyautoattack.APGD": f"{_OFFICIAL}:APGD",
    "pyautoattack.APGDT": f"{_OFFICIAL}:APGDT",
    "pyautoattack.AutoAttack": f"{_OFFICIAL}:AUTOATTACK",
    "pyautoattack.FAB": f"{_OFFICIAL}:FAB",
    "pyautoattack.Square": f"{_OFFICIAL}:SQUARE",
    "foolbox.CarliniWagner": f"{_FOOLBOX}:CARLINI_WAGNER",
    "foolbox.FGSM": f"{_FOOLBOX}:FGSM",
    "foolbox.PGD": f"{_FOOLBOX}:PGD",
    "adv_lib.APGD": f"{_ADV_LIB}:APGD",
    "adv_lib.APGDT": f"{_ADV_LIB}:APGDT",
    "adv_lib.CarliniWagner": f"{_ADV_LIB}:CARLINI_WAGNER",
    "adv_lib.FAB": f"{_ADV_LIB}:FAB",
    "adv_lib.PGD": f"{_ADV_LIB}:PGD",
}
