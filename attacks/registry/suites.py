"""Suites: named lists of attacks with their budgets, per norm."""

from __future__ import annotations

from dataclasses import dataclass

from gauntlet.attacks.ops.threat import NORMS, Norm


@dataclass(frozen=True)
class Member:
    """An attack of a suite: the label of its column, and the attack with its settings."""

    label: str
    spec: str


_CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""Hendrycks and Dietterich 2019 (arXiv 1903.12261), without frost, which needs pictures."""


def _corruptions(*names: str) -> dict[Norm, tuple[Member, ...]]:
    """The same under every threat model, which corruptions do not depend on."""
    members = tuple(Member(name, f"corruption.{name}") for name in names)
    return dict.fromkeys(NORMS, members)


SUITES: dict[str, dict[Norm, tuple[Member, ...]]] = {
    "quick": {
        "Linf": (Member("fgsm", "fgsm"), Member("pgd-10", "pgd(steps=10)")),
        "L2": (Member("fgsm", "fgsm"), Member("pgd-10", "pgd(steps=10)")),
        "L1": (Member("pgd-10", "pgd(steps=10)"), Member("apgd-10", "apgd(steps=10)")),
    },
    "adaptive": {
        "Linf": (
            Member("naive", "naive"),
            Member("adaptive", "adaptive"),
            Member("replay", "replay"),
            Member("certificate", "certificate"),
        ),
        "L2": (
            Member("naive", "naive"),
            Member("adaptive", "adaptive"),
            Member("replay", "replay"),
            Member("certificate", "certificate"),
        ),
        "L1": (Member("adaptive", "adaptive"), Member("replay", "replay")),
    },
    "corruptions": _corruptions(*_CORRUPTIONS),
    "corruptions-15": _corruptions(*_CORRUPTIONS, "frost"),
    "standard": {
        "Linf": (
            Member("fgsm", "fgsm"),
            Member("pgd", "pgd(steps=40, restarts=2)"),
            Member("pgd-cw", "pgd(steps=40, loss=cw)"),
        ),
        "L2": (Member("pgd", "pgd(steps=40, restarts=2)"), Member("cw", "cw")),
        "L1": (
            Member("pgd", "pgd(steps=40, restarts=2)"),
            Member("apgd", "apgd(steps=40)"),
            Member("apgd-t", "apgd-t(steps=20, targets=4)"),
        ),
    },
}


def suite_members(name: str, norm: Norm) -> tuple[Member, ...]:
    """The attacks of a suite for a norm; empty where the suite has none for it. Raises KeyError for an unknown suite."""
    return SUITES[name].get(norm, ())
