import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.datasets import Samples, preview, sequences
from core.datasets.formats import Limits
from core.datasets.uploads import receive
from core.errors import DataInvalid

Load = Callable[..., Samples]
WORDS: list[dict[str, Any]] = [
    {"ids": [3, 17, 5], "target": "pos"},
    {"ids": [9], "target": "neg"},
    {"ids": [1, 2, 3, 4, 5], "target": "pos"},
]


def jsonl(*lines: Any) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def refused(content: bytes, folder: Path, **more: Any) -> str:
    """Return `code: detail` of an upload that must be refused and leave nothing."""
    with pytest.raises(DataInvalid) as caught:
        receive(io.BytesIO(content), format="jsonl", folder=folder, **more)
    assert list(folder.iterdir()) == []
    (issue,) = caught.value.issues
    assert issue.pointer == "/file"
    return f"{issue.code}: {issue.detail}"


def test_ids_are_padded_with_zeros_to_the_longest(read_upload: Load) -> None:
    samples = read_upload(jsonl(*WORDS), "jsonl")
    assert samples.inputs.tolist() == [[3, 17, 5, 0, 0], [9, 0, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert (samples.kind, samples.inputs.dtype, samples.classes) == ("array", np.int64, ["neg", "pos"])
    assert samples.target is not None
    assert samples.target.tolist() == [1, 0, 1]
    assert (samples.facts().input_min, samples.facts().input_max) == (0, 17)


def test_length_cuts_and_pads(tmp_path: Path, read: Load) -> None:
    from core.messages import DatasetFile

    (tmp_path / "words").write_bytes(jsonl(*WORDS))
    uploads = {"ds_1@1": DatasetFile(path=str(tmp_path / "words"), format="jsonl", sha256="0")}
    for length, expected in ((2, [[3, 17], [9, 0], [1, 2]]), (6, [[3, 17, 5, 0, 0, 0]])):
        samples = read({"type": "dataset", "id": "ds_1", "length": length}, uploads=uploads)
        assert samples.inputs[: len(expected)].tolist() == expected


def test_vectors_become_float32_of_three_dimensions(read_upload: Load) -> None:
    body = jsonl({"vectors": [[0.5, 2], [1, 3]], "target": 1.5}, {"vectors": [[7, 8]], "target": 2})
    samples = read_upload(body, "jsonl")
    assert samples.inputs.tolist() == [[[0.5, 2], [1, 3]], [[7, 8], [0, 0]]]
    assert samples.inputs.dtype == np.float32
    assert samples.target is not None
    assert (samples.target.tolist(), samples.target.dtype, samples.classes) == ([1.5, 2], np.float32, None)


@pytest.mark.parametrize(
    ("targets", "dtype", "classes", "numbers"),
    [
        ([1, 0, 2], "int64", ["0", "1", "2"], [1, 0, 2]),
        ([5, 7, 5], "int64", None, [5, 7, 5]),
        ([1, 0.5, 2], "float32", None, [1, 0.5, 2]),
        ([True, False, True], "int64", ["false", "true"], [1, 0, 1]),
    ],
)
def test_targets_kind_follows_its_values(
    targets: list[Any], dtype: str, classes: list[str] | None, numbers: list[float], read_upload: Load
) -> None:
    samples = read_upload(jsonl(*({"ids": [1], "target": target} for target in targets)), "jsonl")
    assert samples.target is not None
    assert (samples.target.dtype.name, samples.classes, samples.target.tolist()) == (dtype, classes, numbers)


def test_profile_and_preview_say_lengths_ids_and_labels(tmp_path: Path) -> None:
    with receive(io.BytesIO(jsonl(*WORDS) + b"\n"), format="jsonl", folder=tmp_path) as upload:
        profile, shown = upload.profile, preview(upload.path, "jsonl", 2)
    assert (profile["lines"], profile["length"]) == (3, {"min": 1, "median": 3.0, "max": 5})
    assert (profile["holds"], profile["largest_id"]) == ("ids", 17)
    assert profile["target"]["classes"] == {"neg": 1, "pos": 2}
    assert shown["rows"] == [[3, [3, 17, 5], "pos"], [1, [9], "neg"]]
    json.dumps(profile, allow_nan=False)


GOOD = {"ids": [1, 2], "target": "a"}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"", "empty: the file is empty"),
        (b"\n \n", "empty: the file holds no lines"),
        (jsonl(GOOD) + b"{oops\n", "not_json: line 2: it is no JSON object"),
        (b"a plain sentence\n", "not_json: line 1: it is no JSON object"),
        (b"\xff\xfe\n", "not_json: line 1: it is not UTF-8"),
        (b"[" * 100_000, "not_json: line 1: "),
        (jsonl([1, 2]), "not_json: line 1: it is JSON, but no object"),
        (b'{"vectors": [[NaN]], "target": 1}\n', "not_json: line 1: it is no JSON object: NaN is no number"),
        (jsonl(GOOD, {"text": "good film", "target": "a"}), "raw_text: line 2: 'text' holds text"),
        (jsonl({"ids": "good film", "target": "a"}), "raw_text: line 1: `ids` holds text"),
        (jsonl({"ids": ["good"], "target": "a"}), 'raw_text: line 1: ids[0] is "good"'),
        (jsonl({"target": "a"}), "missing_field: line 1: it has neither ids nor vectors"),
        (jsonl({"ids": [1], "vectors": [[1]], "target": 1}), "mixed_kinds: line 1: it has ids and vectors"),
        (jsonl({**GOOD, "weight": 2}), "unknown_field: line 1: the field 'weight' is not known"),
        (jsonl(GOOD, GOOD, {"ids": [1]}), "missing_target: line 3: it has no target"),
        (jsonl({"ids": [1], "target": [1]}), "bad_target: line 1: the target is [1]"),
        (jsonl({"ids": [1], "target": 10**400}), "bad_target: line 1: the target 1000"),
        (jsonl(GOOD, {"ids": [1], "target": 2}), "mixed_targets: line 2: the target is a number, those before"),
        (jsonl({"ids": [], "target": 1}), "bad_ids: line 1: `ids` must be"),
        (jsonl({"ids": [1, -2], "target": 1}), "bad_ids: line 1: ids[1] is -2"),
        (jsonl({"ids": [1, 2.0], "target": 1}), "bad_ids: line 1: ids[1] is 2.0"),
        (jsonl({"ids": [True], "target": 1}), "bad_ids: line 1: ids[0] is true"),
        (jsonl({"ids": [2**63], "target": 1}), "bad_ids: line 1: an id is larger"),
        (jsonl({"vectors": [1, 2], "target": 1}), "bad_vectors: line 1: "),
        (jsonl({"vectors": [[1], ["a"]], "target": 1}), "bad_vectors: line 1: vectors[1] is no array"),
        (jsonl({"vectors": [[1, 2], [3]], "target": 1}), "ragged_vectors: line 1: vectors[1] has 1 numbers"),
        (jsonl({"vectors": [[1e300]], "target": 1}), "not_finite: line 1: "),
        (jsonl({"vectors": [[10**400]], "target": 1}), "not_finite: line 1: "),
        (jsonl(GOOD, {"vectors": [[1]], "target": "a"}), "mixed_kinds: line 2: it has vectors, line 1 has ids"),
        (
            jsonl({"vectors": [[1]], "target": 1}, {"vectors": [[1, 2]], "target": 1}),
            "ragged_vectors: line 2: its vectors have 2 numbers, those of line 1 have 1",
        ),
    ],
)
def test_mistake_is_named_by_its_line(lines: bytes, expected: str, tmp_path: Path) -> None:
    assert refused(lines, tmp_path).startswith(expected)


def test_raw_text_is_told_what_to_send(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid) as caught:
        receive(io.BytesIO(jsonl({"text": "good", "target": 1})), format="jsonl", folder=tmp_path)
    assert "send their ids or vectors" in str(caught.value.issues[0].hint)


def test_long_lines_and_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "LINE_BYTES", 100)
    assert refused(jsonl(GOOD, {"ids": [1] * 100, "target": 1}), tmp_path).startswith("line_too_long: line 2")
    limits = Limits(max_unpacked_bytes=100)
    assert refused(jsonl(*[GOOD] * 20), tmp_path, limits=limits).startswith("unpacks_too_large")


def test_one_long_sequence_cannot_fill_the_disk(read_upload: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "MAX_BYTES", 1000)
    with pytest.raises(DataInvalid) as caught:
        read_upload(jsonl({"ids": [1] * 100, "target": 1}, *[GOOD | {"target": 2}] * 9), "jsonl")
    (issue,) = caught.value.issues
    assert (issue.pointer, issue.code) == ("/data/train/length", "pads_too_large")
    assert issue.fix == ({"op": "add", "path": "/data/train/length", "value": 12},)
