"""The registered data sets. Listing their names imports neither torch nor the modules of the data sets."""

from __future__ import annotations

from functools import partial

from gauntlet.bench.data.samples.card import DataEntry
from gauntlet.bench.registry.registry import Registry
from gauntlet.bench.registry.validate import checked

DATA: Registry[DataEntry] = Registry("data", "gauntlet.data", partial(checked, DataEntry))
DATA.register("digits", "gauntlet.bench.data.digits:TEST")
DATA.register("digits-train", "gauntlet.bench.data.digits:TRAIN")
DATA.register("cifar10", "gauntlet.bench.data.published_sets:CIFAR10")
DATA.register("cifar100", "gauntlet.bench.data.published_sets:CIFAR100")
DATA.register("fashion-mnist", "gauntlet.bench.data.published_sets:FASHION")
DATA.register("imagenet", "gauntlet.bench.data.published_sets:IMAGENET")
DATA.register("mnist", "gauntlet.bench.data.published_sets:MNIST")
DATA.register("pairs", "gauntlet.bench.data.pairs:TEST")
DATA.register("pairs-train", "gauntlet.bench.data.pairs:TRAIN")
DATA.register("svhn", "gauntlet.bench.data.published_sets:SVHN")
DATA.register("tiny-imagenet", "gauntlet.bench.data.published_sets:TINY")
