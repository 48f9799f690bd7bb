from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.datasets import Preprocessor, Samples, split
from core.errors import DataInvalid
from core.messages import DatasetFile
from core.spec.job import Component

Load = Callable[..., Samples]
ReadSeries = Callable[..., Samples]
SERIES = "day,heat,rain,label\n" + "".join(f"{9 - day},{day},{day * 10},{day % 3}\n" for day in range(10))
"""Backwards in time: the row of day 0 comes last and has heat 9."""
TWO = "who,day,heat,label\n" + "".join(f"{'ab'[row % 2]},{row // 2},{row},{row % 2}\n" for row in range(12))
ORDER = {"order_by": "day"}


@pytest.fixture
def series(tmp_path: Path, read: Load) -> ReadSeries:
    """Cut a table in CSV into windows."""

    def call(text: str, window: Mapping[str, Any], columns: Mapping[str, Any], **more: Any) -> Samples:
        (tmp_path / "series.csv").write_text(text)
        file = DatasetFile(path=str(tmp_path / "series.csv"), format="csv", sha256=str(hash(text)))
        source = {"type": "dataset", "id": "ds_1", "window": dict(window)}
        return read(source, uploads={"ds_1@1": file}, columns=dict(columns), **more)

    return call


def refusal(series: ReadSeries, text: str, window: Mapping[str, Any], columns: Mapping[str, Any]) -> Any:
    with pytest.raises(DataInvalid) as caught:
        series(text, window, columns)
    return caught.value.issues[0]


def test_windows_follow_time_and_the_target_comes_after_them(series: ReadSeries) -> None:
    samples = series(SERIES, {"length": 3}, ORDER)
    assert samples.inputs.shape == (7, 3, 2)
    assert samples.inputs.dtype == np.float32
    assert samples.inputs[0].tolist() == [[9, 90], [8, 80], [7, 70]]
    assert samples.target is not None
    assert samples.target.tolist() == [6 % 3, 5 % 3, 4 % 3, 3 % 3, 2 % 3, 1 % 3, 0]
    assert (samples.classes, samples.kind, samples.feature_names) == (["0", "1", "2"], "array", ["heat", "rain"])


def test_stride_and_horizon_count_rows(series: ReadSeries) -> None:
    columns = {**ORDER, "target": "rain", "features": ["heat"]}
    samples = series(SERIES, {"length": 2, "stride": 3, "horizon": 4}, columns)
    assert samples.inputs[:, :, 0].tolist() == [[9, 8], [6, 5]]
    assert samples.target is not None
    assert samples.target.tolist() == [40, 10]  # days 1 + 4 and 4 + 4


def test_horizon_of_zero_takes_the_last_rows_own_label(series: ReadSeries) -> None:
    samples = series(SERIES, {"length": 4, "horizon": 0}, ORDER)
    assert samples.target is not None
    assert samples.target.tolist() == [6 % 3, 5 % 3, 4 % 3, 3 % 3, 2 % 3, 1 % 3, 0]


def test_windows_never_cross_groups(series: ReadSeries) -> None:
    samples = series(TWO, {"length": 2}, {**ORDER, "group_by": "who"})
    assert samples.inputs[:, :, 0].tolist() == [[0, 2], [2, 4], [4, 6], [6, 8], [1, 3], [3, 5], [5, 7], [7, 9]]
    assert samples.target is not None
    assert samples.target.tolist() == [0] * 4 + [1] * 4


def test_groups_that_are_too_short_have_no_windows(series: ReadSeries) -> None:
    text = TWO + "c,0,99,1\n"
    samples = series(text, {"length": 2}, {**ORDER, "group_by": "who"})
    assert len(samples) == 8


def test_the_targets_own_past_may_be_a_feature(series: ReadSeries) -> None:
    columns = {**ORDER, "target": "heat", "features": ["heat"]}
    samples = series(SERIES, {"length": 2}, columns)
    assert samples.inputs[0, :, 0].tolist() == [9, 8]
    assert samples.target is not None
    assert samples.target[0] == 7
    issue = refusal(series, SERIES, {"length": 2, "horizon": 0}, columns)
    assert issue.code == "target_is_feature"


def test_series_of_one_column_is_offered_its_own_past(series: ReadSeries) -> None:
    issue = refusal(series, "day,heat\n1,2\n2,3\n3,4\n", {"length": 1}, {**ORDER, "target": "heat"})
    assert issue.fix == ({"op": "add", "path": "/data/columns/features", "value": ["heat"]},)


def test_series_that_is_too_short_says_how_long_it_must_be(series: ReadSeries) -> None:
    issue = refusal(series, SERIES, {"length": 9, "horizon": 2}, ORDER)
    assert (issue.pointer, issue.code) == ("/data/train/window/length", "series_too_short")
    assert "has 10 rows; a window of 9 rows and a target 2 later needs 11" in issue.detail
    assert issue.fix == ({"op": "replace", "path": "/data/train/window/length", "value": 8},)


def test_windows_without_time_are_refused(series: ReadSeries) -> None:
    issue = refusal(series, SERIES, {"length": 2}, {})
    assert (issue.pointer, issue.code) == ("/data/columns/order_by", "no_order")


def test_unknown_key_of_a_window_is_named(series: ReadSeries) -> None:
    assert refusal(series, SERIES, {"length": 2, "step": 1}, ORDER).pointer == "/data/train/window/step"


def test_windows_of_images_are_refused(tmp_path: Path, read: Load) -> None:
    (tmp_path / "x").write_bytes(b"")
    uploads = {"ds_1@1": DatasetFile(path=str(tmp_path / "x"), format="npz", sha256="0")}
    for argument, value in (("window", {"length": 2}), ("length", 3)):
        with pytest.raises(DataInvalid) as caught:
            read({"type": "dataset", "id": "ds_1", argument: value}, uploads=uploads)
        assert (caught.value.issues[0].pointer, caught.value.issues[0].code) == (
            f"/data/train/{argument}",
            "other_format",
        )


def rows_of(samples: Samples, part: Any) -> set[int]:
    assert samples.spans is not None
    return {row for first, last in samples.spans[part] for row in range(first, last + 1)}


@pytest.mark.parametrize("columns", [ORDER, {**ORDER, "group_by": "who"}])
@pytest.mark.parametrize("window", [{"length": 3}, {"length": 5, "stride": 2, "horizon": 3}, {"length": 1}])
def test_no_row_of_a_later_part_is_seen_in_an_earlier_one(
    series: ReadSeries, window: dict[str, int], columns: dict[str, Any]
) -> None:
    text = "who,day,heat,label\n" + "".join(f"{row % 3},{row},{row},{row}.5\n" for row in range(120))
    columns = {**columns, "features": ["heat"]}
    samples = series(text, window, columns)
    parts = split(len(samples), samples.target, val=0.2, test=0.1, seed=0, order=samples.order, spans=samples.spans)
    assert parts.val is not None
    assert parts.test is not None
    assert samples.order is not None
    assert len(parts.val) == int(0.2 * len(samples) + 0.5)
    assert len(parts.test) == max(1, int(0.1 * len(samples) + 0.5))
    rows = [rows_of(samples, part) for part in (parts.train, parts.val, parts.test)]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]
    times = [samples.order[part] for part in (parts.train, parts.val, parts.test)]
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()


def test_only_windows_across_the_border_are_left_out(series: ReadSeries) -> None:
    text = "day,heat,label\n" + "".join(f"{row},{row},{row}.5\n" for row in range(104))
    samples = series(text, {"length": 3}, ORDER)  # rows 0…3 to 100…103: 101 windows
    parts = split(len(samples), None, val=0.2, seed=0, order=samples.order, spans=samples.spans)
    assert parts.val is not None
    assert parts.val.tolist() == list(range(81, 101))
    assert parts.train.tolist() == list(range(78))  # window 77 ends in row 80, window 81 begins in row 81


def test_split_that_leaves_no_window_to_train_on_is_refused(series: ReadSeries) -> None:
    samples = series(SERIES, {"length": 4}, ORDER)
    with pytest.raises(DataInvalid, match="none is left to train on"):
        split(len(samples), None, val=0.3, seed=0, order=samples.order, spans=samples.spans)


def test_some_windows_keep_their_rows(series: ReadSeries) -> None:
    samples = series(SERIES, {"length": 3}, ORDER, max_samples=4)
    assert samples.spans is not None
    assert samples.inputs.shape == (4, 3, 2)
    assert [9 - heat for heat in samples.inputs[:, 0, 0]] == samples.spans[:, 0].tolist()


def test_scaler_of_windows_is_fitted_on_their_rows(series: ReadSeries) -> None:
    samples = series(SERIES, {"length": 3}, {**ORDER, "target": "rain", "features": ["heat"]})
    steps = [
        Component(type="StandardScaler"),
        Component.model_validate({"type": "MinMaxScaler", "columns": ["target"]}),
    ]
    train = np.arange(4)
    preprocessor = Preprocessor.fit(steps, samples, train)
    flat = samples.inputs[train].astype(np.float64).reshape(-1)
    expected = (samples.inputs - flat.mean()) / flat.std()
    made = preprocessor.transform(samples.inputs)
    assert made.shape == samples.inputs.shape
    np.testing.assert_allclose(made, expected, rtol=1e-6)
    again = Preprocessor.from_json(preprocessor.to_json())
    np.testing.assert_array_equal(again.transform(samples.inputs), made)
    assert samples.target is not None
    assert preprocessor.transform_target(samples.target[train]).tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
