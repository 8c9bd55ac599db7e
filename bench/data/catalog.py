"""The registered data sets. Listing the names imports neither torch nor the data sets' modules."""

from __future__ import annotations

from gauntlet.bench.data.card import DataEntry
from gauntlet.bench.registry import Registry

DATA: Registry[DataEntry] = Registry("data")
DATA.register("digits", "gauntlet.bench.data.digits:TEST")
DATA.register("digits-train", "gauntlet.bench.data.digits:TRAIN")
