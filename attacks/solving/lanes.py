"""Restarts side by side: where few samples are left, a batch of their next restarts costs hardly more than one of a single slot.

What counts is what restarts give one after another: the earliest that breaks the sample, with the costs of those before it. Later
ones were run for nothing, and their passes are counted apart. So only restarts run side by side that do not depend on the
outcome of earlier ones: not those of minimum-norm rules, of stages that give up by their pace, and of randomised models, whose
draws follow the number of passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gauntlet.attacks.ops.norms import per_image
from gauntlet.attacks.solving.known import Truths
from gauntlet.attacks.solving.patience import unseen
from gauntlet.attacks.solving.slots import Slots, join, put, select
from gauntlet.attacks.solving.stage_state import Batch, Lanes, StageQueue, pick, size

_BATCHES = ("running", "closing", "parked")


def further(lanes: Lanes, running: Slots, room: int, restarts: int) -> list[tuple[int, int]]:
    """At most `room` further restarts of running samples as pairs (sample, restart): the next of each, then the one after it."""
    latest = _latest(lanes, running)
    pairs: list[tuple[int, int]] = []
    while room > len(pairs):
        left = [sample for sample in latest if latest[sample] + 1 < restarts]
        if not left:
            break
        for sample in left[: room - len(pairs)]:
            latest[sample] += 1
            pairs.append((sample, latest[sample]))
    return pairs


def begun(lanes: Lanes, running: Slots, pairs: Sequence[tuple[int, int]]) -> None:
    """Note that the restarts run beside those of the running slots."""
    latest = _latest(lanes, running)
    for sample, restart in pairs:
        lanes.first.setdefault(sample, latest[sample])
        lanes.latest[sample] = max(restart, lanes.latest.get(sample, restart))


def settle(queue: StageQueue, slots: Slots, broken: Truths) -> tuple[Slots, Truths]:
    """Settle restarts that are broken or have ended: samples with restarts left rest, the others leave the stage.

    Returns the slots that leave, with the costs of all restarts that count, and which of them are broken. All counts of the
    slots are known to the host, which then waits for nothing.
    """
    restarts = queue.stage.rule.total_restarts
    if not queue.lanes.first:
        done = broken | (slots.known.restart + 1 >= restarts)
        if not done.all():
            _rest(queue, select(slots, np.flatnonzero(~done)))
        gone = np.flatnonzero(done)
        return select(slots, gone), broken[gone]
    leaving: list[tuple[Slots, bool]] = []
    # Later restarts first: an earlier one of the same sample that has ended too then finds them.
    for row in np.argsort(-slots.known.restart, kind="stable").tolist():
        one = select(slots, np.array([row]))
        if (left := _settled(queue, one, won=bool(broken[row]))) is not None:
            leaving.append(left)
    if not leaving:
        return select(slots, np.arange(0)), broken[:0]
    gone_slots = leaving[0][0]
    for one, _ in leaving[1:]:
        gone_slots = join(gone_slots, one)
    return gone_slots, np.array([won for _, won in leaving])


def _settled(queue: StageQueue, one: Slots, *, won: bool) -> tuple[Slots, bool] | None:
    """The slot with which its sample leaves the stage, and whether it is broken; None where the sample stays."""
    lanes, restarts = queue.lanes, queue.stage.rule.total_restarts
    sample, restart = int(one.known.sample[0]), int(one.known.restart[0])
    if restart > lanes.first.get(sample, restart):
        lanes.ended[sample, restart] = one, won
        if won:
            _discard(queue, sample, restart)
            # Nothing after it is to be begun again.
            lanes.latest[sample] = restarts - 1
        return None
    while not won and restart + 1 < restarts:
        restart += 1
        if restart > lanes.latest.get(sample, -1):
            _forget(lanes, sample)
            _rest(queue, one)
            return None
        lanes.first[sample] = restart
        if (sample, restart) not in lanes.ended:
            _add(queue, one, sample, restart)
            return None
        later, won = lanes.ended.pop((sample, restart))
        one = _following(one, later)
    _discard(queue, sample, restart)
    _forget(lanes, sample)
    return one, won


def _following(first: Slots, second: Slots) -> Slots:
    """The second restart with the costs and the nearest points of both."""
    sums = ("forwards", "backwards", "rejected", "disagreements", "vanished")
    kept = second.least <= first.least
    nearer = second.nearness < first.nearness
    end = second.end if second.end.dim() < 3 else torch.where(per_image(kept, second.end), second.end, first.end)
    before, known = first.known, second.known
    return second._replace(
        nearness=torch.minimum(first.nearness, second.nearness),
        nearest_class=torch.where(nearer, second.nearest_class, first.nearest_class),
        least=torch.minimum(first.least, second.least),
        end=end,
        known=known._replace(
            nearness=np.minimum(before.nearness, known.nearness),
            nearest_class=np.where(known.nearness < before.nearness, known.nearest_class, before.nearest_class),
            **{name: getattr(before, name) + getattr(known, name) for name in sums},
        ),
        **{name: getattr(first, name) + getattr(second, name) for name in sums},
    )


def _rest(queue: StageQueue, slots: Slots) -> None:
    """Let slots wait for their next restart."""
    if size(slots):
        rested = unseen(slots).restarted(slots.known.restart + 1)
        queue.resting = rested if queue.resting is None else join(queue.resting, rested)


def _add(queue: StageQueue, one: Slots, sample: int, restart: int) -> None:
    """Add the costs of a sample's earlier restarts to a later one that has not ended."""
    for name in _BATCHES:
        batch: Batch | None = getattr(queue, name)
        if batch is not None:
            known = batch.slots.known
            rows = np.flatnonzero((known.sample == sample) & (known.restart == restart))
            if len(rows):
                both = _following(one, select(batch.slots, rows))
                setattr(queue, name, Batch(put(batch.slots, rows, both), batch.state))


def _discard(queue: StageQueue, sample: int, restart: int) -> None:
    """Take a sample's restarts after `restart` out of the stage."""
    lanes, wasted = queue.lanes, 0.0
    if sample not in lanes.first:
        return
    for name in _BATCHES:
        batch: Batch | None = getattr(queue, name)
        if batch is not None:
            known = batch.slots.known
            out = (known.sample == sample) & (known.restart > restart)
            if out.any():
                wasted += float((known.forwards + known.backwards)[out].sum())
                setattr(queue, name, pick(batch, ~out))
    for key in [key for key in lanes.ended if key[0] == sample and key[1] > restart]:
        known = lanes.ended.pop(key)[0].known
        wasted += float((known.forwards + known.backwards)[0])
    lanes.latest[sample] = restart
    lanes.spent[sample] = lanes.spent.get(sample, 0.0) + wasted


def _forget(lanes: Lanes, sample: int) -> None:
    lanes.first.pop(sample, None)
    lanes.latest.pop(sample, None)


def _latest(lanes: Lanes, running: Slots) -> dict[int, int]:
    """The latest restart that was begun of each running sample."""
    latest: dict[int, int] = {}
    for sample, restart in zip(running.known.sample.tolist(), running.known.restart.tolist(), strict=True):
        latest[sample] = max(latest.get(sample, restart), restart, lanes.latest.get(sample, restart))
    return latest
