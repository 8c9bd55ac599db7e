"""Picture files: which are decoded, and damaged ones."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datafiles import noise, png
from gauntlet.bench.data.formats.encoded_images import encoded_images, preprocessed_array
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.preprocessing import Preprocessing


def test_formats_that_start_programs_are_not_decoded(tmp_path):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n(executed) print\n"
    for name, content in (("a/1.png", postscript), ("b/1.png", png(noise((4, 4))))):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    assert Image.open(io.BytesIO(postscript)).format == "EPS"
    with pytest.raises(ValueError, match=r"1\.png' cannot be read"):
        load_data(str(tmp_path))


def test_a_picture_that_is_damaged_anywhere_is_refused_or_read_but_never_breaks_out(tmp_path):
    """Pillow's decoders raise what they stumble over; a reader must turn all of it into a sentence."""
    generator, said, read = np.random.default_rng(0), [], []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = png(noise((9, 8, 3)), kind)
        for turn in range(60):
            damaged = bytearray(whole)
            for at in generator.integers(0, len(whole), 3):
                damaged[at] = generator.integers(0, 256)
            content = bytes(damaged[: generator.integers(1, len(whole)) if turn % 2 else None])
            try:
                found = encoded_images(lambda rows, content=content: [content], lambda row: "the image", 1)[0]
            except ValueError as error:
                said.append(str(error))
            else:
                read.append(found)
    assert said
    assert read
    assert all(one.startswith("the image ") for one in said)


def test_arrays_other_than_bytes_are_not_resized(tmp_path):
    np.savez(tmp_path / "x.npz", images=noise((4, 1, 8, 8)) / 255, labels=np.arange(4))
    with pytest.raises(ValueError, match=r"float64 .* cannot be preprocessed"):
        load_data(f"{tmp_path / 'x.npz'}(resize=16)")
    with pytest.raises(ValueError, match="cannot be preprocessed"):
        preprocessed_array(noise((4, 2, 8, 8)), Preprocessing(resize=4))


SHARED = os.environ.get("GAUNTLET_SHARED_DATA")


@pytest.mark.skipif(not SHARED, reason="GAUNTLET_SHARED_DATA does not name a folder with real images")
@pytest.mark.parametrize(("name", "count", "shape"), [("cifar10", 112, (3, 32, 32)), ("mnist", 126, (1, 28, 28))])
def test_the_first_thousand_real_images_are_as_described(name, count, shape):
    data = load_data(f"{name}@{Path(SHARED) / f'{name}_test_1000.npz'}")
    assert data.images.shape == (1000, *shape)
    assert int(data.labels.bincount().max()) == count
    assert data.ids[999] == f"{name}/00999"
