"""Running a replay: each sample's examples are put to the pipeline, until one of them is verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from gauntlet.attacks.solving.solver import Outcome
from gauntlet.bench.environment.device import peak_memory, synchronised_time
from gauntlet.bench.executors.example_index import Replay
from gauntlet.bench.executors.native import Finished, Settings, attacked_in
from gauntlet.bench.prepare.prepare import Prepared
from gauntlet.bench.verify.sample_record import Clean
from gauntlet.bench.verify.verifier import Verifier, fixed_batches
from gauntlet.leaderboard.results.record import Stats

_BATCH = 256


def run_replay(
    prepared: Prepared, verify: Verifier, clean: Clean, places: Sequence[range], settings: Settings
) -> Iterator[Finished]:
    """Put each sample's examples to the pipeline, until one of them is verified."""
    attack = prepared.attack
    assert isinstance(attack, Replay)
    for number, place in enumerate(places):
        with peak_memory(settings.device) as peak:
            began, judged = synchronised_time(), verify.seconds
            outcomes = [Outcome(sample) for sample in attacked_in(place, clean).tolist()]
            for turn in range(attack.most):
                _try(attack, turn, [one for one in outcomes if one.adversarial is None], verify)
            seconds = synchronised_time() - began - (verify.seconds - judged)
        yield Finished(number, outcomes, Stats(seconds, peak.mib))


def _try(attack: Replay, turn: int, standing: Sequence[Outcome], verify: Verifier) -> None:
    """The example of that number of each sample that has as many."""
    pairs = [
        (one, some[turn]) for one in standing if len(some := attack.examples.get(verify.ids[one.sample], ())) > turn
    ]
    pairs = [(one, image) for one, image in pairs if image.shape == verify.images.shape[1:]]
    if not pairs:
        return
    points = torch.stack([torch.tensor(image) for _, image in pairs]).to(verify.images)
    rows = torch.tensor([one.sample for one, _ in pairs], device=points.device)
    outputs = fixed_batches(verify.model, points, min(_BATCH, len(points)))
    wrong = verify.predictions(outputs) != verify.labels[rows]
    for one, _ in pairs:
        one.forwards += 1
        one.taken += 1
    chosen = wrong.nonzero().squeeze(1)
    if not len(chosen):
        return
    verdict = verify(points[chosen], rows[chosen], torch.full_like(chosen, turn))
    for place, won, split in zip(chosen.tolist(), verdict.success.tolist(), verdict.disagreement.tolist(), strict=True):
        outcome = pairs[place][0]
        outcome.disagreements += int(split)
        if won:
            outcome.adversarial = points[place].clone()
