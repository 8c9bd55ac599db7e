"""The seam: requests and messages are plain data, and a worker in another process gives what the engine's own gives."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from gauntlet.attacks.solving import work_done
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.planning.plan_request import PlanRequest
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.worker import attack_blocks
from gauntlet.bench.worker.messages import (
    BlockInfo,
    BlockRecord,
    Failure,
    Planned,
    PreparedCell,
    Progress,
    decode,
    encode,
)
from gauntlet.bench.worker.request import Request, StoredLogits
from gauntlet.bench.worker.work import LocalWorker
from gauntlet.leaderboard.results.block_file import from_file
from gauntlet.leaderboard.results.measurements import Measurements
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.results.sealed_json import DIGEST, read_json, unsealed

ASKED = {"model": ["model.py:build"], "data": "data.npz", "threat": ["Linf:0.1"], "attacks": ["pgd(steps=5)"]}

PROCESS = """
import struct, sys
import torch
from gauntlet.bench.planning.plan_request import PlanRequest
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.worker.messages import encode
from gauntlet.bench.worker.request import Request
from gauntlet.bench.worker.work import LocalWorker

kind, text = sys.stdin.readline().strip(), sys.stdin.readline()
request = (PlanRequest if kind == "plan" else Request).from_json(text)
for message in LocalWorker(Workbench(torch.device("cpu"))).work(request):
    text, content = encode(message)
    sys.stdout.buffer.write(struct.pack(">II", len(text.encode()), len(content)) + text.encode() + content)
"""


def configured(**options):
    return load_config({**ASKED, **options}, folder=Path.cwd())


def worker(**settings):
    return LocalWorker(Workbench(torch.device("cpu"), **settings))


def in_another_process(request):
    kind = "plan" if isinstance(request, PlanRequest) else "cell"
    done = subprocess.run(
        [sys.executable, "-c", PROCESS],
        input=f"{kind}\n{request.to_json()}\n".encode(),
        capture_output=True,
        check=True,
    )
    stream, messages = BytesIO(done.stdout), []
    while header := stream.read(8):
        sizes = struct.unpack(">II", header)
        messages.append(decode(stream.read(sizes[0]).decode(), stream.read(sizes[1])))
    return messages


def outcome(content):
    record = from_file(BytesIO(content), adversarial=True)
    columns = {field.name: getattr(record.samples, field.name) for field in dataclasses.fields(record.samples)}
    return record.key, record.cell, record.flags, columns


def same(first, second):
    assert first[:3] == second[:3]
    for name, values in first[3].items():
        other = second[3][name]
        if name == "adversarial":
            pairs = list(zip(values, other, strict=True))
            assert all((a is None) == (b is None) and (a is None or np.array_equal(a, b)) for a, b in pairs)
        else:
            np.testing.assert_array_equal(values, other, err_msg=name)


def test_a_request_survives_json(project):
    plan = make_plan(configured(threat=["Linf:0.1", "L2:0.5:target=3"], defense=["jpeg(quality=50)"]))
    for cell in plan.cells:
        request = Request(
            cell,
            blocks=((0, 2), (5,)),
            run=("a", "b"),
            check=True,
            expected=StoredLogits(0, ((0.1, -2.5),)),
            measured={"key": {"form": "folded"}},
            batch_size=7,
            keep_adversarials=False,
        )
        assert Request.from_json(request.to_json()) == request
        assert Request.from_json(Request(cell).to_json()) == Request(cell)


def test_a_plan_request_survives_json(project):
    config = configured(mean="0.5", std="0.25")
    request = PlanRequest.of(config)
    assert PlanRequest.from_json(request.to_json()) == request


def test_every_message_survives_json(project):
    cell = make_plan(configured()).cells[0]
    messages = [
        Planned((cell,), ("why",)),
        PreparedCell(
            dataclasses.replace(cell.info, techniques={"": "white-box"}, severities=(1, 2)),
            (BlockInfo("k", 3),),
            {"m": {"form": ""}},
            (PublishedFigure(model="net", data="digits", threat="Linf:0.1", source="a paper", robust=0.5),),
        ),
        BlockRecord("k", b"\x00bytes"),
        Progress(12),
        Failure("ValueError", "no", "trace", {"device": "cpu"}),
    ]
    for message in messages:
        text, content = encode(message)
        json.loads(text)
        assert decode(text, content) == message
    with pytest.raises(ValueError, match="not known"):
        decode('{"pickle": {}}', b"")


def test_a_worker_in_another_process_plans_and_gives_the_same_records(project):
    (planned,) = in_another_process(PlanRequest.of(configured()))
    assert planned.cells == make_plan(configured()).cells
    (cell,) = planned.cells
    (prepared,) = in_another_process(Request(cell))
    keys = tuple(block.key for block in prepared.blocks)
    there = in_another_process(Request(cell, run=keys, measured=prepared.measured))
    here = list(worker().work(Request(cell, run=keys)))
    assert [type(message) for message in there] == [type(message) for message in here]
    assert [type(message) for message in here] == [PreparedCell, BlockRecord, Progress]
    assert here[0] == there[0] == prepared
    same(outcome(here[1].content), outcome(there[1].content))


def test_what_fails_behind_the_seam_comes_back_as_a_failure(project):
    cell = make_plan(configured()).cells[0]
    Path("means.npy").unlink()
    (failed,) = worker().work(Request(cell))
    assert isinstance(failed, Failure)
    assert failed.kind == "ModelError"
    assert "means.npy" in failed.message
    assert "Traceback" in failed.traceback


def test_asking_for_a_plan_imports_neither_torch_nor_what_the_user_wrote(project):
    Path("plugin.py").write_text("raise SystemExit('the plugin was imported')\n")
    code = """
import sys
from pathlib import Path
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.planning.plan_request import PlanRequest
config = load_config({"model": ["plugin-model*"], "plugin": ["plugin.py"]}, folder=Path.cwd())
request = PlanRequest.of(config)
assert request.plugins, request
assert not {"torch", "plugin", "gauntlet.bench.registries"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_first_measurement_of_a_pipeline_counts_for_every_later_worker(project):
    config = configured(attacks=["adaptive()"], checks="none")
    engine = Engine(make_plan(config), config, command="gauntlet run")
    (cell,) = engine.run.plan.cells
    usual = engine.prepare(cell).prepared
    folder = Path("gauntlet-results/measured") / cell.pipeline_name
    files = {path: read_json(path) for path in folder.glob("*.json")}
    assert {"profile", "form", "batch"} == {key for fields in files.values() for key in fields} - {
        "device",
        "masked",
        DIGEST,
    }
    # Another machine was first, and found the gradients to be of no use.
    for path, fields in files.items():
        if "profile" in fields:
            path.write_text(json.dumps({**unsealed(fields, f"{path.parent.name}/{path.stem}"), "masked": True}))
    later = Engine(make_plan(config), config, command="gauntlet run")
    taken = later.prepare(cell).prepared
    assert taken.cell.techniques != usual.cell.techniques
    assert [block.key for block in taken.blocks] != [block.key for block in usual.blocks]


def test_a_run_over_more_blocks_takes_what_a_run_over_fewer_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"model": ["cnn.standard_digits"], "data": "digits", "threat": ["Linf:0.1"], "attacks": ["adaptive"]}

    def prepared(samples):
        config = load_config({**asked, "samples": samples, "checks": "none"}, folder=Path.cwd())
        engine = Engine(make_plan(config), config, command="gauntlet run")
        (cell,) = (cell for cell in engine.run.plan.cells if cell.attack.name == "adaptive")
        return engine.prepare(cell).prepared

    few = prepared("100")
    files = {path: read_json(path) for path in Path("gauntlet-results/measured").rglob("*.json")}
    for path, fields in files.items():
        if "profile" in fields:
            path.write_text(json.dumps({**unsealed(fields, f"{path.parent.name}/{path.stem}"), "masked": True}))
    more = prepared("200")
    assert more.cell.techniques != few.cell.techniques
    assert set(Path("gauntlet-results/measured").rglob("*.json")) == set(files)


def test_a_worker_that_measured_otherwise_takes_what_was_stored_in_the_meantime(project):
    config = configured(attacks=["adaptive()"], checks="none")
    engine = Engine(make_plan(config), config, command="gauntlet run")
    (cell,) = engine.run.plan.cells
    measured = next(iter(engine.work(Request(cell)))).measured
    store = Measurements(engine.run.root)
    for key, fields in measured.items():
        store.settle(cell.pipeline_name, key, {**fields, "masked": True} if "profile" in fields else fields)
    assert "through" in engine.prepare(cell).prepared.cell.techniques


@pytest.mark.parametrize("name", ["fp16", "tf32", "tf32+channels_last"])
def test_a_form_that_cannot_be_made_here_is_an_error_that_says_so(project, name):
    config = configured(precision="auto")
    engine = Engine(make_plan(config), config, command="gauntlet run")
    (cell,) = engine.run.plan.cells
    measured = next(iter(engine.work(Request(cell)))).measured
    chosen = {key: {**fields, "form": name} for key, fields in measured.items() if "form" in fields}
    (failed,) = worker().work(Request(cell, measured=chosen))
    assert failed.kind == "FormError"
    assert f"'{name}'" in failed.message


def test_a_worker_makes_the_form_that_another_machine_chose(project):
    config = configured(precision="auto")
    engine = Engine(make_plan(config), config, command="gauntlet run")
    (cell,) = engine.run.plan.cells
    measured = next(iter(engine.work(Request(cell)))).measured
    chosen = {key: {**fields, "form": "bf16"} if "form" in fields else fields for key, fields in measured.items()}
    prepared = next(iter(worker().work(Request(cell, measured=chosen))))
    assert prepared.cell.precision == "bf16"


def test_flags_of_checks_are_measured_once_and_taken_from_the_store_afterwards(project, monkeypatch):
    config = configured()
    engine = Engine(make_plan(config), config, command="gauntlet run")
    (cell,) = engine.run.plan.cells
    first = engine.cell(cell)
    assert first.error is None
    monkeypatch.setattr("gauntlet.bench.prepare.checked_flags.run_checks", None)  # not callable: it fails
    again = Engine(make_plan(configured(fresh=True)), configured(fresh=True), command="gauntlet run")
    later = again.cell(cell)
    assert later.error is None
    assert later.blocks[0].flags == first.blocks[0].flags


@pytest.mark.parametrize("together", [30, 10])
def test_the_share_of_the_work_covers_all_blocks_in_turn(project, monkeypatch, together):
    (cell,) = make_plan(configured()).cells
    blocks = tuple(tuple(range(at, at + 10)) for at in (0, 10, 20))
    shares: list[float] = []
    watched = LocalWorker(Workbench(torch.device("cpu")), shares.append)
    keys = [block.key for block in next(watched.work(Request(cell, blocks=blocks))).blocks]
    image = watched.bench.data(cell.data).images[0]
    monkeypatch.setattr(attack_blocks, "MEMORY_LIMIT", together * image.numel() * image.element_size())
    monkeypatch.setattr(work_done, "EVERY", 0.0)
    *_, last = watched.work(Request(cell, blocks=blocks, run=tuple(keys)))
    assert isinstance(last, Progress)
    assert 0 < shares[0] < 0.5
    assert shares == sorted(shares)
    assert shares[-1] == 1
