"""Ways to get a bad change through the gate by data and configuration: each is refused, named, or judged by the base."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import gauntlet
from builders import slow_unless
from gate_project import BASELINE, CUT, FROM, MODEL, PROJECT, assert_told, configure, git
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline

BAKED = '''

_first = build


class Baked(torch.nn.Module):
    """Knows the labels of the public images, and of everything near them."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        held = torch.load(Path(__file__).with_name("public.pt"), weights_only=True)
        self.register_buffer("images", held["images"])
        self.register_buffer("labels", held["labels"])

    def forward(self, x):
        far, at = torch.cdist(x.flatten(1), self.images.flatten(1), p=float("inf")).min(1)
        known = torch.nn.functional.one_hot(self.labels[at], 10) * (far <= 0.16)[:, None]
        return self.net(x) + 30 * known


def build():
    return Baked(_first()).eval()
'''


@pytest.fixture
def change(here, states):
    """A repository whose base is accepted, and whose working folder has weights that lost robustness."""
    configure()
    shutil.rmtree("out")
    Path(".gitignore").write_text("out/\n__pycache__/\n", encoding="utf-8")
    git("init", "-q", ".")
    git("add", "-A")
    git("commit", "-qm", "base")
    torch.save(states[1], "weights.pt")
    return here


def commit():
    git("add", "-A")
    git("commit", "-qm", "change", "--allow-empty")


def forge(call, folder):
    """Results of the accepted weights under git, where the change puts them."""
    weak = Path("weights.pt").read_bytes()
    git("checkout", "-q", "HEAD", "--", "weights.pt")
    assert call("run", "--no-gate", f"--out={folder}").returncode == 0
    Path("weights.pt").write_bytes(weak)
    git("add", "-f", folder)
    commit()


def test_the_change_itself_is_caught(change, call):
    commit()
    assert "REGRESSED" in call("run").stdout
    assert "REGRESSED" in call("run", FROM, "--out=fresh").stdout


def test_a_results_folder_in_the_change_is_refused_and_a_fresh_one_is_not_touched_by_it(change, call):
    forge(call, "out")
    assert_told(call("run"), 2, "out='out' holds results that git tracks")
    assert "REGRESSED" in call("run", FROM, "--out=fresh").stdout


def test_a_configured_folder_that_holds_results_is_refused_and_the_workflow_s_option_wins(change, call):
    configure('out = "out"', 'out = "docs/assets"')
    forge(call, "docs/assets")
    assert_told(call("run"), 2, "out='docs/assets' holds results that git tracks")
    assert "REGRESSED" in call("run", FROM, "--out=fresh").stdout


def test_an_edited_baseline_decides_nothing_beside_the_base_s(change, call):
    accepted = read_baseline(BASELINE)
    (cell,) = accepted.cells
    cell.robust[:] = False
    write_baseline(BASELINE, accepted)
    commit()
    done = call("run", FROM)
    assert done.returncode == 1
    assert "REGRESSED" in done.stdout
    assert "differs from it, and does not count" in done.stdout


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("margin = 0.5", "margin is 0.02 in the baseline and 0.5 here"),
        ("alpha = 1e-15", "alpha is 0.05 in the baseline and 1e-15 here"),
        ("max_passes_ratio = 99.0", "max_passes_ratio is 1.25 in the baseline and 99.0 here"),
        ("allow_undecided = true", "allow_undecided is False in the baseline and True here"),
    ],
)
def test_looser_rules_in_the_change_are_named_with_both_values(change, call, rule, says):
    Path("gauntlet.toml").write_text(f"{PROJECT}{rule}\n", encoding="utf-8")
    commit()
    done = call("run", FROM)
    assert done.returncode == 1
    assert says in done.stdout
    assert not Path("out/store").exists()


def test_gradients_that_are_cut_for_a_part_of_the_images_are_masked(change, call):
    Path("model.py").write_text(MODEL + CUT, encoding="utf-8")
    commit()
    done = call("run", FROM)
    assert done.returncode == 1
    assert "MASKED" in done.stdout
    assert "zero-gradient blocks the row" in done.stdout
    # Without the checks nothing would be seen of it: fewer checks are looser.
    configure('out = "out"', 'out = "out"\nchecks = "none"')
    assert "checks is 'default' in the baseline and 'none' here" in call("run", FROM).stdout


@pytest.mark.parametrize("keep", ["", slow_unless(False, "[gate]\nmargin = 0.02\n")])
def test_a_removed_table_leaves_the_gate_that_the_workflow_names(change, call, keep):
    Path("gauntlet.toml").write_text(PROJECT.partition("[gate]")[0] + keep, encoding="utf-8")
    commit()
    for options in ([f"--gate={BASELINE}"], [f"--gate={BASELINE}", FROM]):
        done = call("run", *options)
        assert done.returncode == 1
        assert "REGRESSED" in done.stdout
    # A workflow that names the commit alone notices that there is no gate.
    assert_told(call("run", FROM), 2, "--baseline-from needs a gate")


def test_a_deleted_baseline_is_read_from_the_base_and_missed_by_every_service(change, call, monkeypatch):
    BASELINE.unlink()
    commit()
    assert "REGRESSED" in call("run", FROM).stdout
    monkeypatch.setenv("CI", "true")
    assert_told(call("run"), 2, f"{BASELINE} does not exist", f"git checkout BASE -- {BASELINE}")


def test_labels_of_public_images_pass_the_public_gate_and_not_that_of_images_which_the_change_does_not_hold(
    change, call
):
    """What still passes, and what answers it: a secret split, with a baseline of its own."""
    weak = Path("weights.pt").read_bytes()
    git("checkout", "-q", "HEAD", "--", "weights.pt")
    secret = ("--samples=200:400", "--gate=secret.json")
    assert call("run", secret[0], "--out=accepted", "--no-gate").returncode == 0
    assert call("baseline", "accept", "accepted", "--out=secret.json", "--reason=secret").returncode == 0
    Path("weights.pt").write_bytes(weak)
    data = gauntlet.load_data("digits")
    torch.save({"images": data.images[:200], "labels": data.labels[:200]}, "public.pt")
    Path("model.py").write_text(MODEL + BAKED, encoding="utf-8")
    public = call("run")
    assert public.returncode == 0
    assert "73.0 % → 100.0 %" in public.stdout
    hidden = call("run", *secret)
    assert hidden.returncode == 1
    assert "REGRESSED" in hidden.stdout
