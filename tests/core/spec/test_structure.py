"""The shape of a spec: strict types, unknown and missing keys, each at its pointer."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from core.errors import Issue, SpecInvalid
from core.spec import job, parse_object

Body = dict[str, Any]
IssuesOf = Callable[[Body], tuple[Issue, ...]]
SPLIT = {"from": "train", "fraction": 0.2}
SOURCE = "sklearn.digits"


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"epochs": "5"}, "/epochs", "wrong_type"),
        ({"epochs": True}, "/epochs", "wrong_type"),
        ({"epochs": 5.0}, "/epochs", "wrong_type"),
        ({"epochs": None}, "/epochs", "wrong_type"),
        ({"epochs": 0}, "/epochs", "out_of_range"),
        ({"batch_size": "64"}, "/batch_size", "wrong_type"),
        ({"batch_size": "all"}, "/batch_size", "not_allowed"),
        ({"batch_size": 0}, "/batch_size", "out_of_range"),
        ({"shuffle": 1}, "/shuffle", "wrong_type"),
        ({"seed": -1}, "/seed", "out_of_range"),
        ({"name": "x" * 201}, "/name", "out_of_range"),
        ({"metadata": {"a": 1}}, "/metadata/a", "wrong_type"),
        ({"metadata": dict.fromkeys("abcdefghijklmnopq", "")}, "/metadata", "out_of_range"),
        ({"precision": "32"}, "/precision", "not_allowed"),
        ({"compile": "yes"}, "/compile", "wrong_type"),
        ({"model": None}, "/model", "wrong_type"),
        ({"model": {"layers": []}}, "/model/type", "missing"),
        ({"loss": []}, "/loss", "out_of_range"),
        ({"loss": [3]}, "/loss/0", "wrong_type"),
        ({"loss": [{"type": "MSELoss", "coefficient": "1"}]}, "/loss/0/coefficient", "wrong_type"),
        ({"metrics": "accuracy"}, "/metrics", "wrong_type"),
        ({"metrics": [["accuracy"]]}, "/metrics/0", "wrong_type"),
        ({"ema": {"decay": 1}}, "/ema/decay", "out_of_range"),
        ({"ema": {"decay": "0.9"}}, "/ema/decay", "wrong_type"),
        ({"regularization": {"l1": True}}, "/regularization/l1", "wrong_type"),
        ({"checkpoints": {"every": 5}}, "/checkpoints/every", "not_allowed"),
        ({"checkpoints": {"every": {"epochs": 0}}}, "/checkpoints/every/epochs", "out_of_range"),
        ({"execution": {"queue": "GPU!"}}, "/execution/queue", "out_of_range"),
        ({"execution": {"priority": 11}}, "/execution/priority", "out_of_range"),
        ({"execution": {"max_runtime_seconds": 0}}, "/execution/max_runtime_seconds", "out_of_range"),
        ({"stop_when": [{"below": 1}]}, "/stop_when/0/monitor", "missing"),
        ({"stop_when": {"monitor": "val_loss", "below": "1"}}, "/stop_when/below", "wrong_type"),
        ({"early_stopping": {"patience": 0}}, "/early_stopping/patience", "out_of_range"),
        ({"early_stopping": {"mode": "minimum"}}, "/early_stopping/mode", "not_allowed"),
        ({"data": {"train": SOURCE, "val": 3}}, "/data/val", "wrong_type"),
        ({"data": {"train": SOURCE, "val": {"fraction": 0.1}}}, "/data/val/type", "missing"),
        ({"data": {"train": SOURCE, "val": {"from": "test", "fraction": 0.1}}}, "/data/val/from", "not_allowed"),
        ({"data": {"train": SOURCE, "val": {"from": "train"}}}, "/data/val/fraction", "missing"),
        ({"data": {"train": SOURCE, "test": {**SPLIT, "fraction": 1}}}, "/data/test/fraction", "out_of_range"),
        ({"data": {"train": SOURCE, "val": {**SPLIT, "stratify": "yes"}}}, "/data/val/stratify", "wrong_type"),
        ({"data": {"train": SOURCE, "val": {**SPLIT, "seed": 1}}}, "/data/val/seed", "unknown_key"),
        ({"data": {"train": SOURCE, "columns": {"target": [1]}}}, "/data/columns/target/0", "wrong_type"),
        ({"data": {"train": SOURCE, "columns": {"target": []}}}, "/data/columns/target", "out_of_range"),
        ({"data": {}}, "/data/train", "missing"),
        ({"data": {"train": SOURCE, "a/b~c": 1}}, "/data/a~1b~0c", "unknown_key"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_issue_at_its_pointer(issues_of: IssuesOf, changes: Body, pointer: str, code: str) -> None:
    assert [(issue.pointer, issue.code) for issue in issues_of(changes)] == [(pointer, code)]


@pytest.mark.parametrize("field", ["data", "model", "loss", "optimizer", "epochs", "batch_size"])
def test_each_of_the_required_fields_is_missed_by_name(body: Body, field: str) -> None:
    del body[field]
    with pytest.raises(SpecInvalid) as caught:
        parse_object(body)
    assert [(issue.pointer, issue.code) for issue in caught.value.issues] == [(f"/{field}", "missing")]
    assert caught.value.issues[0].hint  # what the field means


@pytest.mark.parametrize("body", [None, 1, "spec", [], [{}], True])
def test_a_spec_is_an_object(body: object) -> None:
    with pytest.raises(SpecInvalid) as caught:
        parse_object(body)
    assert [issue.pointer for issue in caught.value.issues] == [""]


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"epohcs": 1}, "Did you mean `epochs`?"),
        ({"learning_rate": 1}, None),
        ({"lr_schedular": "StepLR"}, "Did you mean `lr_scheduler`?"),
        ({"earlyStopping": {}}, "Did you mean `early_stopping`?"),
        ({"gradient_accumulation_steps": 2}, "Did you mean `accumulate_grad_batches`?"),
        ({"criterion": "MSELoss"}, "Did you mean `loss`?"),
    ],
)
def test_an_unknown_field_comes_with_the_nearest_right_one(
    issues_of: IssuesOf, changes: Body, hint: str | None
) -> None:
    (issue,) = issues_of(changes)
    assert (issue.code, issue.hint) == ("unknown_key", hint)


def test_what_the_fix_of_an_unknown_field_provides_is_not_missed_as_well(body: Body) -> None:
    body["num_epochs"] = body.pop("epochs")
    with pytest.raises(SpecInvalid) as caught:
        parse_object(body)
    (issue,) = caught.value.issues
    assert issue.fix == ({"op": "move", "from": "/num_epochs", "path": "/epochs"},)


def test_a_number_in_quotes_is_fixed_by_the_number(issues_of: IssuesOf) -> None:
    (issue,) = issues_of({"epochs": "5"})
    assert issue.detail == '"epochs" must be an integer, not the string "5".'
    assert issue.fix == ({"op": "replace", "path": "/epochs", "value": 5},)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"batch_size": "all"}, '"batch_size" must be an integer or "full", not the string "all".'),
        ({"batch_size": 1.5}, '"batch_size" must be an integer or "full", not the number 1.5.'),
        ({"compile": 1}, '"compile" must be true or false or "auto", not the number 1.'),
        ({"checkpoints": {"every": "epoch"}}, '"every" must be an object or "auto", not the string "epoch".'),
        ({"loss": [3]}, 'Item 0 of "loss" must be a name or an object with `type`, not the number 3.'),
        ({"ema": {"decay": 2}}, '"decay" must be less than 1.0, got the number 2.'),
        ({"epochs": None}, '"epochs" must be an integer, not null.'),
        ({"name": ["x"]}, '"name" must be a string, not an array.'),
    ],
)
def test_a_mistake_is_said_in_one_plain_sentence(issues_of: IssuesOf, changes: Body, detail: str) -> None:
    assert [issue.detail for issue in issues_of(changes)] == [detail]


@pytest.mark.parametrize("part", [job.JobSpec, *job.Part.__subclasses__()], ids=lambda part: part.__name__)
def test_every_field_says_what_it_means(part: type[job.Part]) -> None:
    assert [name for name, field in part.model_fields.items() if not field.description] == []


def test_the_json_schema_of_a_spec_names_no_inner_tag() -> None:
    assert "u0000" not in json.dumps(job.JobSpec.model_json_schema())


@pytest.mark.parametrize("text", ["1e999", "NaN", "nan", "Infinity", "[[[[", "9" * 20])
def test_a_fix_is_never_a_value_that_would_be_refused(issues_of: IssuesOf, text: str) -> None:
    (issue,) = issues_of({"ema": {"decay": text}})
    assert issue.code == "wrong_type"
    assert issue.fix is None or issue.fix[0]["value"] == int("9" * 20)


def test_every_mistake_is_reported_at_once(issues_of: IssuesOf) -> None:
    found = issues_of({"epochs": 0, "optimizer": "Adamm", "nane": "x", "model": {"type": "Sequential", "layers": []}})
    assert {issue.pointer for issue in found} == {"/epochs", "/optimizer", "/nane", "/model/layers"}


def test_a_flood_of_mistakes_is_cut(issues_of: IssuesOf) -> None:
    assert len(issues_of({f"field_{number}": 1 for number in range(5000)})) == 100
