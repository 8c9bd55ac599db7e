"""The embedded zoo: a small network on scikit-learn's digits, trained by nine recipes.

The figures, in percent, are those of the included weights (seed 0) on the 797 test images, under APGD-CE and APGD-T of 20
steps at the threat model of the training: L2 0.5 for pgd_l2, else Linf 0.15. The next columns are the figures with 100 steps,
and mean ± standard deviation over seeds with 20 steps.

    recipe     clean   robust   100 steps   seeds   clean        robust (lowest to highest)
    standard   97.4     6.9      6.9        10      97.0 ± 0.4    8.7 ± 2.7 ( 4.8 to 13.2)
    gauss      98.5    39.5     39.6        10      98.5 ± 0.2   37.7 ± 1.8 (34.5 to 39.5)
    fast       99.2    67.4     67.1        10      99.3 ± 0.1   67.1 ± 1.0 (65.7 to 68.4)
    pgd        98.9    72.8     72.4         6      99.0 ± 0.1   73.0 ± 1.2 (71.6 to 74.9)
    trades     98.1    76.9     76.5         6      98.0 ± 0.2   77.3 ± 0.6 (76.5 to 78.2)
    mart       98.7    75.0     74.9         5      98.6 ± 0.1   75.0 ± 1.0 (73.7 to 76.5)
    awp        98.1    77.0     77.0         5      98.0 ± 0.2   77.6 ± 0.8 (76.5 to 78.5)
    ibp        96.6    82.7     82.4         5      95.4 ± 1.2   78.8 ± 3.2 (74.2 to 82.7)
    pgd_l2     99.1    79.5     79.5         5      99.2 ± 0.1   80.2 ± 0.7 (79.5 to 81.4)

A tolerance is the distance of the figure from the mean plus 3 standard deviations, rounded up. Three seeds would be too few
to estimate it: the robust accuracy of the undefended network varies most. Interval bounds certify 80.7 % of the test images
for the included ibp, 77.2 ± 2.9 % over its seeds.

Importing this module does not import torch, so that listing cards is quick.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gauntlet.bench.models.parts.card import ModelCard, ModelEntry, Spread

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = Path(__file__).parent / "weights"


def build_zoo_model(file: str, sha256: str, folder: Path = WEIGHTS) -> nn.Module:
    """The zoo's network with the weights of `file`, in eval mode.

    Raises ModelError if the file is missing or its sha256 is not that of the card, since results of other weights would
    appear under the card's name.
    """
    from safetensors.torch import load

    from gauntlet.bench.models.cnn import cnn
    from gauntlet.bench.models.parts.classifier import ModelError

    repair = (
        "install the package again (pip install --force-reinstall --no-deps robust-gauntlet), or in a checkout restore "
        f"bench/models/weights/{file}; to evaluate your own weights, pass them as weights="
    )
    path = folder / file
    if not path.is_file():
        raise ModelError(f"weights file {str(path)!r} is not there: {repair}")
    # Hashed and loaded from the same bytes, so that the file cannot change in between.
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if digest != sha256:
        raise ModelError(
            f"weights file {str(path)!r} is not the included file: its sha256 is {digest}, not {sha256}: {repair}"
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
    seeds: tuple[Spread, Spread],
    clean_tolerance: float,
    tolerance: float,
    certified: float | None = None,
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
        claim_threat=threat or "Linf:0.15",
        claim_attack="APGD-CE and APGD-T (20 steps, 9 targets) of torchattacks",
        certified=certified,
        clean_over_seeds=seeds[0],
        robust_over_seeds=seeds[1],
        clean_tolerance=clean_tolerance,
        tolerance=tolerance,
    )
    return ModelEntry(card, partial(build_zoo_model, card.weights, sha256), source="gauntlet.bench.models.cnn:cnn")


STANDARD = _entry(
    "standard",
    "cross-entropy on clean images",
    "the undefended baseline",
    "628344cfb26eb26bf242edb08594f9618af11fad631b5268a81d2c196c2d733c",
    threat=None,
    clean=776 / 797,
    robust=55 / 797,
    seeds=(Spread(0.970, 0.004, 10), Spread(0.087, 0.027, 10)),
    clean_tolerance=0.02,
    tolerance=0.10,
)
GAUSS = _entry(
    "gauss",
    "trained on images with Gaussian noise, sigma 0.25",
    "Gilmer et al. 2019, arXiv 1901.10513",
    "04557cbe80e79e35ae77bf6c62c5065f0c90def4ee92bbcacd0a49719862b87e",
    threat=None,
    clean=785 / 797,
    robust=315 / 797,
    seeds=(Spread(0.985, 0.002, 10), Spread(0.377, 0.018, 10)),
    clean_tolerance=0.01,
    tolerance=0.08,
)
FAST = _entry(
    "fast",
    "adversarial training, FGSM with random start",
    "Wong, Rice, Kolter 2020, arXiv 2001.03994",
    "2ea0be38cdb3113e2714671df6b188f7e0bd7a7bfc30fa3746c9fdf76de8dcc6",
    threat="Linf:0.15",
    clean=791 / 797,
    robust=537 / 797,
    seeds=(Spread(0.993, 0.001, 10), Spread(0.671, 0.010, 10)),
    clean_tolerance=0.01,
    tolerance=0.04,
)
PGD = _entry(
    "pgd",
    "adversarial training, PGD with 10 steps",
    "Madry et al. 2018, arXiv 1706.06083",
    "bec0f102f7b416f8fb4f66bd072ed7deebe11739a1b3ef3bc04bd6d24d7def83",
    threat="Linf:0.15",
    clean=788 / 797,
    robust=580 / 797,
    seeds=(Spread(0.990, 0.001, 6), Spread(0.730, 0.012, 6)),
    clean_tolerance=0.01,
    tolerance=0.04,
)
TRADES = _entry(
    "trades",
    "TRADES, beta 6, 10 steps",
    "Zhang et al. 2019, arXiv 1901.08573",
    "8c6402b01d57b6b70fcf97977e08a7e98d36f50e87f71ca74c606040e66798d9",
    threat="Linf:0.15",
    clean=782 / 797,
    robust=613 / 797,
    seeds=(Spread(0.980, 0.002, 6), Spread(0.773, 0.006, 6)),
    clean_tolerance=0.01,
    tolerance=0.03,
)
MART = _entry(
    "mart",
    "MART, beta 6, 10 steps",
    "Wang et al. 2020, openreview rklOg6EFwS",
    "d88192fd08dc15bdd4b6fac2150976dd237e485fd70ff93ab138c902d028f140",
    threat="Linf:0.15",
    clean=787 / 797,
    robust=598 / 797,
    seeds=(Spread(0.986, 0.001, 5), Spread(0.750, 0.010, 5)),
    clean_tolerance=0.01,
    tolerance=0.04,
)
AWP = _entry(
    "awp",
    "TRADES with adversarially perturbed weights, gamma 0.005",
    "Wu, Xia, Wang 2020, arXiv 2004.05884",
    "c86c40af367cf4b18bcc1265c99b3a91884605343c8352ba15b7896139d6426d",
    threat="Linf:0.15",
    clean=782 / 797,
    robust=614 / 797,
    seeds=(Spread(0.980, 0.002, 5), Spread(0.776, 0.008, 5)),
    clean_tolerance=0.01,
    tolerance=0.03,
)
IBP = _entry(
    "ibp",
    "interval bound propagation, trained at eps 0.2",
    "Gowal et al. 2018, arXiv 1810.12715",
    "3f3d9b9d7078c0f00b842282951d6ad4ad3987fad3f1f05cde4929c45e162862",
    threat="Linf:0.15",
    clean=770 / 797,
    robust=659 / 797,
    seeds=(Spread(0.954, 0.012, 5), Spread(0.788, 0.032, 5)),
    clean_tolerance=0.05,
    tolerance=0.14,
    certified=643 / 797,
)
PGD_L2 = _entry(
    "pgd_l2",
    "adversarial training in L2, PGD with 10 steps",
    "Madry et al. 2018, arXiv 1706.06083",
    "dc9a1dc601672d83594ae65fcaf6bf6ba57ca515c986a2fd4bac795e061339c6",
    threat="L2:0.5",
    clean=790 / 797,
    robust=634 / 797,
    seeds=(Spread(0.992, 0.001, 5), Spread(0.802, 0.007, 5)),
    clean_tolerance=0.01,
    tolerance=0.03,
)
