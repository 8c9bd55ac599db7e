"""A gate that stops early writes of one set of samples: text, JSON, summary and JUnit agree on every figure."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from builders import baseline, baseline_cell
from gauntlet.leaderboard.gate.compared_cell import ComparedCell
from gauntlet.leaderboard.gate.formats import github_annotations, to_json
from gauntlet.leaderboard.gate.judge import judge
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.trace import Trace, sample_order
from gauntlet.leaderboard.gate.verdicts import is_certain

CHUNK = 50
SENTENCE = re.compile(
    r"(?P<before>[\d.]+) % → (?P<now>[\d.]+) % \(\D*?(?P<n>\d+)(?: of (?P<all>\d+) samples)?; (?P<lost>\d+) lost, "
    r"(?P<gained>\d+) gained;"
)
ACCEPTED = re.compile(r"accepted on all (\d+) samples: ([\d.]+) %")


def drawn(seed, test):
    """A baseline, and the trace of an early gate on a run whose samples flipped at random, as `run_early` makes it."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(60, 900))
    old = baseline_cell(rng.random(n) < rng.uniform(0.3, 0.99), data_digest=f"data {seed}", blocks={}, masked=0)
    accepted = baseline(old, test=test)
    lost, gained, excused = rng.uniform(0, (0.15, 0.15, 0.05)) * (rng.random(3) < 0.7)
    now = np.where(old.robust, rng.random(n) >= lost, rng.random(n) < gained)
    before = old.robust & ~(~now & (rng.random(n) < excused))
    order = sample_order(old)
    turns = order if test == "sequential" else np.array(sorted(order, key=lambda at: bool(old.robust[at])))
    for end in range(CHUNK, n + CHUNK, CHUNK):
        seen = order[np.isin(order, turns[:end])]
        trace = Trace(
            key=old.key,
            n=n,
            order=seen,
            before=before[seen],
            now=now[seen],
            spec=old.spec,
            weights=str(rng.choice(["before", "after"])),
            data_digest=old.data_digest,
            forwards=1.0 * end,
            backwards=0.0,
            peak_memory_mib=math.nan,
            seconds=1.0,
            device="cpu",
            randomised=False,
            replay="",
            lost=tuple(f"id{at}" for at in seen if before[at] and not now[at]),
        )
        if is_certain(ComparedCell.of(old, trace.cell, trace), Policy(), test, 1):
            break
    return accepted, old, trace, before, now


@pytest.mark.parametrize("test", ["sequential", "fixed"])
@pytest.mark.parametrize("seed", range(12))
def test_all_outputs_agree_on_one_set_of_samples(test, seed):
    accepted, old, trace, before, now = drawn(seed, test)
    flags = {"zero-gradient": "Zero."} if seed % 4 == 0 else {}
    report = judge(accepted, baseline(replace(trace.cell, blocks=flags)), Policy(), [trace])
    (verdict,) = report.verdicts
    assert verdict.n, verdict.sentence
    # The set: the first samples that the gate saw, in the order of the test; all of them if the test is on all.
    chosen = trace.order[: verdict.n]
    assert verdict.n == len(trace.order) or test == "sequential"
    lost, gained = before[chosen] & ~now[chosen], ~before[chosen] & now[chosen]
    assert (verdict.lost, verdict.gained) == (lost.sum(), gained.sum())
    assert (verdict.baseline_robust, verdict.robust) == (before[chosen].mean(), now[chosen].mean())
    assert (verdict.accepted_robust, verdict.accepted_n) == (old.robust.mean(), old.n)
    assert verdict.lost_at == tuple(sorted(chosen[lost].tolist()))
    ids = [trace.lost_ids[at] for at in verdict.lost_at]
    assert ids == [f"id{at}" for at in verdict.lost_at]

    figures = tuple(f"{100 * share:.1f}" for share in (verdict.baseline_robust, verdict.robust))
    counts = tuple(map(str, (verdict.n, verdict.lost, verdict.gained)))
    # Text and JUnit's property are the verdict's line; so are GitHub's annotations and the summary's entries.
    shown = [report.text(), verdict.line]
    if verdict.verdict != "held":
        shown += ["\n".join(github_annotations(report)).replace("%25", "%"), report.markdown()]
    for text in shown:
        found = SENTENCE.search(text)
        assert found is not None, text
        assert found.group("before", "now", "n", "lost", "gained") == (*figures, *counts)
        beside = ACCEPTED.search(text)
        if verdict.baseline_robust == verdict.accepted_robust:
            assert beside is None
        else:
            assert beside is not None
            assert beside.groups() == (str(old.n), f"{100 * old.robust.mean():.1f}")
    row = next(line for line in report.markdown().splitlines() if line.startswith(f"| {verdict.verdict} |"))
    entries = [entry.strip() for entry in row.strip("|").split("|")]
    assert entries[2:7] == [*figures, *counts]
    assert (entries[9:] == [f"{100 * old.robust.mean():.1f} (n={old.n})"]) == verdict.partial
    fields = json.loads(to_json(report, accepted, Policy(), exit_code=0))["verdicts"][0]
    assert [fields[name] for name in ("n", "lost", "gained", "lost_at")] == [
        verdict.n,
        verdict.lost,
        verdict.gained,
        list(verdict.lost_at),
    ]
    for name in ("baseline_robust", "robust", "accepted_robust"):
        assert fields[name] == getattr(verdict, name)


def test_gates_that_stop_early_and_at_the_end_with_and_without_excuses_are_among_those_drawn():
    kinds = set()
    for test in ("sequential", "fixed"):
        for seed in range(12):
            accepted, old, trace, before, _ = drawn(seed, test)
            (verdict,) = judge(accepted, baseline(trace.cell), Policy(), [trace]).verdicts
            kinds |= {
                verdict.verdict,
                verdict.n < len(trace.order),
                len(trace.order) < old.n,
                bool((before != old.robust).any()),
            }
    assert kinds >= {"held", "regressed", "undecided", True, False}
