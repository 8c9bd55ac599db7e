"""Strength beside AutoAttack: what is measured, resumed, compared and written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from gauntlet.bench.cli.main import cli
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.strength.compare import compare, missing, totals
from gauntlet.bench.strength.conditions import CONDITIONS, choose_conditions
from gauntlet.bench.strength.measurements import (
    REFERENCE,
    Measurement,
    pack,
    read_measurements,
    unpack,
    write_measurements,
)
from gauntlet.bench.strength.networks import is_published, load_data_of, load_network
from gauntlet.bench.strength.report import report
from gauntlet.bench.strength.run_strength import AUTOATTACK, StrengthConfig, run_strength
from published import NEEDS_SHARED, SHARED

CONDITION = choose_conditions(("cnn.standard_digits Linf:0.2",))


def measurement(network="cnn.pgd_digits", threat="Linf:0.15", attack="gauntlet", seed=0, standing="1100", passes=40):
    """Of four samples, all of them correct."""
    bits = torch.tensor([bit == "1" for bit in standing])
    return Measurement(
        network=network,
        threat=threat,
        samples=4,
        attack=attack,
        seed=seed,
        correct=4,
        standing=int(bits.sum()),
        forwards=4 * passes,
        backwards=0,
        cpu_seconds=1.0,
        correct_bits="f",
        standing_bits=pack(bits),
        version="1",
        torch="2",
        weights="ab",
    )


def reference(network="cnn.pgd_digits", threat="Linf:0.15", standing="1010", passes=400):
    return measurement(network, threat, AUTOATTACK, 0, standing, passes)


def test_bits_are_hexadecimal_digits_from_the_first_sample_on():
    bits = torch.tensor([1, 0, 0, 0, 1, 1, 1, 0, 1], dtype=torch.bool)
    assert pack(bits) == "8e8"
    assert unpack("8e8", 9).tolist() == bits.tolist()
    with pytest.raises(ValueError, match="hexadecimal digits of 13 samples"):
        unpack("8e8", 13)


def test_measurements_are_read_as_they_were_written_in_an_order_of_their_own(tmp_path):
    made = [measurement(seed=1), measurement(seed=0), measurement("cnn.awp_digits")]
    write_measurements(tmp_path / "a.csv", made)
    write_measurements(tmp_path / "b.csv", reversed(made))
    assert read_measurements(tmp_path / "a.csv") == [made[2], made[1], made[0]]
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert read_measurements(tmp_path / "none.csv") == []
    (tmp_path / "other.csv").write_text("network,eps\nx,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no measurements of strength"):
        read_measurements(tmp_path / "other.csv")


def test_a_line_names_what_stands_beyond_the_reference_and_what_nothing_breaks():
    ours = [measurement(seed=1, standing="1110"), measurement(seed=0, standing="1100", passes=20)]
    (line,) = compare(ours, [reference()])
    assert (line.standing, line.excess, line.missed) == ((2, 3), 1, (1, 1))
    # Sample 0 alone survives all three; passes are 20 and 40 of 400.
    assert line.union == 1
    assert line.share == pytest.approx(0.075)


@pytest.mark.parametrize(
    "other", [{"weights": "cd"}, {"samples": 3}, {"correct_bits": "e"}], ids=["network", "samples", "images"]
)
def test_measurements_of_other_networks_or_samples_are_not_compared(other):
    assert compare([replace(measurement(), **other)], [reference()]) == []


def test_sums_are_over_the_networks_of_a_norm_and_half():
    held_out = [measurement("cnn.awp_digits", "Linf:0.1", passes=80), measurement("cnn.awp_digits", "Linf:0.2")]
    ours = [*held_out, measurement("cnn.mart_digits", "Linf:0.1", standing="1000"), measurement()]
    known = [reference(one.network, one.threat) for one in ours]
    second, first = totals(compare(ours, known))
    assert (first.half, first.reference, first.standing) == ("held out", 6, (5,))
    # A network's conditions count together, whatever their number: ((0.2 + 0.1) / 2 + 0.1) / 2.
    assert first.share == pytest.approx(0.125)
    assert first.largest_share == pytest.approx(0.2)
    assert (second.half, second.reference, second.standing) == ("for choosing", 2, (2,))


def test_a_report_names_conditions_that_the_reference_lacks():
    text = report([measurement()], [reference()])
    assert "| `gauntlet` | Linf | for choosing | 1 | 2 | 2 | +0 | 1 | 0.100 | 0.100 |" in text
    assert "cnn.awp_digits Linf:0.1" in text.partition("Not in the reference:")[2]
    assert len(missing([reference()])) == len(CONDITIONS) - 1


def test_each_network_of_a_norm_is_in_one_half_and_every_second_is_held_out():
    for norm in ("Linf", "L2", "L1"):
        halves = {
            one.network: one.half == "held out"
            for one in CONDITIONS
            if one.threat.norm == norm and "pairs" not in one.network
        }
        assert [halves[name] for name in sorted(halves)] == [number % 2 == 1 for number in range(len(halves))]


def test_all_networks_of_the_zoo_are_measured_in_linf():
    measured = {one.network for one in CONDITIONS if one.threat.norm == "Linf"}
    assert set(MODELS.names("cnn.*")) <= measured


def test_what_the_file_holds_is_not_measured_again(tmp_path):
    path, said = tmp_path / "measured.csv", []
    setup = StrengthConfig(CONDITION, ("fgsm",), (0, 1), samples=20)
    made = run_strength(setup, path, said.append)
    assert [one.seed for one in made] == [0, 1]
    assert len(said) == 2
    assert run_strength(setup, path, said.append) == made == read_measurements(path)
    assert len(said) == 2
    # Of another version of the attack, of another network, and of more samples.
    write_measurements(path, [replace(made[0], version="fgsm: older"), replace(made[1], weights="00")])
    again = run_strength(setup, path, said.append)
    assert [replace(one, cpu_seconds=0.0) for one in again] == [replace(one, cpu_seconds=0.0) for one in made]
    assert len(said) == 4
    assert [one.samples for one in run_strength(replace(setup, samples=24), path, said.append)] == [24, 24]


def test_bits_passes_and_counts_are_those_of_the_evaluation(tmp_path):
    (made,) = run_strength(
        StrengthConfig(CONDITION, ("fgsm",), (0,), samples=30), tmp_path / "m.csv", lambda line: None
    )
    network, data = load_model("cnn.standard_digits"), load_data_of("cnn.standard_digits", None, 30)
    images = data.images.clone().requires_grad_()
    logits = network.module(images)
    right = logits.argmax(1) == data.labels
    torch.nn.functional.cross_entropy(logits, data.labels, reduction="sum").backward()
    moved = (images + 0.2 * images.grad.sign()).clamp(0, 1).detach()
    stands = right & (network.module(moved).argmax(1) == data.labels)
    assert unpack(made.correct_bits, 30).tolist() == right.tolist()
    assert made.bits.tolist() == stands.tolist()
    assert (made.correct, made.standing) == (int(right.sum()), int(stands.sum()))
    # Two forward passes and one backward pass for each sample that is attacked.
    assert (made.forwards, made.backwards) == (2 * made.correct, made.correct)
    assert network.digest.startswith(made.weights)


def test_published_networks_are_left_out_without_their_folder(tmp_path):
    said = []
    chosen = choose_conditions(("wong_kolter_mnist Linf:0.1",))
    assert run_strength(StrengthConfig(chosen, ("fgsm",)), tmp_path / "m.csv", said.append) == []
    assert said == ["wong_kolter_mnist Linf:0.1: left out, name the folder with the network's files (--networks)"]
    with pytest.raises(FileNotFoundError, match="wong_kolter_mnist"):
        load_network("wong_kolter_mnist", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no condition fits 'nothing'"):
        choose_conditions(("nothing",))


@pytest.mark.skipif(not SHARED, reason=NEEDS_SHARED)
@pytest.mark.parametrize(
    ("network", "correct"),
    [("wong_kolter_mnist", 199), ("resnet20_cifar10", 182), ("cifar10_small", 116), ("Convnet_maxpool", 195)],
)
def test_published_networks_are_loaded_with_their_images(network, correct):
    module = load_network(network, Path(SHARED)).module
    data = load_data_of(network, Path(SHARED), 200)
    with torch.no_grad():
        assert int((module(data.images[:]).argmax(1) == data.labels).sum()) == correct


def test_the_command_writes_measurements_and_prints_the_comparison(tmp_path):
    measured, known = tmp_path / "measured.csv", tmp_path / "reference.csv"
    call = ["strength", "cnn.standard_digits Linf:0.2", "--measurements", str(measured)]
    done = CliRunner().invoke(cli, [*call, "--attacks", "fgsm", "--seed", "0"])
    assert done.exit_code == 0, done.output
    (made,) = read_measurements(measured)
    write_measurements(known, [replace(made, attack=AUTOATTACK)])
    done = CliRunner().invoke(cli, [*call, "--attacks", "fgsm", "--seed", "0", "--reference", str(known)])
    assert f"| `cnn.standard_digits` | for choosing | Linf:0.2 | {made.correct} | {made.standing} |" in done.output
    before = measured.read_bytes()
    stored = CliRunner().invoke(cli, [*call, "--stored", "--reference", str(known)])
    assert stored.output == done.output
    assert measured.read_bytes() == before
    done = CliRunner().invoke(cli, ["strength", "--stored", "--measurements", str(tmp_path / "none.csv")])
    assert (done.exit_code, "there is no file" in done.output) == (2, True)
    done = CliRunner().invoke(cli, [*call, "--autoattack", "--seed", "3"])
    assert done.exit_code == 2
    assert "leave out --attacks and --seed" in done.output


# --- the included reference -------------------------------------------------------------------------------------------


def test_the_included_reference_is_whole_lines_of_autoattack_on_these_networks():
    known = read_measurements(REFERENCE)
    texts = {str(one) for one in CONDITIONS}
    for one in known:
        assert f"{one.network} {one.threat}" in texts
        assert (one.attack, one.seed, one.samples) == (AUTOATTACK, 0, 200)
        correct = unpack(one.correct_bits, one.samples)
        assert (int(correct.sum()), int(one.bits.sum())) == (one.correct, one.standing)
        assert not (one.bits & ~correct).any()
        if not is_published(one.network):
            assert load_model(one.network).digest.startswith(one.weights)
    assert len({(one.network, one.threat) for one in known}) == len(known)
