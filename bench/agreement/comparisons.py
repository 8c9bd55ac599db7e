"""The attacks that several libraries have, with the same budget in each."""

from __future__ import annotations

from dataclasses import replace

from gauntlet.bench.speed.comparisons import COMPARISONS, Comparison

_ENSEMBLE = COMPARISONS[-1].name
"""Its members are not the same attack."""


def _in_l2(name: str) -> Comparison:
    """The comparison of that name in L2."""
    (row,) = (row for row in COMPARISONS if row.name == name)
    return replace(row, name=f"{name} L2", norm="L2")


AGREEMENTS = (
    *(row for row in COMPARISONS if row.name != _ENSEMBLE),
    Comparison("FGSM L2", "L2", "fgsm", ("foolbox.FGSM", "art.FastGradientMethod"), (1, 1)),
    _in_l2("APGD-CE 50"),
    Comparison(
        "APGD-DLR 50",
        "Linf",
        "apgd(loss=dlr, steps=50)",
        ("torchattacks.APGD(loss=dlr, steps=50)", "pyautoattack.APGD(loss=dlr, steps=50)"),
        (50, 50),
    ),
    _in_l2("APGD-T 9x50"),
    Comparison("DeepFool", "L2", "deepfool", ("torchattacks.DeepFool", "art.DeepFool"), (50, 500)),
    Comparison(
        "AutoAttack",
        "Linf",
        "autoattack",
        ("pyautoattack.AutoAttack", "torchattacks.AutoAttack"),
        (100 + 900 + 900 + 5000, 100 + 900 + 900),
    ),
)
