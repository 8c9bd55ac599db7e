"""How many workers a cluster has room for."""

from __future__ import annotations

import pytest

from gauntlet.bench.cluster.ray_cluster import workers_that_fit


@pytest.mark.parametrize(
    ("nodes", "kind", "each", "count"),
    [
        ([{"GPU": 8.0, "CPU": 64.0}], "GPU", 0.6, 8),
        ([{"GPU": 8.0}, {"GPU": 2.0}], "GPU", 0.5, 20),
        ([{"GPU": 1.0}], "GPU", 1 / 3, 3),
        ([{"GPU": 1.0}], "GPU", 0.1, 10),
        ([{"CPU": 4.0}, {"CPU": 2.0, "GPU": 1.0}], "GPU", 1.0, 1),
        ([{"CPU": 1.5}, {"CPU": 1.5}], "CPU", 1.0, 2),
        ([{"memory": 1.0}], "CPU", 1.0, 0),
    ],
)
def test_a_worker_has_a_part_of_one_device(nodes, kind, each, count):
    assert workers_that_fit(nodes, kind, each) == count
