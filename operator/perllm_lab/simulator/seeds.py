"""Seeds for everything random, each from what it belongs to."""

from hashlib import sha256

from numpy.random import SeedSequence


def derive_seed(*parts: object) -> SeedSequence:
    """Returns the seed of a purpose, such as ("modern", 0.9, 3, "links", "t4-0").

    It depends on the parts alone, so what is drawn for one purpose never shifts what is drawn for another.
    """
    digest = sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return SeedSequence(int.from_bytes(digest[:16], "big"))
