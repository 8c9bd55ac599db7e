"""How often a gate passes a drop of the margin: enumerated exactly, and the table of docs/ci.md."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy.special import betaincinv, ndtri
from scipy.stats import binom

from builders import ROOT
from gauntlet.leaderboard.stats.paired import drop_upper

ALPHA = 0.05
GAINED = (0.0, *np.geomspace(0.0002, 0.3, 60))
"""Shares of gained samples; the share of lost ones is larger by the margin."""
WORST = {
    0.005: ((647, 0.01012), (647, 0.01012), (1000, 0.00565)),
    0.01: ((323, 0.02022), (541, 0.00978), (1106, 0.03184)),
    0.02: ((160, 0.04055), (526, 0.04104), (1106, 0.15117)),
    0.03: ((106, 0.06061), (502, 0.06494), (1579, 0.00018)),
    0.05: ((63, 0.10068), (647, 0.00044), (3382, 0.00018)),
    0.1: ((33, 0.02984), (500, 0.14432), (2141, 0.00027)),
    0.2: ((16, 0.23554), (511, 0.00144), (1164, 0.00105)),
}
"""By margin: number of samples and share of gained ones for which a false pass is most likely, for any number of samples, at
least 500 and at least 1,000: found by the scan below, refined around its maxima."""


def table():
    """Of docs/ci.md: by margin, the fewest samples that can be held, and the largest chances of a false pass."""
    file = ROOT / "docs" / "ci.md"
    if not file.is_file():
        pytest.skip("the documentation is not part of an installation")
    rows = re.findall(
        r"^ *\| ([\d.]+) points? \| (\d+) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$",
        file.read_text("utf-8"),
        re.MULTILINE,
    )
    return {
        round(float(margin) / 100, 6): (int(n), *(float(one) / 100 for one in chances)) for margin, n, *chances in rows
    }


def most_lost(n, margin, gained):
    """The largest number of lost samples that is held beside each number of gained ones (N,); -1 if none is.

    Held: both bounds of `drop_upper` are below the margin, Tango's because its score test rejects a drop of the margin.
    """
    low, high = np.full(gained.shape, -1), n - gained + 1
    while (high - low > 1).any():
        middle = np.maximum((low + high) // 2, 0)
        b = (2 * n - middle + gained) * margin - middle - gained
        share = (np.sqrt(np.maximum(b * b + 8 * n * gained * margin * (1 - margin), 0)) - b) / (4 * n)
        deviation = np.sqrt(np.maximum(n * (2 * share + margin * (1 - margin)), 0))
        tango = n * margin - (middle - gained) >= float(ndtri(1 - ALPHA)) * deviation
        more = np.maximum(middle - gained, 0)
        exact = (more < n) & (betaincinv(more + 1, np.maximum(n - more, 1), 1 - ALPHA) < margin)
        open_, held = high - low > 1, tango & exact
        low, high = np.where(open_ & held, middle, low), np.where(open_ & ~held, middle, high)
    return low


def false_pass(n, margin, shares):
    """The chance that a drop of the margin is held, for each share of gained samples: summed over all outcomes."""
    gained = np.arange(min(n, int(max(binom.isf(1e-12, n, share) for share in shares)) + 2) + 1)
    most = most_lost(n, margin, gained)
    return [
        float(np.sum(binom.pmf(gained, n, share) * binom.cdf(most, n - gained, (share + margin) / (1 - share))))
        for share in shares
    ]


@pytest.mark.parametrize(("n", "margin"), [(160, 0.02), (33, 0.1), (647, 0.005)])
def test_what_is_enumerated_is_what_the_gate_holds(n, margin):
    gained = np.arange(0, n // 4, max(1, n // 16))
    for won, most in zip(gained.tolist(), most_lost(n, margin, gained).tolist(), strict=True):
        assert most < 0 or drop_upper(most, won, n, 1 - ALPHA) < margin
        assert drop_upper(most + 1, won, n, 1 - ALPHA) >= margin


@pytest.mark.parametrize("margin", WORST)
def test_the_table_of_the_documentation_is_the_largest_chance_rounded_up(margin):
    fewest, *stated = table()[margin]
    assert fewest == math.ceil(math.log(ALPHA) / math.log(1 - margin))
    for bound, (n, share) in zip(stated, WORST[margin], strict=True):
        assert bound - 0.001 < false_pass(n, margin, [share])[0] <= bound


def test_the_table_has_all_margins():
    assert table().keys() == WORST.keys()


def test_no_other_share_of_gained_samples_is_worse():
    for margin in (0.02, 0.05, 0.1):
        for bound, (n, _) in zip(table()[margin][1:], WORST[margin], strict=True):
            assert max(false_pass(n, margin, GAINED)) <= bound


@pytest.mark.slow
@pytest.mark.parametrize("margin", WORST)
def test_no_other_number_of_samples_is_worse(margin):
    fewest, *bounds = table()[margin]
    for n in sorted({*range(fewest, 1001), *np.geomspace(1000, 20000, 60).astype(int).tolist()}):
        largest = max(false_pass(n, margin, GAINED))
        assert all(largest <= bound for bound, least in zip(bounds, (0, 500, 1000), strict=True) if n >= least), n
