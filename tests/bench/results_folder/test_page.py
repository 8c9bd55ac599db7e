"""`gauntlet page`, and the page of every run."""

from __future__ import annotations

import importlib.util
import re

import pytest
from conftest import run_here

from gauntlet.leaderboard.page import assets

for _module in ("jinja2", "itables"):
    pytest.importorskip(_module, reason=f"{_module} is not installed")
RUN = (
    "run",
    "--model=cnn.standard_digits",
    "--attacks=pgd(steps=5)",
    "--threat=Linf:0.15",
    "--data=digits",
    "--samples=30",
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "out"
    assert run_here(*RUN, "--checks=none", f"--out={folder}") == 0
    return folder


def page_of(folder):
    return (folder / "leaderboard.html").read_text(encoding="utf-8")


def test_every_run_writes_its_page(out):
    assert "cnn.standard_digits" in page_of(out)
    assert page_of(out).count('<section class="row"') == 1


def test_the_page_of_a_folder_has_all_its_runs_and_names_each_row_s_own_command(out, capsys):
    assert run_here(*RUN[:1], "--model=cnn.pgd_digits", *RUN[2:], "--checks=none", f"--out={out}") == 0
    assert page_of(out).count('<section class="row"') == 1
    capsys.readouterr()
    assert run_here("page", out) == 0
    told = capsys.readouterr().out
    assert f"written: {out / 'leaderboard.html'}" in told
    assert "2 runs together" in told
    assert page_of(out).count('<section class="row"') == 2


def test_a_gallery_shows_a_few_examples_of_each_row(out):
    assert run_here("page", out, "--gallery", 2) == 0
    pages = page_of(out).split('<section class="row"')[1:]
    assert [len(re.findall(r"<img ", text)) for text in pages] == [6] * len(pages)
    assert run_here("page", out) == 0
    assert "<img " not in page_of(out)


def test_descriptions_stand_in_the_page(out):
    (out / "models.toml").write_text(
        '[[model]]\nmodel = "cnn.standard_digits"\nname = "Plain"\nlink = "https://example.org"\n'
    )
    assert run_here("page", out) == 0
    assert ">Plain</a>" in page_of(out)
    assert 'href="https://example.org"' in page_of(out)
    (out / "models.toml").unlink()


@pytest.fixture
def other_form(monkeypatch):
    """As if itables had a script that no page can be made of."""
    monkeypatch.setattr(assets, "_EXPORTED", re.compile("(?!)"))
    assets._script.cache_clear()
    yield
    assets._script.cache_clear()


@pytest.mark.parametrize("isolated", [(), ("--isolate",)])
def test_a_script_of_another_form_costs_the_page_and_not_the_run(tmp_path, other_form, capsys, isolated):
    assert run_here(*RUN, "--checks=none", *isolated, f"--out={tmp_path}") == 0
    told = capsys.readouterr().out
    (line,) = [line for line in told.splitlines() if line.startswith("no page was written: ")]
    assert line.endswith("has another form: pip install 'itables>=2.4,<3'")
    assert not (tmp_path / "leaderboard.html").exists()
    assert run_here("page", tmp_path) == 1
    assert "has another form" in capsys.readouterr().err


def test_a_script_of_another_form_does_not_keep_the_gate_from_judging(tmp_path, other_form, capsys):
    out, baseline = tmp_path / "out", tmp_path / "baseline.json"
    assert run_here(*RUN, "--checks=none", f"--out={out}") == 0
    assert run_here("baseline", "accept", out, f"--out={baseline}") == 0
    capsys.readouterr()
    judged = run_here(*RUN, "--checks=none", f"--gate={baseline}", "--allow-undecided", f"--out={out}")
    told = capsys.readouterr().out
    assert judged == 0, told
    assert "no page was written: " in told
    assert (out / "gate.json").exists()


def test_without_the_extra_a_run_says_that_there_is_no_page_and_the_command_fails(tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec

    def without(name, *rest):
        return None if name == "itables" else found(name, *rest)

    monkeypatch.setattr(assets.importlib.util, "find_spec", without)
    assert run_here(*RUN, "--checks=none", f"--out={tmp_path}") == 0
    sentence = "a page needs itables: pip install 'robust-gauntlet[page]'"
    assert f"no page was written: {sentence}" in capsys.readouterr().out
    assert not (tmp_path / "leaderboard.html").exists()
    assert run_here("page", tmp_path) == 1
    assert sentence in capsys.readouterr().err
