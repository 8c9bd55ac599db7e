"""Frames of a connection between two processes, and requests as they travel in them."""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from gauntlet.bench.config.schema import DataRef, load_config
from gauntlet.bench.planning.plan import MOST_CELLS, make_plan
from gauntlet.bench.planning.plan_request import PlanRequest
from gauntlet.bench.worker import frames
from gauntlet.bench.worker.frames import MOST_CONTENT, MOST_TEXT, FrameError, Frames, TooLongError
from gauntlet.bench.worker.request import BaselineModel, DrawExamples, Request, TryExamples, cell_fields
from gauntlet.bench.worker.request_bytes import decode_request, encode_request
from gauntlet.leaderboard.results.sealed_json import MOST_BYTES
from gauntlet.leaderboard.rows.closest_examples import BrokenSample

MARK = b"gntlt\x00\x01\xfe"


@pytest.fixture
def ends():
    """Both ends of a connection, as frames."""
    pair = socket.socketpair()
    yield tuple(map(Frames, pair))
    for end in pair:
        end.close()


def head(text, content, mark=MARK):
    return struct.pack(">8sIQ", mark, text, content)


def test_frames_arrive_in_order_with_their_bytes(ends):
    here, there = ends
    here.send({"share": 0.5})
    here.send('{"record": {"key": "é"}}', b"\x00" * 100_000)
    first, second = there.receive(), there.receive()
    assert (first.kind, first.fields, first.content) == ("share", 0.5, b"")
    assert (second.kind, second.fields, second.content) == ("record", {"key": "é"}, b"\x00" * 100_000)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"x" * 40, "where a message begins"),
        (head(2, 0, b"GNTLT\x00\x01\xfe") + b"{}", "where a message begins"),
        (head(MOST_TEXT + 1, 0), "too long"),
        (head(2, MOST_CONTENT + 1), "too long"),
        (head(2, 0) + b"{]", "is not JSON"),
        (head(100_000, 0) + b"[" * 100_000, "is not JSON"),
        (head(2, 0) + b"\xff\xfe", "is not JSON"),
        (head(2, 0) + b"{}", "one key"),
        (head(3, 0) + b"[1]", "one key"),
        (head(14, 0) + b'{"record": ""}', "has no fields"),
    ],
)
def test_what_is_no_frame_is_told_apart(ends, written, said):
    here, there = ends
    here.connection.sendall(written)
    with pytest.raises(FrameError, match=said):
        there.receive()


def test_the_end_of_the_other_process_is_the_end_of_the_connection(ends):
    here, there = ends
    here.connection.sendall(head(20, 0) + b'{"record"')
    here.connection.close()
    with pytest.raises(EOFError):
        there.receive()


def test_a_connection_that_a_child_of_an_ended_process_keeps_ends_as_well(ends):
    _, there = ends
    there.alive = lambda: False
    with pytest.raises(EOFError, match="has ended"):
        there.receive()


def test_nothing_is_waited_for_after_the_deadline(ends):
    here, there = ends
    there.alive, there.deadline = (lambda: True), time.monotonic()
    with pytest.raises(TimeoutError):
        there.receive()
    with pytest.raises(TimeoutError):
        there.send({"share": 1})
    there.deadline = None
    here.send({"share": 1})
    assert there.receive().fields == 1


def test_a_message_beyond_the_limits_is_not_sent_and_the_next_one_arrives(ends, monkeypatch):
    here, there = ends
    monkeypatch.setattr(frames, "MOST_TEXT", 30)
    with pytest.raises(TooLongError, match="of 55 bytes of text and 0 of content is too long for the limits of 30 and"):
        here.send({"record": {"key": "x" * 20, "more": ""}})
    here.send({"share": 0.5})
    assert there.receive().fields == 0.5


def test_the_largest_plan_can_be_sent_and_stored(project):
    asked = {
        "model": ["model.py:build"],
        "data": "data.npz",
        "threat": ["Linf:0.1"],
        "attacks": ["gauntlet", "autoattack"],
    }
    cells = make_plan(load_config(asked, folder=Path.cwd())).cells
    longest = max(len(json.dumps(cell_fields(cell), indent=1)) for cell in cells)
    assert longest > 2500
    assert 1.5 * longest * MOST_CELLS < min(MOST_TEXT, MOST_BYTES)


def test_every_request_survives_its_bytes(project):
    config = load_config(
        {"model": ["model.py:build"], "data": "data.npz", "threat": ["L2:0.5"], "attacks": ["pgd"]}, folder=Path.cwd()
    )
    (cell,) = make_plan(config).cells
    images = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
    baseline = BaselineModel("d", b"\x00weights", ((0.5, -1.0),), (7,))
    sample = BrokenSample("a", 1, 2, 0.5, "pgd", 0)
    requests = [
        PlanRequest.of(config),
        Request(cell, blocks=((0, 2),), run=("k",), measured={"m": {"form": ""}}),
        TryExamples(cell, (3, 5), images, {"m": {"form": ""}}, baseline),
        TryExamples(cell, (), images[:0]),
        DrawExamples(DataRef("data.npz", "10"), "L2", "title", (sample, sample), (images[0], images[1, :, :4])),
    ]
    for request in requests:
        found = decode_request(*encode_request(request))
        assert type(found) is type(request)
        for field in dataclasses.fields(request):
            one, other = getattr(request, field.name), getattr(found, field.name)
            if field.name == "images":
                assert [np.asarray(image).tolist() for image in one] == [np.asarray(image).tolist() for image in other]
                assert [image.dtype for image in one] == [image.dtype for image in other]
            elif field.name == "samples":
                assert list(map(vars, one)) == list(map(vars, other))
            elif isinstance(one, BaselineModel):
                assert vars(one) == vars(other)
            else:
                assert one == other
    with pytest.raises(ValueError, match="not known"):
        decode_request('{"pickle": {}}', b"")
