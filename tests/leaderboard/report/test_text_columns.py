"""Columns of text: alignment, and names that are shortened where they agree."""

from __future__ import annotations

import pytest

from gauntlet.leaderboard.report.text_columns import aligned, shortened, text_width

ZOO = [
    f"cnn.{recipe}_digits" for recipe in ("awp", "fast", "gauss", "ibp", "mart", "pgd", "pgd_l2", "standard", "trades")
]


@pytest.mark.parametrize("width", [13, 14, 15, 16])
def test_names_of_a_family_keep_what_tells_them_apart(width):
    short = shortened(ZOO, width)
    assert all(text_width(text) <= width for text in short.values())
    assert len(set(short.values())) == len(ZOO)
    for name, text in short.items():
        recipe = name.removeprefix("cnn.").removesuffix("_digits")
        assert recipe in text, f"{name} became {text}"


def test_a_long_name_without_relatives_keeps_both_ends():
    (short,) = shortened(["wide_resnet_28_10.trades_with_extra_synthetic_data_and_more_linf0.15"], 24).values()
    assert short.startswith("wide")
    assert short.endswith("0.15")
    assert text_width(short) == 24


def test_names_that_are_short_enough_stay_as_they_are():
    assert shortened(["net", "plain"], 5) == {"net": "net", "plain": "plain"}


def test_wide_and_combining_characters_count_as_a_terminal_shows_them():
    (short,) = shortened(["模型" * 10 + "e\u0301" * 10], 15).values()
    assert 13 <= text_width(short) <= 15


def test_a_table_would_rather_be_too_wide_than_show_two_names_as_one():
    names = [f"{'a' * 20}{left}{'b' * 20}{right}{'c' * 20}" for left in "xy" for right in "xy"]
    lines = aligned([[name, "1"] for name in names], left={0}, names={0}, width=20)
    assert len({line.partition(" ")[0] for line in lines}) == len(names)


def test_a_table_that_cannot_be_narrow_enough_has_single_blanks():
    line = ["net", "95.0 → 85.0 [62.1, 96.8]", "20"]
    assert aligned([line], left=(), names={0}, width=33) == ["  ".join(line)]
    assert aligned([line], left=(), names={0}, width=32) == [" ".join(line)]


@pytest.mark.parametrize("width", [30, 24, 18])
def test_a_table_is_as_narrow_as_asked_where_names_allow_it(width):
    lines = aligned([[name, "100.0"] for name in ZOO], left={0}, names={0}, width=width)
    assert max(map(text_width, lines)) <= max(width, 19)
    assert len(set(lines)) == len(ZOO)
