"""The networks that strength is measured on: the zoo, and published ones whose files lie in a folder of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.models.load_model import LoadedModel, load_model

_HERE = "gauntlet.bench.strength.architectures"
_MNIST, _CIFAR = "mnist@{folder}/mnist_test_1000.npz", "cifar10@{folder}/cifar10_test_1000.npz"


@dataclass(frozen=True)
class _Published:
    """A network in files; `{folder}` stands for the folder that they lie in."""

    model: str
    data: str
    weights: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


_PUBLISHED = {
    "wong_kolter_mnist": _Published(f"{_HERE}:wong_kolter", _MNIST, "wong_kolter_mnist.pth"),
    "resnet20_cifar10": _Published(
        f"{_HERE}:ResNet20", _CIFAR, "resnet20_cifar10.th", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ),
    # Of the neural network verification competition of 2021.
    "cifar10_small": _Published("onnx:{folder}/vnncomp2021/cifar10_small.onnx", _CIFAR),
    "cifar10_large": _Published("onnx:{folder}/vnncomp2021/cifar10_large.onnx", _CIFAR),
    "Convnet_maxpool": _Published("onnx:{folder}/vnncomp2021/Convnet_maxpool.onnx", _MNIST),
    "mnist_relu_9_200": _Published("onnx:{folder}/vnncomp2021/mnist_relu_9_200.onnx", _MNIST),
}


def load_data_of(network: str, folder: Path | None, samples: str | int) -> Data:
    """Test images of the network's data set: so many, or those of a slice such as `200:400`. Raises as `load_network`."""
    published = _PUBLISHED.get(network)
    if published is None:
        name = network.rpartition("_")[2]
        return load_data(name, samples=samples)
    return load_data(published.data.format(folder=_folder(network, folder)), samples=samples)


def load_network(network: str, folder: Path | None) -> LoadedModel:
    """Load a network of the zoo, or a published one whose files lie in `folder`.

    Raises FileNotFoundError where it needs a folder and there is none or a file is missing, and LookupError for an unknown name.
    """
    published = _PUBLISHED.get(network)
    if published is None:
        return load_model(network)
    inside = _folder(network, folder)
    weights = inside / published.weights if published.weights else None
    return load_model(published.model.format(folder=inside), weights=weights, mean=published.mean, std=published.std)


def is_published(network: str) -> bool:
    """Whether the network's files lie in a folder of the user's."""
    return network in _PUBLISHED


def _folder(network: str, folder: Path | None) -> Path:
    if folder is None or not folder.is_dir():
        raise FileNotFoundError(f"the files of {network} are not at hand: name their folder with --networks")
    return folder
