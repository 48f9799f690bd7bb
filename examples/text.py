# ruff: noqa: INP001 - a script, no package
"""Classify sentences: cut text into words, number them, upload the ids, train an embedding with a GRU.

    python examples/text.py    # on the service at EPOCHD_URL, or http://127.0.0.1:8000

The service reads ids, not text: which tokens a model sees belongs to the model. What numbers the words here must number
those of new sentences later, so keep the vocabulary beside the weights.
"""

import json
import os
import random
import sys
from collections.abc import Sequence
from typing import Any

import httpx2

from epochd.client import DEFAULT_URL, Client

GOOD, BAD = ("bright", "lovely", "gripping", "funny", "warm"), ("dull", "empty", "loud", "tired", "wooden")
OTHERS = ("the", "film", "was", "and", "its", "story", "a", "cast", "with", "music", "very", "ending")
PADDING = 0
"""Shorter sentences are filled up with it, so no word has this number."""


def sentences(count: int = 1500) -> list[tuple[str, str]]:
    """Return made-up reviews with their labels: most of the telling words decide."""
    draw = random.Random(1)  # noqa: S311 - made-up data
    made: list[tuple[str, str]] = []
    for _ in range(count):
        is_good = draw.random() < 0.5
        telling = draw.choices(GOOD if is_good else BAD, k=draw.randint(1, 3))
        words = [*telling, *draw.choices(OTHERS, k=draw.randint(2, 8))]
        draw.shuffle(words)
        made.append((" ".join(words), "good" if is_good else "bad"))
    return made


def vocabulary(texts: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Number the words from 1 on."""
    words = sorted({word for text, _ in texts for word in text.split()})
    return {word: number for number, word in enumerate(words, PADDING + 1)}


def lines(texts: Sequence[tuple[str, str]], ids: dict[str, int]) -> str:
    """Return one JSON object a line: the ids of a sentence's words, and its label."""
    bodies = ({"ids": [ids[word] for word in text.split()], "target": label} for text, label in texts)
    return "".join(json.dumps(body) + "\n" for body in bodies)


def spec(dataset: str, words: int) -> dict[str, Any]:
    """Return the job: `words` is the number of words in the vocabulary."""
    return {
        "name": "reviews",
        "data": {
            "train": {"type": "dataset", "id": dataset, "length": 12},
            "val": {"from": "train", "fraction": 0.2, "stratify": True},
        },
        "model": {
            "type": "Sequential",
            "layers": [
                {"type": "Embedding", "num_embeddings": words + 1, "embedding_dim": 16, "padding_idx": PADDING},
                {"type": "GRU", "hidden_size": 32, "batch_first": True},
                "ext.LastTimestep",
                {"type": "Linear", "out_features": 2},
            ],
        },
        "loss": "CrossEntropyLoss",
        "optimizer": {"type": "Adam", "lr": 0.01},
        "epochs": 8,
        "batch_size": 64,
        "metrics": ["accuracy"],
        "seed": 2,
    }


def upload(url: str, name: str, kind: str, content: str) -> str:
    """Send a file; return the data set's id."""
    key = os.environ.get("EPOCHD_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = httpx2.post(
        f"{url}/v1/datasets", headers=headers, files={"file": (name, content)}, data={"format": kind, "name": name}
    )
    answer.raise_for_status()
    return str(answer.json()["id"])


def main() -> int:
    """Upload, train, say how good it became."""
    url = os.environ.get("EPOCHD_URL", DEFAULT_URL)
    texts = sentences()
    ids = vocabulary(texts)
    dataset = upload(url, "reviews.jsonl", "jsonl", lines(texts, ids))
    with Client(url) as client:
        job = client.wait(client.submit(spec(dataset, len(ids)))["id"])
        *_, row = client.metrics(job["id"])
    sys.stdout.write(f"{job['status']}: {row['val']['accuracy']:.1%} of the sentences that it has not seen\n")
    return 0 if job["status"] == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main())
