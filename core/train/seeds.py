"""Seeds derived from the job's seed, so that every draw is a pure function of what it is for."""

from hashlib import blake2b

import torch


def derive(seed: int, *purpose: int | str) -> int:
    """Return a 63-bit seed for one purpose, such as `derive(seed, "samples", epoch)`."""
    digest = blake2b(repr((seed, *purpose)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *purpose: int | str) -> torch.Generator:
    """Return a generator of its own for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
