"""What is remembered is bounded, and the values used longest ago go first."""

from __future__ import annotations

from dwh_assets.iceberg.remembered import Remembered


def read_through(kept: Remembered[str], *locations: str) -> list[str]:
    """Ask for what is at some locations; return those that had to be read."""
    reads: list[str] = []

    def at(location: str) -> str:
        reads.append(location)
        return location

    for location in locations:
        assert kept.get(location, lambda location=location: at(location)) == location  # type: ignore[misc]
    return reads


def test_what_is_known_is_not_read_again() -> None:
    assert read_through(Remembered(100, len), "a", "b", "a", "a", "b") == ["a", "b"]


def test_what_was_used_longest_ago_makes_room() -> None:
    kept: Remembered[str] = Remembered(20, len)
    assert read_through(kept, *(f"{number:02}" for number in range(10)), "00", "xx") == [
        *(f"{number:02}" for number in range(10)),
        "xx",
    ]
    assert read_through(kept, "00", "01") == ["01"]


def test_what_is_large_is_not_kept() -> None:
    assert read_through(Remembered(100, len), "x" * 11, "x" * 11, "x" * 10, "x" * 10) == [
        "x" * 11,
        "x" * 11,
        "x" * 10,
    ]
