"""A warehouse whose client dies at its n-th step, or gets no answer to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from dwh_assets.errors import CommitUnknownError, UnavailableError
from dwh_assets.warehouses.dialect import Dialect
from dwh_assets.warehouses.replica import Replica, Sessions
from dwh_assets.warehouses.session import Purpose, Session

# dies: nothing is said after it any more, not even goodbye. unanswered: the step is done, and nobody is told.
How = Literal["dies", "unanswered"]
# What only looks is no step: to the warehouse it is the same whether a client dies before or after that.
_STEPS = {
    "execute",
    "ensure_schema",
    "create_table",
    "alter_table",
    "insert",
    "load",
    "supplant",
    "drop_table",
}


class Killed(BaseException):
    """The process has ended."""


@dataclass
class Life:
    """Ends at the given step, of as many as are taken."""

    last: int
    how: How
    taken: int = 0
    dead: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it came so far."""
        return self.taken >= self.last

    def step(self, act: Callable[[], Any], *, commits: bool = False) -> Any:
        self.taken += 1
        if self.how == "dies" and (self.dead or self.is_over):
            self.dead = True
            raise Killed
        done = act()
        if self.how == "unanswered" and self.taken == self.last:
            silent = CommitUnknownError if commits else UnavailableError
            raise silent("The warehouse fell silent.", remedy="Repeat the call.")
        return done


class MortalSession:
    """A session that hands each step on, while it lives."""

    def __init__(self, session: Session, life: Life) -> None:
        self._session = session
        self._life = life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._session, name)
        if self._life.dead:
            raise Killed
        if name not in _STEPS:
            return found
        return lambda *given, **named: self._life.step(lambda: found(*given, **named))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Where the client dies in it, the server undoes it when the connection is gone."""
        with ExitStack() as stack:
            self._life.step(lambda: stack.enter_context(self._session.transaction()))
            yield
            self._life.step(stack.close, commits=True)


@dataclass(frozen=True)
class MortalWarehouse:
    """A warehouse all of whose sessions share one life."""

    warehouse: Sessions
    life: Life
    wait_seconds: float = 0.5

    @property
    def dialect(self) -> Dialect:
        return self.warehouse.dialect

    @contextmanager
    def _opened(self, purpose: Purpose, read_only: bool) -> Iterator[Session]:
        with self.warehouse.open(purpose, read_only=read_only) as session:
            yield cast(Session, MortalSession(session, self.life))

    def open(self, purpose: Purpose, *, read_only: bool = False) -> AbstractContextManager[Session]:
        return self._opened(purpose, read_only)


def mortal(replica: Replica, life: Life) -> Replica:
    """The same replica, by a client that has so long to live."""
    return replace(replica, sessions=MortalWarehouse(replica.sessions, life))
