import math

import numpy as np
import pytest

from perllm_lab.hardware.link import REDRAW_S, LinkType, Uplink

LINK = LinkType(bandwidth_bps=8e6, rtt_s=0.005)  # 1 MB/s


class Steady:
    """A generator whose links always have the nominal capacity."""

    def uniform(self, low, high, size):
        return np.ones(size)


def drain(link):
    ended = []
    while link.next_s < math.inf:
        due_s = link.next_s
        if key := link.fire():
            ended.append((key, due_s))
    return ended


def test_transfers_share_the_capacity_equally():
    link = Uplink(LINK, Steady())
    link.add("long", 3_000_000, 0.0)
    link.add("short", 1_000_000, 1.0)
    # alone 1 s: 1 MB of long; both at 0.5 MB/s: short ends at 3 s; long has 1 MB left and is alone again
    assert drain(link) == [("short", pytest.approx(3.0)), ("long", pytest.approx(4.0))]


def test_a_broken_transfer_gives_its_share_back():
    link = Uplink(LINK, Steady())
    link.add("stays", 2_000_000, 0.0)
    link.add("breaks", 2_000_000, 0.0)
    link.discard("breaks", 1.0)
    assert drain(link) == [("stays", pytest.approx(2.5))]
    assert link.received_bytes == pytest.approx(2_500_000)


def test_an_empty_transfer_ends_at_once():
    link = Uplink(LINK, Steady())
    link.add("empty", 0, 7.0)
    assert drain(link) == [("empty", 7.0)]


def test_capacity_stays_within_a_fifth_of_nominal_and_is_redrawn_every_5_s():
    link = Uplink(LINK, np.random.default_rng(1))
    link.add("endless", 10**12, 0.0)
    rates = []
    for epoch in range(200):
        before = link.received_bytes
        link.fire()
        assert link.next_s == pytest.approx((epoch + 2) * REDRAW_S)
        rates.append((link.received_bytes - before) / REDRAW_S / 1e6)
    assert 0.8 <= min(rates) < 0.83
    assert 1.17 < max(rates) <= 1.2
    assert np.mean(rates) == pytest.approx(1.0, abs=0.03)


def test_capacity_depends_on_the_generator_not_on_the_traffic():
    busy, quiet = (Uplink(LINK, np.random.default_rng(7)) for _ in range(2))
    for second in range(0, 600, 3):
        busy.add(f"early-{second}", 200_000, float(second))
        drain(busy)
    for link in (busy, quiet):
        link.add("probe", 900_000, 700.0)
    assert drain(busy) == [(key, pytest.approx(end_s)) for key, end_s in drain(quiet)]


def test_a_lone_transfer_takes_the_round_trip_and_its_size():
    assert LINK.transfer_s(2_000_000) == pytest.approx(2.005)
