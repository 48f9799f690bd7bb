"""What the tests of the spec share: a small valid body, and what is wrong with a changed one."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import Issue, SpecInvalid
from core.spec import parse_object

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.json"))

Body = dict[str, Any]

_BODY: Body = {
    "data": {"train": "sklearn.digits", "val": {"from": "train", "fraction": 0.2}},
    "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 10}]},
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "SGD", "lr": 0.1},
    "epochs": 3,
    "batch_size": 32,
}


@pytest.fixture
def body() -> Body:
    return copy.deepcopy(_BODY)


@pytest.fixture
def issues_of(body: Body) -> Callable[[Body], tuple[Issue, ...]]:
    """Return the issues of the valid body with some fields replaced; none when it is still valid."""

    def issues(changes: Body) -> tuple[Issue, ...]:
        try:
            parse_object({**body, **copy.deepcopy(changes)})
        except SpecInvalid as error:
            return error.issues
        return ()

    return issues


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> Body:
    return json.loads(request.param.read_text())
