"""Ids in the data against the tables that they are looked up in."""

from collections.abc import Iterator, Sequence

from core.errors import Issue
from core.spec.job import JobSpec
from core.spec.pointer import join
from core.train.build.inference import Row
from core.train.preflight.data import Described

TABLES = ("Embedding", "EmbeddingBag")


def findings(spec: JobSpec, sets: Described, layers: Sequence[Row]) -> Iterator[Issue]:
    """Say which Embedding has no row for the largest id, or gets an id below 0.

    Args:
        spec: where transforms may make other numbers of the ids; nothing is said then.
        sets: what is known of the data.
        layers: as preflight walked them.
    """
    known = [facts for facts in (sets.train, sets.val, sets.test) if facts is not None and facts.input_max is not None]
    tables = [row for row in layers if row.type in TABLES]
    if not known or not tables or (spec.data.transforms and spec.data.transforms.eval):
        return
    least = min(facts.input_min or 0 for facts in known)
    if least < 0:
        detail = f"Embedding looks up ids from 0 on; the smallest id of the data is {least}."
        yield Issue("/data/train", "negative_ids", detail, "Upload ids that begin at 0.")
    most = max(facts.input_max or 0 for facts in known)
    for row in tables:
        rows = row.arguments.get("num_embeddings", 0)
        if rows <= most:
            at = join(row.pointer, "num_embeddings")
            detail = f"{row.type} has rows for the ids 0 to {rows - 1}; the largest id of the data is {most}."
            fix = ({"op": "replace", "path": at, "value": most + 1},)
            yield Issue(at, "too_few_embeddings", detail, f"At least {most + 1}.", fix)
