"""The conditions that strength is measured under: networks, threat models, and the half of the networks that is held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from gauntlet.attacks.ops.threat import Norm, ThreatModel

SAMPLES = 200
"""The first test images of each network's data."""
Half = Literal["held out", "for choosing", "many classes"]
_MANY_CLASSES = {"cnn.standard_pairs": ("0.1", "0.05"), "cnn.pgd_pairs": ("0.15", "0.1")}
"""Networks with a hundred classes, beside both halves, with their radii in Linf."""
_DIGITS = ("0.2", "0.15", "0.1")
_RADII: Mapping[Norm, Mapping[str, tuple[str, ...]]] = {
    "Linf": {
        "cnn.standard_digits": _DIGITS,
        "cnn.gauss_digits": _DIGITS,
        "cnn.pgd_l2_digits": _DIGITS,
        "cnn.fast_digits": _DIGITS,
        "cnn.pgd_digits": _DIGITS,
        "cnn.mart_digits": _DIGITS,
        "cnn.trades_digits": _DIGITS,
        "cnn.awp_digits": _DIGITS,
        "cnn.ibp_digits": _DIGITS,
        "wong_kolter_mnist": ("0.2", "0.15", "0.1"),
        "mnist_relu_9_200": ("0.03", "0.012"),
        "Convnet_maxpool": ("0.03", "0.01"),
        "cifar10_small": ("3/255", "1/255"),
        "cifar10_large": ("3/255", "1/255"),
        "resnet20_cifar10": ("8/255", "2/255", "1/255", "1/510"),
    },
    "L2": {
        "cnn.standard_digits": ("0.8", "0.5"),
        "cnn.pgd_l2_digits": ("0.8", "0.5"),
        "cnn.fast_digits": ("0.8", "0.5"),
        "cnn.trades_digits": ("0.8", "0.5"),
        "cnn.ibp_digits": ("0.8", "0.5"),
        "wong_kolter_mnist": ("1.5", "1"),
        "Convnet_maxpool": ("0.4", "0.2"),
        "cifar10_small": ("0.25", "0.1"),
    },
    "L1": {
        "cnn.standard_digits": ("1.2", "0.8"),
        "cnn.pgd_l2_digits": ("2", "1.2"),
        "cnn.pgd_digits": ("2", "1.2"),
        "wong_kolter_mnist": ("10", "5"),
    },
}
"""The radii of each network by norm, what is quick to attack first: small networks, and large radii, where few samples stand."""


@dataclass(frozen=True)
class Condition:
    """A network under a threat model."""

    network: str
    threat: ThreatModel

    def __str__(self) -> str:
        return f"{self.network} {self.threat}"

    @property
    def half(self) -> Half:
        """Of the networks of a norm with few classes, sorted by name, every second is held out: stages are not chosen by it."""
        if self.network in _MANY_CLASSES:
            return "many classes"
        return "held out" if sorted(_RADII[self.threat.norm]).index(self.network) % 2 == 1 else "for choosing"


_QUICKEST = tuple(_RADII["Linf"])
CONDITIONS = tuple(
    Condition(network, ThreatModel.parse(f"{norm}:{eps}"))
    for network in _QUICKEST
    for norm, networks in _RADII.items()
    for eps in networks.get(network, ())
) + tuple(
    Condition(network, ThreatModel("Linf", float(eps))) for network, radii in _MANY_CLASSES.items() for eps in radii
)
"""In the order in which they are measured."""


def choose_conditions(patterns: tuple[str, ...]) -> tuple[Condition, ...]:
    """Conditions whose text, such as `cnn.pgd_digits Linf:0.15`, matches one of the patterns (shell wildcards); all without.

    Raises ValueError that lists the networks if a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(str(one), pattern) for one in CONDITIONS):
            names = sorted({one.network for one in CONDITIONS})
            raise ValueError(
                f"no condition fits {pattern!r}: write for instance '* L2:*'; networks: {', '.join(names)}"
            )
    return tuple(
        one for one in CONDITIONS if not patterns or any(fnmatchcase(str(one), pattern) for pattern in patterns)
    )
