"""Every field of a spec, at any depth: values of a wrong type and out of range, each answered at its own pointer.

What fields ask of each other stands in `test_rules.py`, what they ask of data and model in
`tests/core/train/test_preflight_mistakes.py`.
"""

import copy
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from core.errors import Issue
from core.spec.job import JobSpec
from core.spec.parts import parts
from core.spec.wording import subject

Body = dict[str, Any]
IssuesOf = Callable[[Body], tuple[Issue, ...]]

TEXT = (3, 1.5, True, [], {})
NUMBER = ("1", True, ["1"], {})
WHOLE = ("1", True, 1.5, 2.0, ["1"], {})
SWITCH = ("true", 1, 0.0, [], {})
OBJECT = (3, "x", True, [])
ITEMS = ("x", 3, True, {})
NAMED = (3, 1.5, True, [])
WORD = (3, True, [], {}, "", "word")
"""A wrong word is as wrong as a number where there are few right ones."""
NULL = (None,)
"""Wrong where a field has no "none"."""
MANY = 2**53 + 1
EPOCHS = 10_000_001

FIELDS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "name": (TEXT, ("x" * 201,)),
    "metadata": (OBJECT + NULL, (dict.fromkeys("abcdefghijklmnopq", ""),)),
    "metadata/a": (TEXT + NULL, ()),
    "task": (WORD, ()),
    "data": (OBJECT + NULL, ()),
    "data/train": (NAMED + NULL, ("",)),
    "data/val": (NAMED, ("",)),
    "data/val/from": ((*WORD, *NULL, "test"), ()),
    "data/val/fraction": (NUMBER + NULL, (0, 1, -0.1, 1.5)),
    "data/val/stratify": (SWITCH + NULL, ()),
    "data/test": (NAMED, ("",)),
    "data/test/from": ((*WORD, *NULL, "val"), ()),
    "data/test/fraction": (NUMBER + NULL, (0, 1, -0.1, 1.5)),
    "data/test/stratify": (SWITCH + NULL, ()),
    "data/columns": (OBJECT, ()),
    "data/columns/features": (ITEMS, ([],)),
    "data/columns/features/0": (TEXT + NULL, ()),
    "data/columns/target": ((3, True, {}), ([],)),
    "data/columns/target/0": (TEXT + NULL, ()),
    "data/columns/categorical": (ITEMS + NULL, ()),
    "data/columns/categorical/0": (TEXT + NULL, ()),
    "data/columns/group_by": (TEXT, ()),
    "data/columns/order_by": (TEXT, ()),
    "data/preprocess": (ITEMS + NULL, ()),
    "data/preprocess/0": (NAMED + NULL, ("",)),
    "data/transforms": (OBJECT, ()),
    "data/transforms/train": (ITEMS + NULL, ()),
    "data/transforms/train/0": (NAMED + NULL, ("",)),
    "data/transforms/eval": (ITEMS + NULL, ()),
    "data/transforms/eval/0": (NAMED + NULL, ("",)),
    "data/max_samples": (WHOLE, (0, -1, MANY)),
    "model": (NAMED + NULL, ("",)),
    "loss": ((3, 1.5, True, None), ("", [], ["MSELoss"] * 101)),
    "loss/0": (NAMED + NULL, ("",)),
    "loss/0/type": (TEXT + NULL, ("", "x" * 201)),
    "loss/0/coefficient": (NUMBER + NULL, ()),
    "regularization": (OBJECT, ()),
    "regularization/l1": (NUMBER + NULL, (-1e-9,)),
    "regularization/l2": (NUMBER + NULL, (-1,)),
    "regularization/exclude": (ITEMS + NULL, ()),
    "regularization/exclude/0": (TEXT + NULL, ()),
    "optimizer": (NAMED + NULL, ("",)),
    "lr_scheduler": (NAMED, ("",)),
    "epochs": (WHOLE + NULL, (0, -1, EPOCHS)),
    "max_steps": (WHOLE, (0, MANY)),
    "batch_size": (WHOLE + NULL + ("all",), (0, -1, MANY)),
    "shuffle": (SWITCH + NULL, ()),
    "drop_last": (SWITCH + NULL, ()),
    "precision": ((*WORD, *NULL, 32, "32"), ()),
    "gradient_clipping": (OBJECT, ()),
    "gradient_clipping/max_norm": (NUMBER, (0, -1)),
    "gradient_clipping/norm_type": (NUMBER + NULL, (0, -2)),
    "gradient_clipping/clip_value": (NUMBER, (0, -1)),
    "accumulate_grad_batches": (WHOLE + NULL, (0, MANY)),
    "ema": (OBJECT, ()),
    "ema/decay": (NUMBER + NULL, (0, 1, -0.5)),
    "swa": (OBJECT, ()),
    "swa/start_epoch": (WHOLE + NULL, (0, EPOCHS)),
    "swa/lr": (NUMBER, (0, -0.1)),
    "metrics": (ITEMS, (["accuracy"] * 101,)),
    "metrics/0": (NAMED + NULL, ("",)),
    "early_stopping": (OBJECT, ()),
    "early_stopping/monitor": (TEXT + NULL, ("", "x" * 201)),
    "early_stopping/mode": (WORD, ()),
    "early_stopping/patience": (WHOLE + NULL, (0, EPOCHS)),
    "early_stopping/min_delta": (NUMBER + NULL, (-1e-9,)),
    "early_stopping/min_delta_mode": (WORD + NULL, ()),
    "early_stopping/start_from_epoch": (WHOLE + NULL, (-1, EPOCHS)),
    "early_stopping/baseline": (NUMBER, ()),
    "early_stopping/stopping_threshold": (NUMBER, ()),
    "early_stopping/divergence_threshold": (NUMBER, ()),
    "early_stopping/check_finite": (SWITCH + NULL, ()),
    "early_stopping/restore_best": (SWITCH + NULL, ()),
    "early_stopping/cooldown": (WHOLE + NULL, (-1, EPOCHS)),
    "stop_when": ((3, "x", True), ([{"monitor": "val_loss", "below": 1}] * 101,)),
    "stop_when/0": ((3, "x", True, []), ()),
    "stop_when/monitor": (TEXT + NULL, ("", "x" * 201)),
    "stop_when/below": (NUMBER, ()),
    "stop_when/0/above": (NUMBER, ()),
    "stop_when/converged": (OBJECT, ()),
    "stop_when/converged/window": (WHOLE + NULL, (1, EPOCHS)),
    "stop_when/0/converged/tolerance": (NUMBER + NULL, (0, -1)),
    "validate_every": (OBJECT + NULL, ()),
    "validate_every/epochs": (WHOLE, (0, EPOCHS)),
    "validate_every/steps": (WHOLE, (0, MANY)),
    "evaluate_at_start": (SWITCH + NULL, ()),
    "checkpoints": (OBJECT + NULL, ()),
    "checkpoints/keep_best": (WHOLE + NULL, (0, 1001)),
    "checkpoints/keep_last": (WHOLE + NULL, (0, 1001)),
    "checkpoints/every": ((3, True, [], None, "epoch"), ()),
    "checkpoints/every/epochs": (WHOLE + NULL, (0, EPOCHS)),
    "seed": (WHOLE, (-1,)),
    "deterministic": (SWITCH + NULL, ()),
    "compile": ((*SWITCH, *NULL, "yes"), ()),
    "profile": (SWITCH + NULL, ()),
    "execution": (OBJECT + NULL, ()),
    "execution/device": ((*WORD, *NULL, "tpu"), ()),
    "execution/gpus": (WHOLE + NULL, (0, 1025)),
    "execution/queue": (TEXT, ("", "GPU", "a b", "x" * 65)),
    "execution/priority": (WHOLE + NULL, (-11, 11)),
    "execution/max_runtime_seconds": (NUMBER, (0, -1)),
    "execution/max_attempts": (WHOLE, (0, 1001)),
    "execution/threads": (WHOLE, (0, 513)),
}
"""By path: values of a wrong type (or no right word), and values out of range."""

SPLIT = {"from": "train", "fraction": 0.2}
AROUND: dict[str, Any] = {
    "data": {"train": "sklearn.digits"},
    "data/val": SPLIT,
    "data/test": SPLIT,
    "loss/0": {"type": "MSELoss"},
    "swa": {"start_epoch": 1},
    "stop_when": {"monitor": "val_loss"},
    "stop_when/0": {"monitor": "val_loss"},
    "checkpoints/every": {"epochs": 1},
}
"""What an object must have besides the field that is wrong."""


def placed(path: str, value: Any) -> Body:
    """Return the fields of a spec in which `value` stands at `path`, with what it needs around it."""
    *above, last = path.split("/")
    for depth in range(len(above), 0, -1):
        around = copy.deepcopy(AROUND.get("/".join(above[:depth]), {}))
        value = [value] if last.isdigit() else {**around, last: value}
        last = above[depth - 1]
    return {last: value}


@pytest.mark.parametrize("path", FIELDS)
def test_a_value_of_a_wrong_type_is_one_issue_at_its_pointer(issues_of: IssuesOf, path: str) -> None:
    for value in FIELDS[path][0]:
        found = issues_of(placed(path, value))
        assert [(issue.pointer, issue.code in ("wrong_type", "not_allowed")) for issue in found] == [
            (f"/{path}", True)
        ], (value, found)
        assert found[0].detail.startswith(f"{subject(f'/{path}')} must be "), (value, found)


@pytest.mark.parametrize("path", [path for path, (_, out) in FIELDS.items() if out])
def test_a_value_out_of_range_is_one_issue_at_its_pointer(issues_of: IssuesOf, path: str) -> None:
    for value in FIELDS[path][1]:
        found = issues_of(placed(path, value))
        assert [(issue.pointer, issue.code) for issue in found] == [(f"/{path}", "out_of_range")], (value, found)


def fields() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of every field of the models, by path."""
    schema = JobSpec.model_json_schema()
    found = {}
    for place, model in parts().items():
        own = schema if model is JobSpec else schema["$defs"][model.__name__]
        found |= {"/".join((*place, name)): body for name, body in own["properties"].items()}
    return found


def test_every_field_has_its_wrong_types() -> None:
    covered = {without_indices(path) for path, (wrong, _) in FIELDS.items() if wrong}
    assert set(fields()) - covered == set()


def test_every_bound_of_a_field_is_overstepped() -> None:
    """A seed too large is no number that can be read: see `test_decode.py`."""
    bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
    overstepped = Counter({without_indices(path): 0 for path in FIELDS})
    for path, (_, out) in FIELDS.items():
        overstepped[without_indices(path)] += len(out)
    for path, schema in fields().items():
        declared = sum(json.dumps(schema).count(f'"{bound}"') for bound in bounds) - (path == "seed")
        assert overstepped[path] >= declared, path


def test_the_table_names_no_field_that_is_gone() -> None:
    known = set(fields()) | {"metadata/a"}
    assert {without_indices(path) for path in FIELDS} <= known


def without_indices(path: str) -> str:
    return "/".join(part for part in path.split("/") if not part.isdigit())
