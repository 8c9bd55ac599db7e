"""Writes data.npz: 200 test images as bytes, as a camera or a dataset would give them: `python make_data.py`."""

import numpy as np
from utils import HERE, digits_as_bytes


def main():
    images, labels, _, test = digits_as_bytes()
    few = test[:200]
    ids = np.array([f"uci-{index:04d}" for index in few])
    np.savez_compressed(HERE / "data.npz", images=images[few], labels=labels[few], ids=ids)


if __name__ == "__main__":
    main()
