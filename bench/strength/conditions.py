"""The conditions that strength is measured under: networks, threat models, and the half of the networks that is held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gauntlet.attacks.ops.threat import Norm, ThreatModel

SAMPLES = 200
"""The first test images of each network's data."""
_DIGITS = ("0.1", "0.15", "0.2")
_RADII: Mapping[Norm, Mapping[str, tuple[str, ...]]] = {
    "Linf": {
        "Convnet_maxpool": ("0.01", "0.03"),
        "cifar10_large": ("1/255", "3/255"),
        "cifar10_small": ("1/255", "3/255"),
        "cnn.awp_digits": _DIGITS,
        "cnn.fast_digits": _DIGITS,
        "cnn.gauss_digits": _DIGITS,
        "cnn.ibp_digits": _DIGITS,
        "cnn.mart_digits": _DIGITS,
        "cnn.pgd_digits": _DIGITS,
        "cnn.pgd_l2_digits": _DIGITS,
        "cnn.standard_digits": _DIGITS,
        "cnn.trades_digits": _DIGITS,
        "mnist_relu_9_200": ("0.012", "0.03"),
        "resnet20_cifar10": ("1/510", "1/255", "2/255", "8/255"),
        "wong_kolter_mnist": ("0.1", "0.15", "0.2"),
    },
    "L2": {
        "Convnet_maxpool": ("0.2", "0.4"),
        "cifar10_small": ("0.1", "0.25"),
        "cnn.fast_digits": ("0.5", "0.8"),
        "cnn.ibp_digits": ("0.5", "0.8"),
        "cnn.pgd_l2_digits": ("0.5", "0.8"),
        "cnn.standard_digits": ("0.5", "0.8"),
        "cnn.trades_digits": ("0.5", "0.8"),
        "wong_kolter_mnist": ("1", "1.5"),
    },
    "L1": {
        "cnn.pgd_digits": ("1.2", "2"),
        "cnn.pgd_l2_digits": ("1.2", "2"),
        "cnn.standard_digits": ("0.8", "1.2"),
        "wong_kolter_mnist": ("5", "10"),
    },
}


@dataclass(frozen=True)
class Condition:
    """A network under a threat model."""

    network: str
    threat: ThreatModel

    def __str__(self) -> str:
        return f"{self.network} {self.threat}"

    @property
    def held_out(self) -> bool:
        """Whether stages are never chosen by this network in this norm: of its networks sorted by name, every second."""
        return sorted(_RADII[self.threat.norm]).index(self.network) % 2 == 1


CONDITIONS = tuple(
    Condition(network, ThreatModel.parse(f"{norm}:{eps}"))
    for norm, networks in _RADII.items()
    for network, radii in networks.items()
    for eps in radii
)


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
