"""Answers that were made before: what polls ask again and again is rendered once for each version of a job."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

MIB = 1 << 20
KEPT_BYTES = 8 * MIB
"""A hundred pages of 200 rows; a process of the API grows by so much and no further."""
ENTRY_BYTES = 1024
"""What an entry weighs beside its body."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A body and its ETag.

    Attributes:
        is_empty: it lists nothing.
    """

    body: bytes
    etag: str
    is_empty: bool = False


class Answers:
    """The answers used last, up to a number of bytes. Belongs to one event loop.

    An answer is used only for the version that the database has now, which is read for every request: a process of the
    API knows nothing that another one could have made stale.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._bytes = 0
        self._answers: OrderedDict[Hashable, tuple[Hashable, Answer]] = OrderedDict()

    def get(self, key: Hashable, version: Hashable) -> Answer | None:
        """Return what was kept for that version."""
        found = self._answers.get(key)
        if found is None or found[0] != version:
            return None
        self._answers.move_to_end(key)
        return found[1]

    def put(self, key: Hashable, version: Hashable, answer: Answer) -> None:
        """Keep an answer in the place of the one before; those unused for the longest time make room."""
        before = self._answers.pop(key, None)
        if before is not None:
            self._bytes -= _weight(before[1])
        self._answers[key] = (version, answer)
        self._bytes += _weight(answer)
        while self._bytes > self._kept_bytes:
            _, (_, oldest) = self._answers.popitem(last=False)
            self._bytes -= _weight(oldest)


def _weight(answer: Answer) -> int:
    return len(answer.body) + ENTRY_BYTES
