"""What a full disk looks like from Python. Torch-free and without settings: trainers, workers and the API ask."""

import errno
import re


def is_full(error: BaseException) -> bool:
    """Say whether an error means that a disk, or somebody's share of it, is full."""
    if not isinstance(error, OSError):
        return False
    says_how_much = error.errno is None and re.fullmatch(r"\d+ requested and \d+ written", str(error)) is not None
    return says_how_much or error.errno in (errno.ENOSPC, errno.EDQUOT)  # NumPy's writer drops the number
