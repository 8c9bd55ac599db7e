"""Names that one thread at a time works on."""

from __future__ import annotations

import threading

import pytest

from gauntlet.bench.cluster.claims import Claims


def test_a_thread_waits_for_any_of_its_names_and_for_no_other():
    claims, order = Claims(), []
    begun = threading.Event()

    def claim():
        begun.set()
        with claims.of(["b", "c"]):
            order.append("second")

    second = threading.Thread(target=claim)
    with claims.of(["a", "b"]):
        second.start()
        assert begun.wait(20)
        with claims.of(["d"]):
            # It may still be on its way; a claim that lets it pass is seen with the next line.
            second.join(0.1)
            order.append("first")
    second.join(20)
    assert order == ["first", "second"]


def test_a_name_is_free_after_an_exception():
    claims = Claims()
    with pytest.raises(ValueError, match="full"), claims.of(["a"]):
        raise ValueError("full")
    with claims.of(["a"]):
        pass
