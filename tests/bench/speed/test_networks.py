"""The measurement of whole networks: their sizes, how they come to be attacked, and what the command writes."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from gauntlet.bench.cli.main import cli
from gauntlet.bench.config.schema import ConfigError
from gauntlet.bench.speed.compare_networks import NetworksConfig, compare_networks
from gauntlet.bench.speed.networks import NETWORKS, SMALL
from gauntlet.bench.speed.trained_network import STANDING, trained_network

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "millions"),
    # Published: 36.5 million for WRN-28-10 with ten classes; ResNet-50 25.6 and ViT-S/16 22.1, with a head of a thousand.
    [("WRN-28-10", 36.48), ("ResNet-50", 25.56 - 990 * 2049e-6), ("ViT-S", 22.05 - 990 * 385e-6)],
)
def test_the_networks_have_their_published_sizes(name, millions):
    (network,) = (one for one in NETWORKS if one.name.startswith(name))
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in network.build().parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.02)


@pytest.mark.parametrize("network", SMALL, ids=lambda one: one.name)
def test_a_trained_network_stands_on_about_half_of_its_images(network):
    state = torch.get_rng_state()
    trained = trained_network(network, CPU, seconds=60)
    assert torch.equal(torch.get_rng_state(), state)
    assert trained.data.images[:].shape == (network.images, *network.shape)
    assert not trained.model.training
    logits = trained.model(trained.data.images[:])
    assert (logits.argmax(1) == trained.data.labels).float().mean() > 0.6
    assert "beyond" not in trained.said
    assert 0 < trained.eps < 1
    assert STANDING == (0.3, 0.7)


def test_the_command_measures_every_participant_and_writes_tables(tmp_path):
    arguments = ["speed", "PGD*", "--small", "--peers=t*", "--minutes=20", f"--out={tmp_path}"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    turns = pd.read_csv(tmp_path / "speed-networks.csv", keep_default_na=False)
    assert turns["participant"].tolist() == ["gauntlet", "torchattacks"] * 4
    assert set(turns["not_run"]) == {""}
    assert (turns["images"] == 24).all()
    shares = turns["standing"].astype(int) / 24
    assert shares.between(0.1, 0.9).all()
    # One start of 20 steps; broken samples of ours make fewer passes.
    theirs = turns[turns["participant"] == "torchattacks"]
    right = theirs["backwards"].astype(float) / 20
    assert right.between(12, 24).all()
    ours = turns[turns["participant"] == "gauntlet"]
    assert (ours["backwards"].astype(float).to_numpy() < theirs["backwards"].astype(float).to_numpy()).all()
    assert ours["occupancy"].astype(float).between(0.01, 1).all()
    for column in ("whole_s", "attack_s", "bare_s", "peak_mib", "waits_an_image"):
        assert turns[column].astype(float).gt(0).all(), column
    text = (tmp_path / "speed-networks.md").read_text(encoding="utf-8")
    assert "figures say nothing of speed" in text
    assert "Not run" not in text


@pytest.mark.slow
def test_what_does_not_fit_into_the_time_is_named(tmp_path):
    text = compare_networks(NetworksConfig(CPU, ("PGD*",), "torch*", 1e-4, small=True), tmp_path, lambda line: None)
    assert "Not run:" in text
    assert "- ViT, tiny, PGD-20, gauntlet: time suffices for 0 of 24 images" in text
    turns = pd.read_csv(tmp_path / "speed-networks.csv", keep_default_na=False)
    assert len(turns) == 8
    assert turns["not_run"].ne("").all()


def test_networks_and_devices_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="too slow for these networks: use cuda, or --small"):
        compare_networks(NetworksConfig(CPU), tmp_path, print)
    with pytest.raises(ConfigError, match="small is for the CPU"):
        compare_networks(NetworksConfig(torch.device("cuda"), small=True), tmp_path, print)
    with pytest.raises(ValueError, match="minutes=0"):
        compare_networks(NetworksConfig(CPU, minutes=0, small=True), tmp_path, print)


def test_a_gpu_that_is_absent_is_an_error_with_the_way_out(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = CliRunner().invoke(cli, ["speed", "--device=cuda", f"--out={tmp_path}"])
    assert isinstance(done.exception, ConfigError)
    assert "0 GPUs are visible; use auto or cpu" in str(done.exception)


def test_the_help_names_the_code_of_an_interruption():
    done = CliRunner().invoke(cli, ["speed", "--help"])
    assert "130" in done.output
    assert "the tables have what was" in done.output
