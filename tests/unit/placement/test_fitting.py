"""Which nodes satisfy a pod's rules while nodes come and go."""

import gc
import weakref
from dataclasses import replace

from perllm.placement.demand import NodeRules
from perllm.placement.fitting import Fit
from perllm.placement.fleet import Bandwidth, Fleet
from unit.placement.cluster_of import make_node

UPLINK = Bandwidth(100e6, 0.0)
IN_X = NodeRules(selector=(("zone", "x"),))


class Labels(dict[str, str]):
    """Labels of which it is seen whether they are kept."""


def test_labels_of_a_node_that_has_left_are_not_kept() -> None:
    fleet, labels = Fleet(), Labels(zone="x")
    fleet.put(make_node("a", labels=labels), 0, UPLINK)
    assert fleet.fits(IN_X, fleet.rows(["a"])).tolist() == [Fit.FITS]
    kept = weakref.ref(labels)
    fleet.remove("a")
    del labels
    gc.collect()
    assert kept() is None


def test_a_node_that_returns_is_compared_by_the_labels_that_it_has_then() -> None:
    fleet, node = Fleet(), make_node("a", labels={"zone": "x"})
    fleet.put(node, 0, UPLINK)
    fleet.fits(IN_X, fleet.rows(["a"]))
    fleet.remove("a")
    fleet.put(make_node("b", labels={"zone": "x"}), 1, UPLINK)
    assert fleet.fits(IN_X, fleet.rows(["b"])).tolist() == [Fit.FITS]
    fleet.put(replace(node, labels={"zone": "y"}), 0, UPLINK)
    assert fleet.fits(IN_X, fleet.rows(["a", "b"])).tolist() == [Fit.SELECTOR, Fit.FITS]
