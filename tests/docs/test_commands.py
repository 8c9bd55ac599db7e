"""Every command of the documentation is run, or stands in one list with the reason why not."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import click
import pytest

import doc_projects
from builders import ROOT
from doc_commands import DOCS, commands_in, doc_commands, inline_commands
from gauntlet.bench.cli.main import cli

LIST = tomllib.loads(Path(__file__).with_name("commands.toml").read_text(encoding="utf-8"))


def listed():
    """Every (page, command) of the list, with how often it stands there."""
    entries = [*LIST["run"], *LIST["left_out"]]
    return Counter((entry["doc"], text) for entry in entries for text in entry["commands"] if not text.startswith("+ "))


def test_every_command_of_the_documentation_is_run_or_left_out_with_a_reason():
    documented = Counter((command.doc, command.text) for doc in DOCS for command in doc_commands(doc))
    assert documented - listed() == Counter(), "these stand in no list: tests/docs/commands.toml"
    assert listed() - documented == Counter(), "these stand in tests/docs/commands.toml and on no page"
    assert all(entry["reason"] for entry in LIST["left_out"])


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("gauntlet run   # a comment", ["gauntlet run"]),
        ("$ gauntlet run --model \\\n    'a b'\nrank  model", ["gauntlet run --model 'a b'"]),
        ("pip install tox && tox run", ["pip install tox && tox run"]),
        ('python -c "\nimport x\nprint(1)"\ngauntlet list', ['python -c "\nimport x\nprint(1)"', "gauntlet list"]),
        ("pip install gauntlet", []),
        ("gauntlet-results: commit 1", []),
    ],
)
def test_commands_are_found_in_a_block(block, expected):
    assert [text for _, text in commands_in(block)] == expected


def run_id(entry):
    return f"{entry['doc']}:{next(text for text in entry['commands'] if not text.startswith('+ '))[:60]}"


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=run_id(entry), marks=[pytest.mark.slow] if entry.get("slow") else [])
        for entry in LIST["run"]
    ],
)
def test_the_commands_work(entry, tmp_path):
    if "project" in entry:
        getattr(doc_projects, entry["project"])(tmp_path)
    for text in entry["commands"]:
        command = text.removeprefix("+ ")
        for old, new in entry.get("replace", {}).items():
            command = command.replace(old, new)
        done = subprocess.run(
            ["bash", "-uo", "pipefail", "-c", command],
            cwd=tmp_path / entry.get("folder", ""),
            env=doc_projects.environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def subcommand(words):
    """The click command that the words begin with, and the words after it."""
    command, rest = cli, list(words)
    while isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        command = command.get_command(click.Context(command), rest.pop(0))
        assert command is not None, words
    return command, rest


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.name)
def test_commands_and_options_that_sentences_name_exist(doc):
    for line, words in inline_commands(doc):
        command, rest = subcommand(words)
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        named = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert named <= options | {"--help", "--version"}, f"{doc.relative_to(ROOT)}:{line}: {named - options}"
