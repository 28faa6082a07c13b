"""Timestamps in the notation of Kubernetes."""

from datetime import UTC, datetime

END_OF_TIME_S = 253_370_764_800.0
"""The year 9999; later times cannot be represented in every time zone."""


def parse_time_s(text: object) -> float | None:
    """Return Unix seconds of an RFC 3339 time; None for anything else, and for times before 1970 such as zero times."""
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
        unix_s = time.timestamp() if time.tzinfo else 0.0
    except (ValueError, OverflowError):
        return None
    return unix_s if 0.0 < unix_s < END_OF_TIME_S else None


def to_time(unix_s: float) -> datetime:
    """Return Unix seconds as a timestamp for a status."""
    return datetime.fromtimestamp(unix_s, UTC)


def format_time(unix_s: float) -> str:
    """Return an RFC 3339 time with microseconds, as in metav1.MicroTime."""
    return to_time(unix_s).isoformat(timespec="microseconds").replace("+00:00", "Z")
