"""Checks for the tests of your own attacks: `check_rule(rule)` raises AssertionError with a sentence for each problem."""

from __future__ import annotations

from gauntlet.bench.rule_checks.check_rule import RuleReport, check_rule

__all__ = ["RuleReport", "check_rule"]
