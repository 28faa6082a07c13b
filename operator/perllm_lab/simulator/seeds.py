"""Seeds of everything random, each derived from its purpose."""

from hashlib import sha256

from numpy.random import SeedSequence


def derive_seed(*parts: object) -> SeedSequence:
    """Return the seed of a purpose, such as ("modern", 0.9, 3, "links", "t4-0").

    It depends only on the parts, so draws for one purpose never shift the draws for another.
    """
    digest = sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return SeedSequence(int.from_bytes(digest[:16], "big"))
