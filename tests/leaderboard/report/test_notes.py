"""What the tables say in words: why rows have no rank, what flags advise, and the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from builders import bits, cell_info, result
from gauntlet.leaderboard.report.notes import checks_off, phrased, row_notes, verdict, wrapped
from gauntlet.leaderboard.report.terminal import terminal_report
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.build_rows import build_rows

ZERO = Flag(
    "zero-gradient",
    "block",
    "Gradients are zero for 5 of 20 samples. Attack by BPDA and without gradients: --attacks adaptive.",
    needs=("bpda", "black-box"),
)


def noted(*results, surface="command line"):
    return row_notes(build_rows(list(results)), surface)


def test_a_row_without_rank_says_why_and_what_to_do():
    (line,) = noted(result(bits(20, 15), cell_info("net"), flags=[ZERO]))
    assert line == (
        "net has no rank: gradients are zero for 5 of 20 samples. Attack by BPDA and without gradients: --attacks adaptive."
    )


@pytest.mark.parametrize(
    ("surface", "remedy"),
    [
        ("command line", "--attacks adaptive."),
        ("pytest", "--gauntlet-attacks adaptive."),
        ("python", 'attacks="adaptive".'),
    ],
)
def test_the_remedy_is_phrased_for_the_surface(surface, remedy):
    (line,) = noted(result(bits(20, 15), flags=[ZERO]), surface=surface)
    assert line.endswith(f"without gradients: {remedy}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("use --std 0.0039.", "use std=(0.0039,) in the model's forward, or in gauntlet.load_model."),
        (
            "use --mean 0.485,0.456,0.406 and --std 0.2,0.2,1e-3.",
            "use mean=(0.485, 0.456, 0.406) and std=(0.2, 0.2, 1e-3) in the model's forward, or in gauntlet.load_model.",
        ),
        ("normalisation that it expects (--mean and --std)", "normalisation that it expects (mean and std)"),
        ("try a smaller --batch-size", "try a smaller batch_size"),
        ("Use another --out folder", "Use another store folder"),
        ("--weights a.pt#ema takes", 'weights="a.pt#ema" takes'),
        ("a well-known --checks none.", 'a well-known checks="none".'),
        ("gcc: unknown option --attacks-all or --verbose", "gcc: unknown option --attacks-all or --verbose"),
    ],
)
def test_options_become_arguments_in_python(text, expected):
    assert phrased(text, "python") == expected


def test_what_the_techniques_of_a_flag_still_lack_is_said_where_its_message_has_no_remedy():
    flag = Flag("randomised-defense", "block", "The model answers the same image differently", needs=("eot",))
    (line,) = noted(result(bits(20, 15), flags=[flag]))
    assert line.endswith(
        "the model answers the same image differently. The figure needs attacks by eot: --attacks adaptive."
    )


def test_a_row_that_adaptive_attacked_is_not_told_to_use_adaptive():
    missed = Flag(
        "planted-example", "block", "The attack misses 3 of 20 planted examples. Use another: --attacks adaptive."
    )
    (line,) = noted(result(bits(20, 15), cell_info(attack="adaptive", suite="adaptive"), flags=[missed]))
    assert "--attacks adaptive" not in line
    assert "misses 3 of 20" in line
    assert "docs/extending.md" in line


def test_of_several_reasons_the_first_is_told_in_full_and_the_others_by_name():
    other = Flag("finite-differences", "block", "Slopes disagree.")
    (line,) = noted(result(bits(20, 15), flags=[ZERO, other]))
    assert line.endswith("--attacks adaptive. Also: finite-differences.")
    assert "Slopes" not in line


def test_an_error_comes_before_flags():
    (line,) = noted(result((), error="out of paper", flags=[ZERO], expected=20))
    assert line == "net has no rank: attack pgd (seed 0) failed: RuntimeError: out of paper."


def test_an_unfinished_row_says_how_it_is_finished():
    (line,) = noted(result(bits(5, 5), expected=20))
    assert line == "net has no rank: attack pgd (seed 0) is not finished: 5 of 20 samples. Run the same command again."


@pytest.mark.parametrize(
    "cell",
    [
        cell_info(attack="replay", attack_kind="transfer", role="replay"),
        cell_info(attack="certificate", attack_kind="certificate"),
    ],
)
def test_a_row_that_nothing_attacked_has_no_rank(cell):
    proven = {"certified": bits(20, 0)} if cell.proves else {}
    (line,) = noted(result(bits(20, 20), cell, forwards=np.zeros(20), **proven))
    assert (
        line == "net has no rank: no attack was run: robust is what is right when clean. Add one: --attacks standard."
    )


def test_a_flag_that_the_attack_answered_is_not_shown():
    searched = cell_info(techniques={"a": "bpda", "b": "black-box"})
    assert noted(result(bits(20, 15), searched, flags=[ZERO], forwards=[300] * 20)) == []
    fallback = Flag("masked-gradients", "warn", "Gradients vanished for 4 samples, which were attacked by search.")
    assert noted(result(bits(20, 15), flags=[fallback])) == []


def test_advice_that_was_followed_is_not_given_again():
    flat = Flag("flat-logits", "warn", "Logits are flat. Use attacks on the margin, such as --attacks gauntlet")
    (line,) = noted(result(bits(20, 15), flags=[flat]))
    assert line == "net (flat-logits): logits are flat. Use attacks on the margin, such as --attacks gauntlet."
    for label in ("gauntlet", "adaptive", "gauntlet(steps=9)"):
        assert noted(result(bits(20, 15), flags=[flat]), result(bits(20, 15), cell_info(attack=label))) == []


def test_advice_on_ranked_rows_is_said_once_with_all_its_rows():
    warn = Flag("black-box-access", "warn", "only the outputs can be observed")
    lines = noted(*(result(bits(20, k), cell_info(name), flags=[warn]) for name, k in (("a", 12), ("b", 11))))
    assert lines == ["a, b (black-box-access): only the outputs can be observed."]


def test_rows_without_rank_for_the_same_reason_share_a_sentence():
    results = [
        result(bits(20, 9), cell_info(name, defense="jpeg", threat=threat), flags=[ZERO])
        for name in ("a", "b")
        for threat in ("Linf:0.1", "L2:1")
    ]
    (line,) = noted(*results)
    assert line.startswith("a × jpeg, b × jpeg have no rank: gradients are zero")
    (line,) = noted(*results, result(bits(20, 9), cell_info("b", defense="jpeg")))
    assert line.startswith("a × jpeg, b × jpeg (Linf:0.1), b × jpeg (L2:1) have no rank: ")


def test_a_clean_accuracy_at_chance_is_said():
    def line(right, n=20):
        label = np.arange(n) % 10
        return noted(result(bits(n, 0), correct=bits(n, right), label=label))

    (said,) = line(2)
    assert said.startswith(
        "net (clean-accuracy): the model gets 2 of 20 clean images right, and one class answered for all"
    )
    assert "--mean and --std" in said
    assert line(3) == []
    assert line(1, n=9) == []


def test_a_wrong_input_format_that_is_named_is_not_said_twice():
    named = Flag("class-order", "block", "The classes are in another order.")
    (line,) = noted(result(bits(20, 0), correct=bits(20, 0), label=np.arange(20) % 10, flags=[named]))
    assert line == "net has no rank: the classes are in another order."


def test_a_run_without_checks_says_so():
    assert "--checks none" in checks_off("command line")
    assert 'checks="none"' in checks_off("python")


def told(*results):
    return verdict(build_rows(list(results)))


def test_the_verdict_names_the_best_row_and_those_without_rank():
    lines = told(
        result(bits(797, 605), cell_info("trades")),
        result(bits(797, 100), cell_info("plain")),
        result(bits(797, 700), cell_info("rounded"), flags=[ZERO]),
        result((), cell_info("broken", defense="jpeg"), error="no", expected=797),
    )
    assert lines == [
        "trades keeps 75.9 % [72.8, 78.8] under the strongest attack; 2 rows have no rank: rounded (zero-gradient), "
        "broken × jpeg (error)."
    ]


def test_rows_that_cannot_be_told_from_the_best_are_named():
    (line,) = told(*(result(bits(100, k), cell_info(name)) for name, k in (("a", 72), ("b", 70), ("d", 1))))
    assert line == "a keeps 72.0 % [62.1, 80.5] under the strongest attack; not significantly worse: b."


def test_of_many_rows_without_rank_the_reasons_are_counted():
    results = [result(bits(20, 9), cell_info(f"net{k}"), flags=[ZERO]) for k in range(5)]
    assert told(*results, result((), cell_info("last"), error="no")) == [
        "6 rows have no rank: 5 for zero-gradient, 1 for error."
    ]


def corrupted(wrong, model="net", **fields):
    cell = cell_info(model, "fog", attack_kind="corruption", severities=(1, 2), suite="corruptions")
    severities = ["1 2" if bit else "" for bit in wrong]
    return result(~wrong, cell, wrong_share=wrong.astype(float), severities=severities, **fields)


def test_rows_with_corruptions_alone_have_a_verdict_and_need_no_reason():
    results = [corrupted(bits(20, k), name) for name, k in (("a", 4), ("b", 2))]
    (line,) = told(*results)
    assert line.startswith("b keeps 90.0 % [")
    assert line.endswith("] under corruptions, on average.")
    assert noted(*results) == []


def test_a_corruption_that_failed_says_so():
    failed = corrupted(bits(20, 0)[:0], error="no picture", expected=20)
    (line,) = noted(failed)
    assert line.startswith("net has no rank: corruption fog (seed 0) failed: RuntimeError: no picture.")
    assert told(failed) == ["1 row has no rank: net (error)."]


def test_without_any_rank_only_that_is_said():
    assert told(result(bits(20, 15), flags=[ZERO])) == ["1 row has no rank: net (zero-gradient)."]


def test_each_comparison_of_a_table_has_a_verdict_with_its_name():
    lines = told(
        result(bits(20, 20), cell_info("noisy", "noise")),
        *(result(bits(20, k), cell_info(name)) for name, k in (("a", 15), ("b", 1))),
    )
    assert [line.partition(" keeps")[0] for line in lines] == ["A: noisy", "B: a"]


def test_each_threat_model_has_a_verdict_of_its_own():
    lines = told(result(bits(20, 15)), result(bits(20, 10), cell_info(threat="L2:0.5")))
    assert [line.partition(" keeps")[0] for line in lines] == ["net (Linf:0.15)", "net (L2:0.5)"]


def test_long_lines_are_broken_at_blanks_only():
    text = f"{'a' * 30} --batch-size {'b' * 30} c"
    broken = list(wrapped([text], 40))
    assert " ".join(line.strip() for line in broken) == text
    assert max(map(len, broken)) <= 40


def test_the_report_has_table_reasons_and_verdict_in_this_order():
    rows = build_rows([result(bits(20, 15), flags=[ZERO]), result(bits(20, 3), cell_info("b"))])
    text = "\n".join(terminal_report(rows, "command line", 100))
    assert text.index("rank  model") < text.index("net has no rank:") < text.index("b keeps 15.0 %")
    assert list(terminal_report([], "command line")) == []


def test_columns_that_say_nothing_are_left_out():
    plain = list(terminal_report(build_rows([result(bits(20, 15))]), "command line"))[1]
    assert "defense" not in plain
    assert "proven" not in plain
    defended = list(terminal_report(build_rows([result(bits(20, 15), cell_info(defense="jpeg"))]), "command line"))[1]
    assert "defense" in defended
