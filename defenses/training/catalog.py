"""All training recipes by name."""

from __future__ import annotations

from gauntlet.defenses.training import fast, gauss, pgd, standard, trades
from gauntlet.defenses.training.loop import Recipe

RECIPES: dict[str, Recipe] = {module.RECIPE.name: module.RECIPE for module in (standard, gauss, fast, pgd, trades)}
