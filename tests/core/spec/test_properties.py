"""For any JSON value: a spec, or issues whose pointers resolve and whose fixes can be applied."""

import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import Issue, Malformed, SpecInvalid
from core.spec import catalog, digest, parse, parse_object, to_json
from core.spec.pointer import resolve, split

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([entry.name for kind in catalog.kinds() for entry in catalog.entries(kind)])
ARGUMENTS = st.sampled_from(
    sorted({p.name for kind in catalog.kinds() for entry in catalog.entries(kind) for p in entry.parameters})
)
COMPONENT = st.recursive(
    NAMES | st.fixed_dictionaries({"type": NAMES}, optional={"lr": JSON, "layers": JSON}),
    lambda inner: st.builds(
        lambda name, arguments: {**arguments, "type": name},
        NAMES,
        st.dictionaries(ARGUMENTS, inner | st.lists(inner, max_size=3) | JSON, max_size=3),
    ),
    max_leaves=6,
)
SPEC = st.fixed_dictionaries(
    {"data": JSON | st.fixed_dictionaries({"train": COMPONENT}, optional={"val": COMPONENT | JSON})},
    optional={
        "model": COMPONENT | JSON,
        "loss": COMPONENT | st.lists(COMPONENT, max_size=2) | JSON,
        "optimizer": COMPONENT | JSON,
        "lr_scheduler": COMPONENT | JSON,
        "epochs": JSON,
        "batch_size": JSON,
        "metrics": st.lists(COMPONENT, max_size=2) | JSON,
        "early_stopping": JSON,
        "stop_when": JSON,
        "checkpoints": JSON,
        "execution": JSON,
    },
)


def place(body: Any, issue: Issue) -> None:
    """Resolve the pointer of an issue; that of a missing key by its parent."""
    if issue.code.startswith("missing"):
        parent = issue.pointer.rpartition("/")[0]
        above = resolve(body, parent)
        assert isinstance(above, str) or split(issue.pointer)[-1] not in above
    else:
        resolve(body, issue.pointer)


@given(SPEC | JSON)
@settings(max_examples=300, deadline=None)
def test_any_value_is_a_spec_or_says_where_it_is_not(body: Any) -> None:
    before = repr(body)
    found: tuple[Issue, ...] = ()
    try:
        spec = parse_object(body)
    except (Malformed, SpecInvalid) as error:
        found = error.issues
    else:
        assert digest(parse_object(to_json(spec))) == digest(spec)
    for issue in found:
        place(body, issue)
        json.dumps(issue.as_json(), allow_nan=False)
        jsonpatch.apply_patch(body, list(issue.fix or ()))
    assert repr(body) == before


@given(st.binary(max_size=60) | st.text(max_size=60) | st.text('[]{}":,0123eE+-.NaIfity\\ \n', max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_a_spec_malformed_or_invalid(body: bytes | str) -> None:
    with pytest.raises((Malformed, SpecInvalid)) as caught:
        parse(body)
    assert caught.value.detail


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_text_and_decoded_json_are_judged_alike(body: Any) -> None:
    verdicts: list[Any] = []
    for read, value in ((parse, json.dumps(body)), (parse_object, body)):
        try:
            verdicts.append(read(value))
        except Malformed:
            verdicts.append("malformed")  # which of several reasons is named first differs
        except SpecInvalid as error:
            verdicts.append(error.issues)
    assert verdicts[0] == verdicts[1]


MISTAKES = [
    {"num_epochs": 3},
    {"batch_size": "32"},
    {"optimizer": {"type": "adam", "learning_rate": 0.1}},
    {"model": {"type": "Sequential", "layers": [{"type": "dense", "units": "10"}, "relu"]}},
    {"loss": ["mse", {"type": "l1", "coefficient": 0.5}]},
    {"lr_scheduler": {"type": "cosine", "T_max": "epoch"}},
    {"precision": "bf16"},
]


@pytest.mark.parametrize("changes", MISTAKES, ids=lambda changes: next(iter(changes)))
def test_applying_the_fixes_mends_the_body(body: dict[str, Any], changes: dict[str, Any]) -> None:
    broken = {**body, **changes}
    for _ in range(3):  # a name first, then what that name's arguments need
        try:
            parse_object(broken)
        except SpecInvalid as error:
            fix = [operation for issue in error.issues for operation in issue.fix or ()]
            broken = jsonpatch.apply_patch(broken, fix)
    parse_object(broken)
