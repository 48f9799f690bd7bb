"""A spec as JSON again, and its digest."""

import json
from typing import Any

import pytest

from core.spec import Component, component, digest, parse, parse_object, to_json

Body = dict[str, Any]


def test_the_examples_come_back_as_they_were_posted(example: Body) -> None:
    assert _spelled_out(to_json(parse(json.dumps(example)))) == _spelled_out(example)


def test_canonical_json_is_a_spec_of_the_same_digest(example: Body) -> None:
    spec = parse_object(example)
    again = parse_object(to_json(spec))
    assert (to_json(again), digest(again)) == (to_json(spec), digest(spec))


def test_defaults_are_left_out(body: Body) -> None:
    assert to_json(parse_object(body)).keys() == body.keys()


def test_a_spec_with_every_default_written_out_parses_as_the_same(example: Body) -> None:
    """A resolved spec is one with defaults (null where there is none) and inferred sizes filled in."""
    spec = parse_object(example)
    full = spec.model_dump(mode="json", by_alias=True)
    resolved = parse_object(full)
    assert digest(resolved) == digest(spec)


def test_inferred_sizes_may_be_given(body: Body) -> None:
    body["model"]["layers"] = [{"type": "Linear", "in_features": 64, "out_features": 10, "bias": True}, "ReLU"]
    assert parse_object(body).model.arguments["layers"][0]["in_features"] == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"metadata": {"a": "b"}},
        {"execution": {"priority": 3}},
        {"loss": {"type": "CrossEntropyLoss"}},
        {"shuffle": True},
        {"checkpoints": {"keep_best": 1, "every": "auto"}},
        {"optimizer": {"lr": 0.1, "type": "SGD"}},
        {"regularization": None},
    ],
)
def test_what_does_not_change_the_result_does_not_change_the_digest(body: Body, changes: Body) -> None:
    assert digest(parse_object({**body, **changes})) == digest(parse_object(body))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"epochs": 4},
        {"shuffle": False},
        {"early_stopping": {}},
        {"optimizer": {"type": "SGD", "lr": 0.2}},
        {"model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 11}]}},
    ],
)
def test_what_changes_the_result_changes_the_digest(body: Body, changes: Body) -> None:
    assert digest(parse_object({**body, **changes})) != digest(parse_object(body))


def test_whole_numbers_have_one_spelling(body: Body) -> None:
    one, other = ({**body, "optimizer": {"type": "SGD", "lr": lr}} for lr in (1, 1.0))
    assert digest(parse_object(one)) == digest(parse_object(other))


def test_a_digest_is_the_same_in_every_process(body: Body) -> None:
    assert digest(parse_object(body)) == "44df5c232ba7e545f9d804671a2089a24339ad4f4db7eb81b767c18e682b1cd3"


def test_both_spellings_of_a_component_are_one() -> None:
    assert component("ReLU") == component({"type": "ReLU"}) == component(Component(type="ReLU"))
    assert component({"type": "Linear", "out_features": 3}).arguments == {"out_features": 3}


def _spelled_out(value: Any) -> Any:
    """Return the value with `{"type": name}` for every bare name where a component may stand."""
    if isinstance(value, dict):
        components = ("loss", "train", "val", "test", "model", "optimizer", "lr_scheduler")
        return {
            key: {"type": item} if key in components and isinstance(item, str) else _spelled_out(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [{"type": item} if isinstance(item, str) else _spelled_out(item) for item in value]
    return value
