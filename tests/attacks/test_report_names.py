"""The names under which results of the cascades are reported."""

from __future__ import annotations

import re

from click.testing import CliRunner

from gauntlet.attacks.gauntlet import EDITION
from gauntlet.bench.cli.main import cli
from gauntlet.bench.registries import ATTACKS
from gauntlet.leaderboard.results.store import Store


def test_each_budget_has_a_name_with_the_edition_of_its_stages():
    names = {name: ATTACKS.get(name).card.report_as for name in ATTACKS.names("gauntlet*")}
    assert names == {
        "gauntlet:fast": f"gauntlet {EDITION}, fast budget",
        "gauntlet": f"gauntlet {EDITION}, standard budget",
        "gauntlet:thorough": f"gauntlet {EDITION}, thorough budget",
    }


def test_listings_records_and_tables_show_the_name(tmp_path):
    listed = CliRunner().invoke(cli, ["list", "attacks"])
    assert f"report as: gauntlet {EDITION}, fast budget]" in listed.output
    assert listed.output.count("report as") == 3
    out = tmp_path / "results"
    call = ["run", "--model=cnn.standard_digits", "--samples=2", "--checks=none", f"--out={out}"]
    done = CliRunner().invoke(cli, [*call, "--attacks=gauntlet:fast,fgsm"])
    assert done.exit_code == 0, done.output
    text = (out / "leaderboard.md").read_text(encoding="utf-8")
    assert re.findall(r"Attack (\S+) .*; report as: (.*)", text) == [
        ("gauntlet\\:fast", f"gauntlet {EDITION}, fast budget")
    ]
    store = Store(out)
    names = [store.read(key).provenance.get("report_as") for key in store.stored_keys()]
    assert sorted(names, key=str) == [None, f"gauntlet {EDITION}, fast budget"]
