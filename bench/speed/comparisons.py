"""The comparisons: an attack of ours, and the same attack with the same budget in other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from gauntlet.attacks.ops.threat import Norm


@dataclass(frozen=True)
class Comparison:
    """An attack and its peers, as specs of `gauntlet run --attacks`."""

    name: str
    norm: Norm
    ours: str
    peers: tuple[str, ...]
    passes: tuple[int, int]
    """Forward and backward passes of the full budget for a sample that is not broken."""


COMPARISONS = (
    Comparison("FGSM", "Linf", "fgsm", ("torchattacks.FGSM", "foolbox.FGSM", "art.FastGradientMethod"), (1, 1)),
    Comparison(
        "PGD-40 Linf",
        "Linf",
        "pgd(steps=40)",
        (
            "torchattacks.PGD(steps=40)",
            "foolbox.PGD(steps=40)",
            "adv_lib.PGD(steps=40)",
            "art.ProjectedGradientDescent(steps=40)",
        ),
        (40, 40),
    ),
    Comparison(
        "PGD-40 L2",
        "L2",
        "pgd(steps=40)",
        ("torchattacks.PGD(steps=40)", "foolbox.PGD(steps=40)", "art.ProjectedGradientDescent(steps=40)"),
        (40, 40),
    ),
    Comparison(
        "APGD-CE 50",
        "Linf",
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
        "APGD-T 9x50",
        "Linf",
        "apgd-t(steps=50)",
        ("torchattacks.APGDT(steps=50)", "pyautoattack.APGDT(steps=50)", "adv_lib.APGDT(steps=50)"),
        (450, 450),
    ),
    Comparison(
        "FAB-T 9x50",
        "Linf",
        "fab-t(steps=50, stop_inside=True)",
        ("torchattacks.FAB(steps=50)", "pyautoattack.FAB(steps=50)", "adv_lib.FAB(steps=50)"),
        (450, 450),
    ),
    Comparison(
        "Square 1000",
        "Linf",
        "square(queries=1000)",
        (
            "torchattacks.Square(queries=1000, rescale=False)",
            "pyautoattack.Square(queries=1000)",
            "art.SquareAttack(queries=1000)",
        ),
        (1000, 0),
    ),
    Comparison(
        "C&W 9x100",
        "L2",
        "cw(search_steps=9, steps=100)",
        (
            "torchattacks.CW(search_steps=9, steps=100)",
            "foolbox.CarliniWagner(search_steps=9, steps=100, lr=0.02, initial_c=0.1)",
            "adv_lib.CarliniWagner(search_steps=9, steps=100, lr=0.02, initial_c=0.1)",
            "art.CarliniL2Method(search_steps=9, steps=100)",
        ),
        (900, 900),
    ),
    Comparison(
        "gauntlet / AutoAttack",
        "Linf",
        "gauntlet",
        ("pyautoattack.AutoAttack", "torchattacks.AutoAttack"),
        (100 + 900 + 900 + 5000, 100 + 900 + 900),
    ),
)


SIMULATED = (
    Comparison("PGD-20", "Linf", "pgd(steps=20)", ("torchattacks.PGD(steps=20)",), (20, 20)),
    Comparison(
        "APGD-CE 100",
        "Linf",
        "apgd(steps=100)",
        ("torchattacks.APGD(steps=100)", "pyautoattack.APGD(steps=100)"),
        (100, 100),
    ),
    COMPARISONS[-1],
)
"""The rows of `gauntlet speed --simulate`."""


def choose_comparisons(
    patterns: tuple[str, ...], among: tuple[Comparison, ...] = COMPARISONS
) -> tuple[Comparison, ...]:
    """Comparisons whose name, with its norm or without, matches one of the patterns; all without patterns.

    Patterns are shell wildcards, and case is ignored. Raises ValueError that lists the names if a pattern matches none.
    """

    def fits(row: Comparison, pattern: str) -> bool:
        names = {row.name, row.name.removesuffix(f" {row.norm}")}
        return any(fnmatchcase(name.lower(), pattern.lower()) for name in names)

    for pattern in patterns:
        if not any(fits(row, pattern) for row in among):
            raise ValueError(f"no row fits {pattern!r}: there are {', '.join(row.name for row in among)}")
    return tuple(row for row in among if not patterns or any(fits(row, pattern) for pattern in patterns))
