"""The attacks that several libraries have, with the same budget in each."""

from __future__ import annotations

from gauntlet.bench.speed.comparisons import COMPARISONS, Comparison

_ENSEMBLE = COMPARISONS[-1].name
"""Its members are not the same attack."""

AGREEMENTS = (
    *(row for row in COMPARISONS if row.name != _ENSEMBLE),
    Comparison("FGSM L2", "L2", "fgsm", ("foolbox.FGSM", "art.FastGradientMethod"), (1, 1)),
    Comparison(
        "APGD-CE 50 L2",
        "L2",
        "apgd(steps=50)",
        (
            "torchattacks.APGD(steps=50)",
            "pyautoattack.APGD(steps=50)",
            "adv_lib.APGD(steps=50)",
            "art.AutoProjectedGradientDescent(steps=50)",
        ),
        (50, 50),
    ),
    Comparison(
        "APGD-DLR 50",
        "Linf",
        "apgd(loss=dlr, steps=50)",
        ("torchattacks.APGD(loss=dlr, steps=50)", "pyautoattack.APGD(loss=dlr, steps=50)"),
        (50, 50),
    ),
    Comparison(
        "APGD-T 9x50 L2",
        "L2",
        "apgd-t(steps=50)",
        ("torchattacks.APGDT(steps=50)", "pyautoattack.APGDT(steps=50)", "adv_lib.APGDT(steps=50)"),
        (450, 450),
    ),
    Comparison("DeepFool", "L2", "deepfool", ("torchattacks.DeepFool", "art.DeepFool"), (50, 500)),
    Comparison(
        "AutoAttack",
        "Linf",
        "autoattack",
        ("pyautoattack.AutoAttack", "torchattacks.AutoAttack"),
        (100 + 900 + 900 + 5000, 100 + 900 + 900),
    ),
)
