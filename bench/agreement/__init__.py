"""The work of `gauntlet agreement`: the same attack in every installed library."""
