"""`gauntlet verify --examples`: a bare tensor of images, as evaluations are handed in, judged by the verifier alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from gauntlet.bench.run.run_folder import load_run

EPS = 0.1
OPTIONS = ("--model=model.py:build", "--data=data.npz", f"--threat=Linf:{EPS}")


@pytest.fixture(scope="module")
def attacked(tiny, tmp_path_factory):
    """A project, the images of a finished run in the order of the data, and which of them are adversarial."""
    folder = tiny.write_project(tmp_path_factory.mktemp("attacked"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert tiny.run_here("run", *OPTIONS, "--attacks=fgsm", "--out=out") == 0
        run = load_run(Path("out"))
        (result,) = [run.result(cell, adversarial=True) for cell in run.plan.cells]
        with np.load("data.npz") as data:
            images = data["images"].copy()
        samples = result.blocks[0].samples
        for row, image in enumerate(samples.adversarial):
            if image is not None:
                images[row] = image
        torch.save(torch.from_numpy(images), "x.pt")
    return folder, images, samples


@pytest.fixture
def examples(attacked, monkeypatch, tiny, tmp_path):
    """The images, in a project of their own that is the working folder."""
    monkeypatch.chdir(tiny.write_project(tmp_path))
    torch.save(torch.from_numpy(attacked[1]), "x.pt")
    return attacked[1].copy()


def verify(call, file="x.pt", *more):
    return call("verify", f"--examples={file}", *OPTIONS, *more)


def test_the_figures_are_those_of_the_run_that_made_the_images(attacked, examples, call):
    samples = attacked[2]
    done = verify(call)
    assert done.returncode == 0, done.stderr
    assert f"clean accuracy   {100 * samples.correct.mean():.1f}" in done.stdout
    assert f"robust accuracy  {100 * samples.robust.mean():.1f}" in done.stdout
    assert "30 images of x.pt for 30 samples" in done.stdout
    assert "from above only" in done.stdout


def test_the_table_has_the_verdict_on_each_image(attacked, examples, call):
    samples = attacked[2]
    assert verify(call, "x.pt", "--out=verdicts.csv").returncode == 0
    table = pd.read_csv("verdicts.csv")
    expected = np.where(~samples.correct, "misclassified", np.where(samples.robust, "not adversarial", "adversarial"))
    assert table["verdict"].tolist() == expected.tolist()
    assert table["label"].tolist() == samples.label.tolist()
    broken = samples.correct & ~samples.robust
    assert table["distance"][broken].to_numpy() == pytest.approx(samples.distance[broken])


FORMS = {
    "a.pth": lambda images: torch.save({"adv_complete": torch.from_numpy(images)}, "a.pth"),
    "named.pt#x": lambda images: torch.save({"x": torch.from_numpy(images), "y": torch.from_numpy(images)}, "named.pt"),
    "double.pt": lambda images: torch.save(torch.from_numpy(images).double(), "double.pt"),
    "a.npy": lambda images: np.save("a.npy", images),
    "big-endian.npy": lambda images: np.save("big-endian.npy", images.astype(">f4")),
    "a.npz": lambda images: np.savez_compressed("a.npz", images=images, labels=np.zeros(30)),
    "a.safetensors": lambda images: save_file({"images": torch.from_numpy(images)}, "a.safetensors"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_gives_the_same(examples, call, form):
    FORMS[form](examples)
    expected, found = verify(call), verify(call, form)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[1:] == expected.stdout.splitlines()[1:]


def test_bytes_are_divided_by_255(examples, call):
    np.save("bytes.npy", np.rint(examples * 255).astype(np.uint8))
    done = verify(call, "bytes.npy")
    # Rounding moves a pixel by at most half of a step, which is more than nothing beyond eps.
    assert (
        "the farthest at" not in done.stdout
        or float(done.stdout.split("farthest at ")[1].split()[0]) < EPS + 0.5 / 255 + 1e-6
    )
    assert "robust accuracy" in done.stdout


def test_fewer_images_are_those_of_the_first_samples(attacked, examples, call):
    torch.save(torch.from_numpy(examples[:12]), "few.pt")
    done = verify(call, "few.pt")
    assert done.returncode == 0
    assert "12 images of few.pt for the first 12 of 30 samples" in done.stdout
    assert f"robust accuracy  {100 * attacked[2].robust[:12].mean():.1f}" in done.stdout
    assert verify(call, "x.pt", "--samples=30").returncode == 0


def test_clean_images_break_nothing(examples, call):
    with np.load("data.npz") as data:
        np.save("clean.npy", data["images"])
    done = verify(call, "clean.npy")
    assert done.returncode == 0
    clean, robust = (line.split("  ")[-1] for line in done.stdout.splitlines()[1:3])
    assert clean.strip().split()[-5:] == robust.strip().split()[-5:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: np.clip(image + 0.5, 0, 1), "1 beyond eps, the farthest at"),
        (lambda image: np.where(np.arange(64).reshape(1, 8, 8) == 3, -0.01, image), "1 outside the box"),
        (lambda image: np.where(np.arange(64).reshape(1, 8, 8) == 3, np.nan, image), "1 not finite"),
        (lambda image: np.where(np.arange(64).reshape(1, 8, 8) == 3, np.inf, image), "1 not finite"),
    ],
)
def test_an_image_that_is_not_within_the_threat_model_fails_is_named_and_counts_as_robust(
    attacked, examples, call, change, said
):
    samples = attacked[2]
    row = int(np.flatnonzero(samples.correct & ~samples.robust)[0])
    examples[row] = change(examples[row])
    np.save("x.npy", examples)
    done = verify(call, "x.npy")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert said in line
    assert f"({row})" in line
    assert f"robust accuracy  {100 * (samples.robust.sum() + 1) / 30:.1f}" in done.stdout


def test_a_distance_just_beyond_eps_is_measured_in_float64(examples, call):
    """Beyond the slack for rounding by less than float32 resolves at such pixels."""
    with np.load("data.npz") as data:
        images = data["images"].astype(np.float64)
    for step, code in ((EPS + 2.0**-24, 0), (EPS + 2.0**-21, 1)):
        moved = np.where(images < 0.5, images + step, images - step)
        np.save("edge.npy", moved)
        assert verify(call, "edge.npy").returncode == code, step


WRONG = {
    "wrong shape": (lambda images: images[:, :, :7], "have shape (30, 1, 7, 8), but the images of data"),
    "channels last": (lambda images: np.moveaxis(images, 1, -1), "they look like (N, H, W, C)"),
    "three dimensions": (lambda images: images[:, 0], "save (N, C, H, W)"),
    "too many": (lambda images: np.concatenate([images, images]), "60 examples and 30 samples"),
    "none": (lambda images: images[:0], "0 examples and 30 samples"),
    "0 to 255": (lambda images: images * 255, "save pixels in [0, 1]"),
    "normalised": (lambda images: (images - 0.5) / 0.2, "before normalisation"),
    "whole numbers": (lambda images: (images * 255).astype(np.int64), "int64: save floats in [0, 1], or uint8"),
    "truth values": (lambda images: images > 0.5, "bool: save floats"),
    "complex numbers": (lambda images: images + 0j, "complex"),
    "nothing finite": (lambda images: images * np.nan, "no finite number"),
    "objects": (lambda images: np.array([{}], dtype=object), "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_meant_is_wrong_usage_in_a_sentence(examples, call, case):
    change, said = WRONG[case]
    np.save("x.npy", change(examples))
    done = verify(call, "x.npy")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_runs_code_is_refused_and_runs_nothing(examples, call):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (Path("was-run"),))

    torch.save(Evil(), "x.pt")
    done = verify(call, "x.pt")
    assert done.returncode == 2
    assert "x.pt" in done.stderr
    assert not Path("was-run").exists()


@pytest.mark.parametrize("name", ["x.pt", "x.npy", "x.npz", "x.safetensors", "missing.pt", "x.png"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04 and no archive"])
def test_a_damaged_or_missing_file_is_wrong_usage_in_a_sentence(examples, call, name, content):
    Path("x.pt").unlink()
    if name != "missing.pt":
        Path(name).write_bytes(content)
    done = verify(call, name)
    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_an_array_whose_header_claims_gigabytes_is_refused_without_reading_it(examples, call):
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    text = str({"descr": "<f4", "fortran_order": False, "shape": (10**9, 1, 8, 8)}).encode()
    Path("x.npy").write_bytes(header + text.ljust(117) + b"\n" + bytes(256))
    done = verify(call, "x.npy")
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def test_several_arrays_ask_for_a_name(examples, call):
    np.savez("x.npz", a=examples, b=examples)
    done = verify(call, "x.npz")
    assert done.returncode == 2
    assert "2 arrays of four dimensions (a, b): name one, FILE#ENTRY" in done.stderr
    assert verify(call, "x.npz#c").returncode == 2
    assert verify(call, "x.npz#b").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "RUN is missing"),
        (("--examples=x.pt",), "--examples needs --model, --data, --threat"),
        (("out", "--examples=x.pt"), "stands in place of RUN"),
        (("out", "--model=model.py:build"), "--model goes with --examples"),
        (("out", "--out=x.csv"), "--out goes with --examples"),
        (("--examples=x.pt", "--out=x.pt", *OPTIONS), "which it would overwrite"),
        (("out", "--seed=3"), "--seed goes with --attack"),
        (("--examples=x.pt", "--attack=5", *OPTIONS), "stands in place of RUN"),
        (("--examples=x.pt", "--model=cnn.*_digits", "--data=digits", "--threat=Linf:0.1"), "models: name one"),
        (("--examples=x.pt", "--model=model.py:build", "--data=data.npz", "--threat=L7:1"), "L7"),
        (("--examples=x.pt", "--model=model.py:nothing", "--data=data.npz", "--threat=Linf:0.1"), "nothing"),
        (("--examples=x.pt", "--model=model.py:build", "--data=none.npz", "--threat=Linf:0.1"), "none.npz"),
    ],
)
def test_wrong_usage_says_what_is_missing(examples, call, arguments, said):
    done = call("verify", *arguments)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_models_take_their_forms_and_settings_as_everywhere(examples, call):
    done = call("verify", "--examples=x.pt", "--model=model.py:build(mean=0.9, std=0.2)", *OPTIONS[1:])
    assert done.returncode == 0, done.stderr
    plain = verify(call)
    assert done.stdout.splitlines()[2] != plain.stdout.splitlines()[2]


def test_a_defense_stands_before_the_model(examples, call):
    done = verify(call, "x.pt", "--defense=bit_depth(bits=1)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2] != verify(call).stdout.splitlines()[2]


def test_a_randomised_defense_is_judged_by_the_majority_of_its_draws(examples, call):
    first, again = (verify(call, "x.pt", "--defense=input_noise") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout


def test_help_names_the_exit_codes(call):
    shown = " ".join(call("verify", "--help").stdout.split())
    assert "not within the threat model" in shown
    assert "--examples FILE" in shown
    assert "--attack N|N%" in shown
