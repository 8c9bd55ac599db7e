"""The folders of Tiny ImageNet and ImageNet, made by the tests, and what is refused."""

import numpy as np
import pytest
import torch

from datafiles import noise, png
from gauntlet.bench.data.load_data import load_data


def tiny_folder(root, count=8, classes=200, side=64):
    names = [f"n{number:08d}" for number in range(100, 100 + classes)]
    pixels = noise((count, side, side, 3))
    (root / "val/images").mkdir(parents=True)
    lines = []
    for i, one in enumerate(pixels):
        (root / f"val/images/val_{i}.JPEG").write_bytes(png(one))
        lines.append(f"val_{i}.JPEG\t{names[(7 * i) % classes]}\t0\t32\t44\t62")
    (root / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "wnids.txt").write_text("\n".join(reversed(names)) + "\n")
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()) / 255, [(7 * i) % classes for i in range(count)]


def test_tiny_imagenets_validation_images_get_their_labels_from_the_list_beside_them(tmp_path):
    images, labels = tiny_folder(tmp_path / "tiny-imagenet-200")
    for spec in (f"tiny-imagenet@{tmp_path}", f"tiny-imagenet@{tmp_path / 'tiny-imagenet-200'}"):
        data = load_data(spec)
        assert torch.equal(data.images, images)
        assert (data.labels.tolist(), data.classes) == (labels, 200)
        assert data.ids[:2] == ("val_0.JPEG", "val_1.JPEG")


def test_lists_with_a_byte_order_mark_give_the_same_data(tmp_path):
    _, labels = tiny_folder(tmp_path)
    for name in ("wnids.txt", "val/val_annotations.txt"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes().replace(b"\n", b"\r\n"))
    data = load_data(f"tiny-imagenet@{tmp_path}")
    assert (data.labels.tolist(), data.classes, data.ids[0]) == (labels, 200, "val_0.JPEG")
    (tmp_path / "wnids.txt").write_bytes("n00000100".encode("utf-16"))
    with pytest.raises(ValueError, match=r"wnids\.txt' cannot be read .*save it as UTF-8"):
        load_data(f"tiny-imagenet@{tmp_path}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG n00000100", "a line has no file or no class"),
        ("../../etc/passwd\tn00000100", "is not a plain file name"),
        ("val_0.JPEG\tn99999999", "class 'n99999999' is not in wnids.txt"),
        ("val_99.JPEG\tn00000100", r"val_99\.JPEG' cannot be read"),
    ],
)
def test_a_list_of_tiny_imagenet_with_a_fault_is_refused(tmp_path, line, message):
    tiny_folder(tmp_path)
    (tmp_path / "val/val_annotations.txt").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        load_data(f"tiny-imagenet@{tmp_path}")
    (tmp_path / "wnids.txt").unlink()
    if "n99999999" in line:
        with pytest.raises(ValueError, match=r"has 1 classes, not 200: put wnids\.txt"):
            load_data(f"tiny-imagenet@{tmp_path}")


def imagenet_folder(root, files, classes=1000):
    for number in range(classes):
        (root / f"val/n{number:08d}").mkdir(parents=True)
    for name, pixels in files.items():
        (root / "val" / name).write_bytes(png(pixels, "JPEG"))


def test_imagenets_folders_are_numbered_as_torchvision_does_and_one_that_is_missing_is_told(tmp_path):
    grey = np.full((300, 280), 77, np.uint8)
    files = {
        "n00000999/ILSVRC2012_val_00000002.JPEG": noise((300, 280, 3)),
        "n00000007/ILSVRC2012_val_00000009.JPEG": noise((260, 330, 3), 1),
        "n00000007/ILSVRC2012_val_00000001.JPEG": grey,
    }
    imagenet_folder(tmp_path, files)
    for root in (tmp_path, tmp_path / "val"):
        data = load_data(f"imagenet@{root}")
        assert data.ids == (
            "n00000007/ILSVRC2012_val_00000001.JPEG",
            "n00000999/ILSVRC2012_val_00000002.JPEG",
            "n00000007/ILSVRC2012_val_00000009.JPEG",
        )
        assert data.labels.tolist() == [7, 999, 7]
        assert data.images.shape == (3, 3, 224, 224)
        assert (data.images[0] * 255).round().unique().tolist() == [77]
        assert (data.classes, data.name) == (1000, "imagenet(resize=256, crop=224, interpolation=bilinear)")
    (tmp_path / "val/n00000500").rmdir()
    with pytest.raises(ValueError, match="has 999 sub-folders, not one for each of the 1000 classes"):
        load_data(f"imagenet@{tmp_path}")
