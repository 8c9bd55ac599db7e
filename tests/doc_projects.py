"""The folders that commands of the documentation are run in: the files that the pages name, small."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from builders import ROOT
from datafiles import png

COUNT = 40
"""Images of a project, unless its commands need more."""


def shell(folder, command):
    """Run a command of this folder's own, not of the documentation."""
    subprocess.run(["bash", "-euc", command], cwd=folder, env=environment(folder), check=True, capture_output=True)


def environment(folder):
    """What commands see: this environment's programs first, one thread, no network, no settings of the developer."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    author = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return (
        kept
        | author
        | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]]),
            "HOME": str(folder),
            "RUNNER_TEMP": str(folder),
            "GAUNTLET_DATA": "data",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONUTF8": "1",
            "COLUMNS": "200",
        }
    )


def digits(start, count):
    """Images (N, 1, 8, 8) and labels of scikit-learn's digits."""
    bunch = load_digits()
    part = slice(start, start + count)
    return (bunch.images[part] / 16).astype(np.float32)[:, None], bunch.target[part].astype(np.int64)


def checkout(folder):
    """The part of a checkout that commands name."""
    for name in ("examples", "bench"):
        (folder / name).symlink_to(ROOT / name)


def own_model(folder):
    """A network, its checkpoint and its images, by the names of the README."""
    for name in ("attacks.py", "utils.py"):
        shutil.copy(ROOT / "examples" / "own_model" / name, folder)
    shutil.copy(ROOT / "examples" / "own_model" / "model.py", folder / "net.py")
    torch.save(load_file(ROOT / "examples" / "own_model" / "weights.safetensors"), folder / "best.pth")
    shutil.copy(ROOT / "examples" / "own_model" / "data.npz", folder / "test.npz")


def published(folder):
    """The same with a published figure, in a configuration as docs/comparing.md has it."""
    own_model(folder)
    (folder / "gauntlet.toml").write_text(
        textwrap.dedent("""
            model = "net.py:build"
            weights = "best.pth"
            data = "test.npz"
            threat = "Linf:0.1"
            attacks = ["fgsm"]

            [[published]]
            model = "net.build@best"
            name = "the network of a paper"
            clean = 0.982
            robust = 0.959
            threat = "Linf:0.1"
            attack = "PGD"
            n = 10000
            source = "a paper"
        """),
        encoding="utf-8",
    )


def configured(folder):
    """A small plan in a configuration."""
    (folder / "gauntlet.toml").write_text(
        'model = "cnn.fast_digits"\ndata = "digits"\nsamples = "0:210"\nthreat = "Linf:0.1"\nattacks = "fgsm"\n',
        "utf-8",
    )


def parts(folder):
    """The folders of three shards."""
    configured(folder)
    for number in range(3):
        shell(folder, f"gauntlet run --shard {number + 1}/3 --out shard-{number}")
    shell(folder, "gauntlet run --out results --samples 0:50")


def plugin(folder):
    """The example of a plugin under the names of docs/extending.md."""
    text = (ROOT / "examples" / "plugin" / "extras.py").read_text(encoding="utf-8")
    for old, new in (("energy", "my-net"), ("stripes", "my-data"), ("levels", "my-defense"), ("simba", "my-attack")):
        assert f'"{old}"' in text
        text = text.replace(f'"{old}"', f'"{new}"')
    (folder / "mine.py").write_text(text, encoding="utf-8")


def digit_runs(folder):
    """Runs of digits with several defenses; `few` has other samples."""
    run = "gauntlet run --model cnn.trades_digits --data digits --threat Linf:0.15 --attacks fgsm"
    shell(folder, f"{run} --defense none,bit_depth,jpeg --samples 60")
    shell(folder, f"{run} --samples 40 --seed 1 --out few")


def gate_repository(folder):
    """`examples/ci` as a repository of its own, without its baseline, with a secret split beside it."""
    shutil.copytree(ROOT / "examples" / "ci", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("robustness"))
    images, labels = digits(0, 300)
    (folder / "private").mkdir()
    for name in ("private/secret.npz", "secret.npz"):
        np.savez_compressed(folder / name, images=images, labels=labels)
    shell(folder, "git init -q . && git add -A && git commit -qm first")


def history(folder):
    """A repository with two commits, the second with other weights, and a run at each."""
    gate_repository(folder)
    shell(folder, "gauntlet run --no-gate --attacks fgsm,adaptive --samples 0:60")
    shell(folder, "cp -r gauntlet-results release-1; python train.py --finetune; git commit -qam finetuned")
    shell(folder, "gauntlet run --no-gate --attacks fgsm,adaptive --samples 0:60")


NET = """
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).eval()
"""

SERVICE = """
import numpy as np

WEIGHT = np.load("weight.npy")


def ask(images):
    return images.reshape(len(images), -1) @ WEIGHT.T


def label(images):
    return ask(images).argmax(1)
"""


def photo_network(folder):
    """A network for 32×32 photos in every form that docs/models.md names, and CIFAR-10 in its own layout, made up."""
    generator = np.random.default_rng(0)
    # Patterns whose channels have mean 0: neither mean nor std of a normalisation moves the decision much.
    patterns = generator.standard_normal((10, 3, 32, 32))
    patterns -= patterns.mean((2, 3), keepdims=True)
    labels = np.arange(COUNT) % 10
    images = np.clip(128 + 20 * patterns[labels] + 20 * generator.standard_normal((COUNT, 3, 32, 32)), 0, 255)
    images = images.astype(np.uint8)
    weight = torch.tensor(patterns.reshape(10, -1) / 100, dtype=torch.float32)
    state = {"1.weight": weight, "1.bias": torch.zeros(10)}
    (folder / "net.py").write_text(NET, encoding="utf-8")
    (folder / "model.py").write_text(NET, encoding="utf-8")
    (folder / "service.py").write_text(SERVICE, encoding="utf-8")
    np.save(folder / "weight.npy", weight.numpy())
    for name in ("best.pth", "best.th", "robust.pth"):
        torch.save(state, folder / name)
    save_file(state, folder / "clean.safetensors")
    write_forms(folder, weight)
    np.savez_compressed(folder / "cifar.npz", images=images, labels=labels)
    np.savez_compressed(folder / "cifar10_test_1000.npz", images=images, labels=labels)
    torch.save(torch.from_numpy(images), folder / "x_adv.pt")
    mnist(folder / "data" / "MNIST" / "raw")
    batches = folder / "data" / "cifar10"
    batches.mkdir(parents=True)
    encoded = [{"bytes": png(image.transpose(1, 2, 0))} for image in images]
    pd.DataFrame({"img": encoded, "label": labels}).to_parquet(batches / "test-00000-of-00001.parquet")
    for number, value in enumerate(images[:20].transpose(0, 2, 3, 1)):
        place = folder / "photos" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(value).save(place / f"{number:02}.png")


def mnist(folder):
    """Digits in the two files of MNIST, 20 of each class."""
    folder.mkdir(parents=True)
    labels = np.arange(200, dtype=np.uint8) % 10
    images = np.zeros((200, 28, 28), np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        (folder / f"t10k-{name}-ubyte").write_bytes(head + array.tobytes())


def write_forms(folder, weight):
    """The network as TorchScript, torch.export and ONNX, and a folder in the layout of Hugging Face."""
    import onnx
    import transformers
    from onnx import TensorProto, helper, numpy_helper

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10)).eval()
    net[1].weight.data, net[1].bias.data = weight, torch.zeros(10)
    example = torch.rand(2, 3, 32, 32)
    shapes = ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.13 calls parts of its own outdated.
        torch.jit.trace(net, example).save(folder / "net.pt")
        torch.export.save(torch.export.export(net, (example,), dynamic_shapes=shapes), folder / "net.pt2")
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight.numpy(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=10
    )
    transformers.ResNetForImageClassification(config).eval().save_pretrained(folder / "my-network")
