"""Trains the network and writes weights.safetensors: `python train.py`, about three seconds on one core."""

import logging

import torch
from model import build
from safetensors.torch import save_file
from utils import HERE, digits_as_bytes

EPOCHS = 12
BATCH = 50


def main():
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    pixels, labels, train, test = digits_as_bytes()
    x, y = torch.from_numpy(pixels) / 255, torch.from_numpy(labels)
    net = build()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for epoch in range(EPOCHS):
        for batch in torch.from_numpy(train)[torch.randperm(len(train))].split(BATCH):
            optimizer.zero_grad()
            net.loss(x[batch], y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = (net(x[test]).argmax(1) == y[test]).float().mean()
        logging.info("epoch %2d: %.1f %% of the test images are right", epoch + 1, 100 * accuracy)
    save_file(net.state_dict(), HERE / "weights.safetensors")


if __name__ == "__main__":
    main()
