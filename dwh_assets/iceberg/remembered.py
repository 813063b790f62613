"""What was read of small files that never change, kept for the next plan: an overtaken write plans again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Values by the location of the file that they were read from; those used longest ago are forgotten.

    `weight` says how much of `room` a value takes; one that takes more than a tenth is not kept. Safe to
    share between threads.
    """

    def __init__(self, room: int, weight: Callable[[Value], int]) -> None:
        self._room, self._weight = room, weight
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._used = 0
        self._lock = Lock()

    def get(self, location: str, read: Callable[[], Value]) -> Value:
        """Return what the file at `location` holds; `read` reads it where that is not known."""
        with self._lock:
            if location in self._values:
                self._values.move_to_end(location)
                return self._values[location]
        value = read()
        with self._lock:
            if location not in self._values and self._weight(value) <= self._room / 10:
                self._values[location] = value
                self._used += self._weight(value)
            while self._used > self._room:
                self._used -= self._weight(self._values.popitem(last=False)[1])
        return value
