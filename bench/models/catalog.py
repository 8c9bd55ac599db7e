"""The registered models. Listing their names imports neither torch nor the modules of the models."""

from __future__ import annotations

from functools import partial

from gauntlet.bench.models.parts.card import ModelEntry
from gauntlet.bench.registry.registry import Registry
from gauntlet.bench.registry.validate import checked

MODELS: Registry[ModelEntry] = Registry("model", "gauntlet.models", partial(checked, ModelEntry))
for _recipe in ("standard", "gauss", "fast", "pgd", "trades", "mart", "awp", "ibp", "pgd_l2"):
    MODELS.register(f"cnn.{_recipe}_digits", f"gauntlet.bench.models.zoo:{_recipe.upper()}")
for _recipe in ("standard", "pgd"):
    MODELS.register(f"cnn.{_recipe}_pairs", f"gauntlet.bench.models.zoo:{_recipe.upper()}_PAIRS")
