"""The prompts that are in no batch yet, oldest first, and how much they are. Holds no lock: the runner does."""

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import Generic, Protocol, TypeVar


class HasLength(Protocol):
    @property
    def length(self) -> int:
        """Tokens, at least 1."""
        ...


EntryT = TypeVar("EntryT", bound=HasLength)


class Waiting(Generic[EntryT]):
    """A queue out of whose middle entries can leave. Every operation is O(1) per entry.

    An OrderedDict, because it iterates from the oldest and forgets any entry in O(1); a plain dict walks over the holes that taking
    from its front leaves.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[EntryT, None] = OrderedDict()
        self.tokens = 0
        """Sum of the entries' lengths."""

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entries: Iterable[EntryT]) -> None:
        for entry in entries:
            self._entries[entry] = None
            self.tokens += entry.length

    def oldest(self, count: int) -> list[EntryT]:
        """The oldest entries, at most `count`, in the order in which they came."""
        return list(islice(self._entries, count))

    def remove(self, entries: Iterable[EntryT]) -> None:
        """Take these out; those that are not there any more are passed over."""
        for entry in entries:
            if entry in self._entries:
                del self._entries[entry]
                self.tokens -= entry.length

    def clear(self) -> None:
        self._entries.clear()
        self.tokens = 0
