"""Times as Kubernetes writes them."""

from datetime import UTC, datetime


def parse_time_s(text: str | None) -> float | None:
    """Return Unix seconds of an RFC 3339 time; None for nothing."""
    return datetime.fromisoformat(text).timestamp() if text else None


def format_time(unix_s: float) -> str:
    """Return an RFC 3339 time with microseconds, as metav1.MicroTime."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
