"""Python's cyclic garbage collector: while it looks for garbage, the whole process waits.

A full collection looks at every object, which takes 0.2 s with 5,000 waiting tasks. By default there is one every ten
to twenty seconds, and each finds some hundred objects, since almost all are freed as soon as nothing refers to them.
"""

import gc

YOUNG, MIDDLE = 700, 10
"""Python's own settings."""

OLD = 300
"""Collections of middle-aged objects before a full one, instead of 10: minutes of work."""


def collect_rarely() -> None:
    """Make full collections rare, and have them pass over what exists now, such as all imported modules."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
