"""The embedded zoo: one small network on scikit-learn's digits, trained by five recipes.

The figures are those of the shipped weights (seed 0) on the 797 test images, at Linf 0.15 under APGD-CE and APGD-T of
20 steps. Beside them, in percent: with 100 steps, and mean ± standard deviation over seeds 0 to 2 with 20 steps, from
which the tolerances are taken (at least 3 standard deviations, since seed 0 has its own error).

    recipe     clean   robust   100 steps   clean, 3 seeds   robust, 3 seeds
    standard   97.4     6.9      6.9        97.0 ± 0.3        7.7 ± 1.2
    gauss      98.5    39.5     39.6        98.5 ± 0.2       39.0 ± 0.5
    fast       99.2    67.4     67.1        99.4 ± 0.1       67.5 ± 0.6
    pgd        98.9    72.8     72.4        99.0 ± 0.1       73.1 ± 0.5
    trades     98.1    76.9     76.5        98.1 ± 0.1       77.4 ± 0.7

Importing this module imports no torch, so that cards are listed quickly.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gauntlet.bench.models.card import ModelCard, ModelEntry

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = Path(__file__).parent / "weights"


def build_zoo_model(file: str, sha256: str, folder: Path = WEIGHTS) -> nn.Module:
    """The zoo's network with the weights of `file`, in eval mode.

    Raises ModelError where the file is missing, or where its sha256 is not the card's: results on other weights would
    stand under the card's name.
    """
    from safetensors.torch import load

    from gauntlet.bench.models.classifier import ModelError
    from gauntlet.bench.models.cnn import cnn

    repair = (
        "install the package again (pip install --force-reinstall --no-deps robust-gauntlet), or in a checkout restore "
        f"bench/models/weights/{file}; to evaluate weights of your own, name them with weights="
    )
    path = folder / file
    if not path.is_file():
        raise ModelError(f"weights file {str(path)!r} is not there: {repair}")
    # Hashed and loaded from the same bytes, so that nothing can change in between.
    raw = path.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise ModelError(
            f"weights file {str(path)!r} is not the one shipped: its sha256 is {found}, not {sha256}: {repair}"
        )
    model = cnn()
    model.load_state_dict(load(raw))
    return model.eval()


def _entry(
    recipe: str,
    summary: str,
    source: str,
    sha256: str,
    *,
    threat: str | None,
    clean: float,
    robust: float,
    tolerance: float,
) -> ModelEntry:
    name = f"cnn.{recipe}_digits"
    card = ModelCard(
        name=name,
        summary=summary,
        architecture="3 convolutions, 2 linear layers, ReLU, 66,358 parameters; input (1, 8, 8)",
        recipe=recipe,
        data="digits",
        threat=threat,
        source=source,
        licence="MIT",
        weights=f"{name}.safetensors",
        sha256=sha256,
        clean=clean,
        n=797,
        robust=robust,
        claim_threat="Linf:0.15",
        claim_attack="APGD-CE and APGD-T (20 steps, 9 targets) of torchattacks",
        clean_tolerance=0.015,
        tolerance=tolerance,
    )
    return ModelEntry(card, partial(build_zoo_model, card.weights, sha256), source="gauntlet.bench.models.cnn:cnn")


STANDARD = _entry(
    "standard",
    "cross-entropy on clean images",
    "the undefended baseline",
    "2a613563a690c3eb6b1c5f710c289a25e298d97aa14cf02112b607749fce3582",
    threat=None,
    clean=776 / 797,
    robust=55 / 797,
    tolerance=0.04,
)
GAUSS = _entry(
    "gauss",
    "trained on images with Gaussian noise, sigma 0.25",
    "Gilmer et al. 2019, arXiv 1901.10513",
    "2915c12f9b4b33c77fe4c0b63b29c1ac897491a4842ea052ffbb40466882d8c6",
    threat=None,
    clean=785 / 797,
    robust=315 / 797,
    tolerance=0.03,
)
FAST = _entry(
    "fast",
    "adversarial training, FGSM with random start",
    "Wong, Rice, Kolter 2020, arXiv 2001.03994",
    "2eeb8ef6547926cbe439780711b851825ced1aaee68fa298e866f6288b9a3385",
    threat="Linf:0.15",
    clean=791 / 797,
    robust=537 / 797,
    tolerance=0.03,
)
PGD = _entry(
    "pgd",
    "adversarial training, PGD with 10 steps",
    "Madry et al. 2018, arXiv 1706.06083",
    "f5e0115617eb8ef01160ef752ba2fe80fa50b087a6b5a4adfaa9b956c45dfdc7",
    threat="Linf:0.15",
    clean=788 / 797,
    robust=580 / 797,
    tolerance=0.03,
)
TRADES = _entry(
    "trades",
    "TRADES, beta 6, 10 steps",
    "Zhang et al. 2019, arXiv 1901.08573",
    "9d4110c698bec072d2720c5480b3e9d22b4ccda87239a0c317ef03e8f5bd3a09",
    threat="Linf:0.15",
    clean=782 / 797,
    robust=613 / 797,
    tolerance=0.03,
)
