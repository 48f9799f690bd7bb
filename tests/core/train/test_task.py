"""What is learned, from data and loss."""

from typing import Any

import pytest
import torch

from core.datasets import Facts
from core.errors import SpecInvalid
from core.spec import parse_object
from core.train import task
from tests.core.train.specs import DIGITS


def facts(**known: Any) -> Facts:
    base: dict[str, Any] = {
        "kind": "table", "samples": 10, "sample_shape": (4,), "dtype": "float32", "target_shape": (),
        "target_dtype": "int64", "classes": None, "class_counts": None, "label_min": 0, "label_max": 2,
        "feature_names": [], "target_names": ["target"], "categories": {}, "missing": {}, "digest": "",
    }  # fmt: skip
    return Facts(**{**base, **known})


THREE = facts(classes=["a", "b", "c"])
TWO = facts(classes=["no", "yes"], label_max=1)
NUMBER = facts(target_dtype="float32", label_min=None, label_max=None)
SEVERAL = facts(target_dtype="float32", target_shape=(5,), label_min=None, label_max=None)
AMOUNT = facts(target_dtype="float32", label_min=None, label_max=None, target_min=-0.5, target_max=1.0)
CHANCE = facts(target_dtype="float32", label_min=None, label_max=None, target_min=0.0, target_max=1.0)
NUMBERS_OF_ONE = facts(target_dtype="float32", target_shape=(1,), label_min=None, label_max=None)


def resolved(loss: Any, known: Facts, **more: Any) -> task.Task:
    return task.resolve(parse_object({**DIGITS, "loss": loss, **more}), known)


@pytest.mark.parametrize(
    ("loss", "known", "wanted"),
    [
        ("CrossEntropyLoss", THREE, ("classification", 3, 3, (), torch.int64)),
        ("CrossEntropyLoss", TWO, ("classification", 2, 2, (), torch.int64)),
        ("CrossEntropyLoss", facts(), ("classification", 3, 3, (), torch.int64)),
        ("CrossEntropyLoss", SEVERAL, ("classification", 5, 5, (5,), torch.float32)),
        ("NLLLoss", THREE, ("classification", 3, 3, (), torch.int64)),
        ("BCEWithLogitsLoss", TWO, ("binary", 2, 1, (1,), torch.float32)),
        ("BCEWithLogitsLoss", NUMBER, ("binary", 2, 1, (1,), torch.float32)),
        ("BCEWithLogitsLoss", CHANCE, ("binary", 2, 1, (1,), torch.float32)),
        ("BCEWithLogitsLoss", SEVERAL, ("multilabel", 5, 5, (5,), torch.float32)),
        ("MultiLabelMarginLoss", SEVERAL, ("multilabel", 5, 5, (5,), torch.float32)),
        ("MSELoss", NUMBER, ("regression", None, 1, (1,), torch.float32)),
        ("L1Loss", NUMBERS_OF_ONE, ("regression", None, 1, (1,), torch.float32)),
        ("HuberLoss", SEVERAL, ("regression", None, 5, (5,), torch.float32)),
        (["MSELoss", {"type": "L1Loss", "coefficient": 0.5}], NUMBER, ("regression", None, 1, (1,), torch.float32)),
    ],
)
def test_loss_and_target_say_the_task(loss: Any, known: Facts, wanted: tuple[Any, ...]) -> None:
    job = resolved(loss, known)
    assert (job.name, job.classes, job.outputs, job.target_shape, job.target_dtype) == wanted


def test_labels_are_amounts_where_the_spec_says_regression() -> None:
    job = resolved("MSELoss", THREE, task="regression")
    assert (job.name, job.target_shape, job.target_dtype) == ("regression", (1,), torch.float32)


@pytest.mark.parametrize(
    ("loss", "known", "more", "pointer", "code"),
    [
        ("CrossEntropyLoss", facts(target_shape=None), {}, "/data/train", "no_target"),
        ("CrossEntropyLoss", NUMBER, {}, "/loss", "target_not_classes"),
        ("CrossEntropyLoss", facts(label_min=-1), {}, "/data/train", "label_range"),
        ("BCEWithLogitsLoss", THREE, {}, "/loss", "too_many_classes"),
        ("BCEWithLogitsLoss", AMOUNT, {}, "/loss", "target_not_yes_or_no"),
        ("BCELoss", AMOUNT, {}, "/loss", "target_not_yes_or_no"),
        ("MultiLabelMarginLoss", TWO, {}, "/loss", "target_not_labels"),
        ("MSELoss", THREE, {}, "/loss", "target_is_classes"),
        (["MSELoss", "CrossEntropyLoss"], THREE, {}, "/loss/0", "target_is_classes"),
        (["CrossEntropyLoss", "BCEWithLogitsLoss"], TWO, {}, "/loss/1", "losses_disagree"),
        ("CrossEntropyLoss", THREE, {"task": "multilabel"}, "/task", "task_contradicts"),
    ],
)
def test_what_contradicts_is_refused_at_its_place(
    loss: Any, known: Facts, more: dict[str, Any], pointer: str, code: str
) -> None:
    with pytest.raises(SpecInvalid) as refused:
        resolved(loss, known, **more)
    assert (refused.value.issues[0].pointer, refused.value.issues[0].code) == (pointer, code)
