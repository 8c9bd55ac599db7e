"""All training recipes by name."""

from __future__ import annotations

from gauntlet.defenses.training import awp, fast, gauss, ibp, mart, pgd, pgd_l2, standard, trades
from gauntlet.defenses.training.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    module.RECIPE.name: module.RECIPE for module in (standard, gauss, fast, pgd, trades, mart, awp, ibp, pgd_l2)
}
