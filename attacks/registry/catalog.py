"""Native attacks by name, as lazy `module:object` entries: listing them imports nothing."""

from __future__ import annotations

ATTACKS: dict[str, str] = {
    "fgsm": "gauntlet.attacks.fgsm:ENTRY",
    "pgd": "gauntlet.attacks.pgd:ENTRY",
    "smoothed-pgd": "gauntlet.attacks.smoothed_pgd:ENTRY",
    "mi-fgsm": "gauntlet.attacks.mi_fgsm:ENTRY",
    "di-fgsm": "gauntlet.attacks.mi_fgsm:DIVERSE",
    "ti-fgsm": "gauntlet.attacks.mi_fgsm:SMOOTHED",
    "cw": "gauntlet.attacks.cw:ENTRY",
    "apgd": "gauntlet.attacks.apgd:ENTRY",
    "apgd-t": "gauntlet.attacks.apgd:ENTRY_TARGETED",
    "apgd-warm": "gauntlet.attacks.warm_up:ENTRY",
    "malt": "gauntlet.attacks.malt:ENTRY",
    "fab": "gauntlet.attacks.fab:ENTRY",
    "fab-t": "gauntlet.attacks.fab:TARGETED",
    "square": "gauntlet.attacks.square:ENTRY",
    "noise": "gauntlet.attacks.noise:ENTRY",
    "fmn": "gauntlet.attacks.fmn:ENTRY",
    "ddn": "gauntlet.attacks.ddn:ENTRY",
    "deepfool": "gauntlet.attacks.deepfool:ENTRY",
    "hop_skip_jump": "gauntlet.attacks.hop_skip_jump:ENTRY",
    "autoattack": "gauntlet.attacks.autoattack:ENTRY",
    "gauntlet:fast": "gauntlet.attacks.gauntlet:FAST",
    "gauntlet": "gauntlet.attacks.gauntlet:DEFAULT",
    "gauntlet:thorough": "gauntlet.attacks.gauntlet:THOROUGH",
    "naive": "gauntlet.attacks.naive:ENTRY",
    "adaptive": "gauntlet.attacks.adaptive:ENTRY",
}
