"""Work beside the training: on a thread of its own, one piece at a time."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Beside:
    """Carries out what one thread hands over, and gives what went wrong back to that thread.

    Whatever a piece of work raises, also what is no `Exception`, is raised once where `look`, `wait` or `begin` is
    called next.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="beside")
        self._work: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a piece of work is under way."""
        return self._work is not None and not self._work.done()

    def begin(self, work: Callable[[], None]) -> None:
        """Start `work` once the piece before it has ended."""
        self.wait()
        self._work = self._thread.submit(work)

    def look(self) -> None:
        """Raise what went wrong, where that is known already; cheap enough for every update."""
        if self._work is not None and self._work.done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is under way any more; raise what went wrong."""
        work, self._work = self._work, None
        if work is not None:
            work.result()
