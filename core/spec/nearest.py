"""The right name for a wrong one: another library's word, another spelling, or a typing error."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

from core.spec.aliases import Pairs

LONGEST = 60
"""Names longer than this are compared by their first characters only."""


def nearest(wrong: str, right: Iterable[str], aliases: Pairs = ()) -> str | None:
    """Return the name among `right` that was probably meant, or none.

    First what `aliases` say, then the same name in another spelling (`relu`, `Conv2D`, `nn.Linear`, `resnet18` for
    `torchvision.resnet18`), then the most similar one.
    """
    return _nearest(wrong[:LONGEST], tuple(sorted(right)), aliases)


@lru_cache(maxsize=4096)
def _nearest(wrong: str, right: tuple[str, ...], aliases: Pairs) -> str | None:
    spellings = _spellings(right)
    for candidate in dict.fromkeys((_plain(wrong), _plain(_tail(wrong)))):
        for other, name in aliases:
            if _plain(other) == candidate and name in right:
                return name
        if candidate in spellings:
            return spellings[candidate]
    beginning = sorted(plain for plain in spellings if len(wrong) > 1 and plain.startswith(_plain(wrong)))
    if beginning:
        return spellings[beginning[0]]
    found = get_close_matches(_plain(_tail(wrong)), list(spellings), n=1, cutoff=0.7)
    return spellings[found[0]] if found else None


@lru_cache(maxsize=256)
def _spellings(right: tuple[str, ...]) -> dict[str, str]:
    """Return the names by their plain spelling, with and without what stands before a dot."""
    plain = {_plain(name): name for name in reversed(right)}
    tails = {_plain(_tail(name)): name for name in reversed(right)}
    return {**tails, **plain}


def _tail(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").replace(" ", "").lower()
