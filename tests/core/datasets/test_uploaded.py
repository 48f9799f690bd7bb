import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.datasets import Samples, align
from core.errors import DataInvalid

Load = Callable[..., Samples]
REAL = Path(os.environ.get("EPOCHD_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
PEOPLE = b"""age,city,member,label
31,Rome,true,yes
,Oslo,false,no
25,Rome,true,no
"""


def refused(read_upload: Load, content: bytes, **more: Any) -> tuple[str, str]:
    with pytest.raises(DataInvalid) as caught:
        read_upload(content, "csv", **more)
    issue = caught.value.issues[0]
    return issue.pointer, issue.code


def test_text_becomes_positions_of_sorted_categories(read_upload: Load) -> None:
    samples = read_upload(PEOPLE, "csv", allow_missing=True)
    assert samples.feature_names == ["age", "city", "member"]
    assert samples.categories == {"city": ["Oslo", "Rome"]}
    np.testing.assert_array_equal(samples.inputs, np.array([[31, 1, 1], [np.nan, 0, 0], [25, 1, 1]], np.float32))
    assert samples.inputs.dtype == np.float32


def test_text_target_becomes_labels_of_sorted_classes(read_upload: Load) -> None:
    samples = read_upload(PEOPLE, "csv", allow_missing=True)
    assert samples.target is not None
    assert (samples.classes, samples.target.tolist(), samples.target.dtype) == (["no", "yes"], [1, 0, 0], np.int64)


def test_missing_values_are_refused_with_their_count(read_upload: Load) -> None:
    with pytest.raises(DataInvalid, match="1 values are missing: 1 in 'age'"):
        read_upload(PEOPLE, "csv")


def test_missing_values_may_stay_for_an_imputer(read_upload: Load) -> None:
    assert read_upload(PEOPLE, "csv", allow_missing=True).facts().missing == {"age": 1}


@pytest.mark.parametrize(
    ("values", "dtype", "classes"),
    [
        ("0 1 2 1", "int64", ["0", "1", "2"]),
        ("1 7 9 1", "int64", None),
        ("1.5 2 3 1", "float32", None),
        ("true False true true", "int64", ["false", "true"]),
    ],
)
def test_targets_kind_follows_its_values(values: str, dtype: str, classes: list[str] | None, read_upload: Load) -> None:
    rows = "\n".join(f"{row},{value}" for row, value in enumerate(values.split()))
    samples = read_upload(f"a,label\n{rows}\n".encode(), "csv")
    assert samples.target is not None
    assert (samples.target.dtype.name, samples.classes) == (dtype, classes)


def test_several_targets_make_columns(read_upload: Load) -> None:
    samples = read_upload(b"a,u,v\n1,2,3.5\n4,5,6\n", "csv", columns={"target": ["v", "u"]})
    assert samples.target is not None
    assert samples.target.tolist() == [[3.5, 2], [6, 5]]
    assert samples.feature_names == ["a"]


def test_features_come_in_the_order_of_the_spec(read_upload: Load) -> None:
    samples = read_upload(b"a,b,c,label\n1,2,3,0\n4,5,6,1\n", "csv", columns={"features": ["c", "a"]})
    assert samples.inputs.tolist() == [[3, 1], [6, 4]]


def test_numbers_declared_categorical_become_positions(read_upload: Load) -> None:
    samples = read_upload(b"zip,label\n900,0\n100,1\n900,1\n", "csv", columns={"categorical": ["zip"]})
    assert samples.categories == {"zip": ["100", "900"]}
    assert samples.inputs[:, 0].tolist() == [1, 0, 1]


def test_group_and_order_columns_are_no_features(read_upload: Load) -> None:
    body = b"a,who,when,label\n1,x,3,0\n2,y,1,1\n3,x,2,1\n"
    samples = read_upload(body, "csv", columns={"group_by": "who", "order_by": "when"})
    assert samples.feature_names == ["a"]
    assert samples.groups is not None
    assert samples.order is not None
    assert samples.groups.tolist() == [0, 1, 0]
    assert samples.order.tolist() == [3, 1, 2]


def test_group_that_is_missing_is_refused(read_upload: Load) -> None:
    body = b"a,who,label\n1,x,0\n2,,1\n"
    assert refused(read_upload, body, columns={"group_by": "who"}) == ("/data/columns/group_by", "missing_values")


def test_integers_that_float32_cannot_hold_stay_float64(read_upload: Load) -> None:
    samples = read_upload(b"stamp,label\n1700000001,0\n1700000002,1\n", "csv")
    assert samples.inputs[:, 0].tolist() == [1700000001, 1700000002]


def test_table_without_a_known_target_offers_a_fix(read_upload: Load) -> None:
    with pytest.raises(DataInvalid) as caught:
        read_upload(b"a,b\n1,2\n", "csv")
    issue = caught.value.issues[0]
    assert issue.pointer == "/data/columns/target"
    assert issue.fix == ({"op": "add", "path": "/data/columns", "value": {"target": "b"}},)


@pytest.mark.parametrize(
    ("columns", "pointer"),
    [
        ({"target": "lable"}, "/data/columns/target"),
        ({"target": ["label", "q"]}, "/data/columns/target/1"),
        ({"features": ["a", "q"]}, "/data/columns/features/1"),
        ({"categorical": ["q"]}, "/data/columns/categorical/0"),
        ({"group_by": "q"}, "/data/columns/group_by"),
        ({"features": ["label"]}, "/data/columns/features"),
    ],
)
def test_wrong_columns_are_pointed_to(columns: dict[str, Any], pointer: str, read_upload: Load) -> None:
    assert refused(read_upload, b"a,label\n1,0\n2,1\n", columns=columns)[0] == pointer


def test_missing_target_is_refused(read_upload: Load) -> None:
    assert refused(read_upload, b"a,label\n1,0\n2,\n") == ("/data/columns/target", "missing_target")


def test_text_of_too_many_values_is_no_category(read_upload: Load) -> None:
    rows = "\n".join(f"name{row},{row % 2}" for row in range(1500))
    assert refused(read_upload, f"a,label\n{rows}\n".encode())[1] == "too_many_categories"


def test_newest_version_is_taken_without_one(read: Load, tmp_path: Path) -> None:
    from core.messages import DatasetFile

    uploads: dict[str, DatasetFile] = {}
    for version in (2, 10):
        path = tmp_path / f"{version}.csv"
        path.write_text(f"a,label\n{version},0\n{version},1\n")
        uploads[f"ds_1@{version}"] = DatasetFile(path=str(path), format="csv", sha256=str(version))
    assert read({"type": "dataset", "id": "ds_1"}, uploads=uploads).inputs[0, 0] == 10
    assert read({"type": "dataset", "id": "ds_1", "version": 2}, uploads=uploads).inputs[0, 0] == 2


def test_zip_of_images_is_read_as_torchvision_reads_the_folder(
    read_upload: Load, zipped: Callable[[Mapping[str, bytes]], bytes], png: Callable[..., bytes], tmp_path: Path
) -> None:
    vision = pytest.importorskip("torchvision.datasets")
    files = {"b/1.png": png((9, 8, 7), mode="RGB"), "a/2.png": png(3), "a/1.png": png((1, 2, 3), mode="RGB")}
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    oracle = vision.ImageFolder(tmp_path / "folder")
    samples = read_upload(zipped(files), "images")
    assert samples.target is not None
    assert (samples.classes, samples.target.tolist()) == (oracle.classes, oracle.targets)
    for index, (image, _) in enumerate(oracle):
        assert np.array_equal(samples.inputs[index].transpose(1, 2, 0), np.asarray(image))


@pytest.mark.parametrize(
    ("x", "kind", "shape"),
    [
        (np.zeros((2, 5, 6), np.uint8), "image", (2, 1, 5, 6)),
        (np.zeros((2, 5, 6, 3), np.uint8), "image", (2, 3, 5, 6)),
        (np.zeros((2, 3, 5, 6), np.uint8), "image", (2, 3, 5, 6)),
        (np.zeros((2, 7)), "table", (2, 7)),
        (np.asfortranarray(np.arange(14.0).reshape(2, 7)), "table", (2, 7)),
        (np.zeros((2, 7, 3)), "array", (2, 7, 3)),
    ],
)
def test_npz_inputs_are_told_apart_by_their_shape(
    x: np.ndarray[Any, Any], kind: str, shape: tuple[int, ...], read_upload: Load
) -> None:
    packed = io.BytesIO()
    np.savez(packed, x=x, y=np.array(["u", "v"]))
    samples = read_upload(packed.getvalue(), "npz")
    assert (samples.kind, samples.inputs.shape, samples.classes) == (kind, shape, ["u", "v"])
    assert np.array_equal(samples.inputs.reshape(-1), x.reshape(-1).astype(samples.inputs.dtype))


class TestAlign:
    def test_classes_and_categories_are_numbered_as_in_train(self, read_upload: Load) -> None:
        train = read_upload(b"c,label\nx,a\ny,b\nz,c\n", "csv")
        val = align(read_upload(b"c,label\nz,c\ny,b\n", "csv"), train, pointer="/data/val")
        assert val.target is not None
        assert val.target.tolist() == [2, 1]
        assert val.inputs[:, 0].tolist() == [2, 1]
        assert val.classes == ["a", "b", "c"]

    def test_class_that_train_lacks_is_named(self, read_upload: Load) -> None:
        train = read_upload(b"c,label\n1,a\n2,b\n", "csv")
        with pytest.raises(DataInvalid, match="the class 'q' is not in the training set"):
            align(read_upload(b"c,label\n1,q\n2,b\n", "csv"), train, pointer="/data/val")

    def test_integer_labels_keep_their_meaning(self, read_upload: Load) -> None:
        train = read_upload(b"c,label\n1,0\n2,1\n3,2\n", "csv")
        val = align(read_upload(b"c,label\n1,2\n2,1\n", "csv"), train, pointer="/data/val")
        assert val.target is not None
        assert (val.target.tolist(), val.classes) == ([2, 1], ["0", "1", "2"])

    def test_whole_numbers_fit_a_target_of_numbers(self, read_upload: Load) -> None:
        train = read_upload(b"c,label\n1,0.5\n2,1\n", "csv")
        val = align(read_upload(b"c,label\n1,0\n2,1\n", "csv"), train, pointer="/data/val")
        assert val.target is not None
        assert (val.target.dtype, val.classes) == (np.float32, None)

    def test_other_columns_are_refused(self, read_upload: Load) -> None:
        train = read_upload(b"c,label\n1,0\n2,1\n", "csv")
        with pytest.raises(DataInvalid, match="this set has d, the training set has c"):
            align(read_upload(b"d,label\n1,0\n2,1\n", "csv"), train, pointer="/data/val")


@pytest.mark.skipif(not (REAL / "abalone.csv").is_file(), reason="no real data (set EPOCHD_TEST_DATA)")
def test_real_abalone_without_header_is_read(read_upload: Load) -> None:
    samples = read_upload((REAL / "abalone.csv").read_bytes(), "csv", columns={"target": "column_9"})
    assert samples.inputs.shape == (4177, 8)
    assert samples.categories == {"column_1": ["F", "I", "M"]}
    assert samples.inputs[0].tolist() == pytest.approx([2, 0.455, 0.365, 0.095, 0.514, 0.2245, 0.101, 0.15])


def test_source_may_say_that_there_is_no_header(read: Load, tmp_path: Path) -> None:
    from core.messages import DatasetFile

    path = tmp_path / "words.csv"
    path.write_text("red,yes\nblue,no\n")
    uploads = {"ds_1@1": DatasetFile(path=str(path), format="csv", sha256="0")}
    source = {"type": "dataset", "id": "ds_1", "header": False}
    samples = read(source, uploads=uploads, columns={"target": "column_2"})
    assert samples.categories == {"column_1": ["blue", "red"]}
    assert len(samples) == 2
