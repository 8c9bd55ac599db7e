"""A project whose robust model has been accepted as the baseline."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch.nn import functional

import gauntlet
from gate_project import ATTACK, MODEL, RUN
from gauntlet.bench.models.cnn import cnn


def fine_tuned(state):
    """The network after 30 steps of standard training: it keeps its clean accuracy, and loses robustness."""
    model, data = cnn(), gauntlet.load_data("digits-train")
    model.load_state_dict(state)
    drawn = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(30):
        chosen = torch.randint(len(data.labels), (100,), generator=drawn)
        optimiser.zero_grad()
        functional.cross_entropy(model(data.images[chosen]), data.labels[chosen]).backward()
        optimiser.step()
    return model.state_dict()


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """Not inside a workflow of GitHub, wherever the tests run."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def states():
    """Weights of an adversarially trained network, and of the same one fine-tuned without attacks."""
    robust = gauntlet.load_model("cnn.pgd_digits").module.model.state_dict()
    return robust, fine_tuned(robust)


@pytest.fixture(scope="session")
def accepted(states, tiny, tmp_path_factory):
    """A project whose robust model's run has been accepted as the baseline."""
    folder = tmp_path_factory.mktemp("accepted")
    (folder / "model.py").write_text(MODEL)
    torch.save(states[0], folder / "weights.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert tiny.run_here(*RUN, ATTACK) == 0
        assert tiny.run_here("baseline", "accept", "out", "--reason=the first one") == 0
    return folder


@pytest.fixture
def here(accepted, tmp_path, monkeypatch):
    """A copy of that project as the working folder."""
    shutil.copytree(accepted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
