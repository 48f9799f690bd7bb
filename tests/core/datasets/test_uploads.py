import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.datasets import preview
from core.datasets.formats import Limits
from core.datasets.uploads import receive
from core.errors import DataInvalid, TooLarge

Zipped = Callable[[Mapping[str, bytes]], bytes]
Png = Callable[..., bytes]
MIB = 1 << 20


def accepted(content: bytes, kind: str, folder: Path, **more: Any) -> dict[str, Any]:
    with receive(io.BytesIO(content), format=kind, folder=folder, **more) as upload:
        profile = upload.profile
    assert list(folder.iterdir()) == []
    json.dumps(profile, allow_nan=False)
    return profile


def refused(content: bytes, kind: str, folder: Path, **more: Any) -> str:
    """Return `code: detail` of an upload that must be refused and leave nothing."""
    with pytest.raises(DataInvalid) as caught:
        receive(io.BytesIO(content), format=kind, folder=folder, **more)
    assert list(folder.iterdir()) == []
    (issue,) = caught.value.issues
    assert issue.pointer == "/file"
    return f"{issue.code}: {issue.detail}"


def npz(**arrays: Any) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


def idx(array: np.ndarray[Any, Any], code: int = 8) -> bytes:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


class TestCsv:
    def test_profile_counts_rows_missing_and_labels(self, tmp_path: Path) -> None:
        profile = accepted(b"size,colour,label\n1.5,red,0\n,blue,1\n2.5,red,1\n", "csv", tmp_path)
        assert profile["rows"] == 3
        size, colour, label = profile["columns"]
        assert size == {
            "name": "size",
            "dtype": "number",
            "missing": 1,
            "min": 1.5,
            "max": 2.5,
            "mean": 2.0,
            "distinct": 2,
        }
        assert colour["values"] == {"blue": 1, "red": 2}
        assert label["values"] == {"0": 1, "1": 2}

    def test_text_in_a_column_of_numbers_is_named_by_row_and_column(self, tmp_path: Path) -> None:
        body = b"a,b\n" + b"1,2\n" * 70_000 + b"1,oops\n"
        assert refused(body, "csv", tmp_path) == (
            "text_in_numbers: row 70001, column 'b': 'oops' is text in a column of numbers"
        )

    def test_row_of_another_length_is_named_by_line(self, tmp_path: Path) -> None:
        assert refused(b"a,b\n1,2\n3\n", "csv", tmp_path).startswith("ragged_row: line 3 has 1 cells instead of 2")

    def test_infinite_number_is_refused(self, tmp_path: Path) -> None:
        assert refused(b"a,b\n1,1e999\n", "csv", tmp_path) == "not_finite: row 1, column 'b': the number is infinite"

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", "empty"),
            (b"\n", "empty"),
            (b"a,b\n", "empty"),
            (b"a,a\n1,2\n", "double_column"),
            (b"\x89PNG\r\n\0\0", "not_csv"),
            ("a,ä\n1,2\n".encode("latin-1"), "not_csv"),
        ],
    )
    def test_what_is_no_table_is_refused(self, body: bytes, code: str, tmp_path: Path) -> None:
        assert refused(body, "csv", tmp_path).split(":")[0] == code

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    def test_delimiter_and_quotes_are_understood(self, delimiter: str, tmp_path: Path) -> None:
        body = f'\ufeffa{delimiter}"b c"\n1{delimiter}"x\ny"\n+2{delimiter}z\n'.encode()
        profile = accepted(body, "csv", tmp_path)
        assert [column["name"] for column in profile["columns"]] == ["a", "b c"]
        assert profile["columns"][0]["max"] == 2

    def test_first_row_with_a_number_is_no_header(self, tmp_path: Path) -> None:
        profile = accepted(b"M,1,2\nF,3,4\n", "csv", tmp_path)
        assert profile["rows"] == 2
        assert [column["name"] for column in profile["columns"]] == ["column_1", "column_2", "column_3"]

    def test_header_can_be_said_to_be_there(self, tmp_path: Path) -> None:
        assert accepted(b"2001,2002\n3,4\n", "csv", tmp_path, header=True)["rows"] == 1

    def test_preview_has_numbers_and_null(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"a,b\n1,x\n,y\n2.5,z\n")
        assert preview(tmp_path / "a.csv", "csv", 2) == {"columns": ["a", "b"], "rows": [[1, "x"], [None, "y"]]}


class TestParquet:
    def test_types_come_from_the_file(self, tmp_path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        packed = io.BytesIO()
        table = pa.table(
            {"n": [1, None, 3], "s": ["1", "x", "2"], "ok": [True, False, True], "f": [0.5, float("nan"), 1]}
        )
        parquet.write_table(table, packed)
        profile = accepted(packed.getvalue(), "parquet", tmp_path)
        assert [(column["dtype"], column["missing"]) for column in profile["columns"]] == [
            ("integer", 1), ("text", 0), ("boolean", 0), ("number", 1),
        ]  # fmt: skip

    def test_nested_columns_are_named(self, tmp_path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        packed = io.BytesIO()
        parquet.write_table(pa.table({"deep": [[1], [2]]}), packed)
        assert refused(packed.getvalue(), "parquet", tmp_path).startswith("bad_dtype: column 'deep' is list")

    def test_few_bytes_that_stand_for_many_rows_are_refused(self, tmp_path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        packed = io.BytesIO()
        parquet.write_table(pa.table({"a": np.zeros(2_000_000)}), packed)
        assert len(packed.getvalue()) < 100_000
        assert refused(packed.getvalue(), "parquet", tmp_path, limits=Limits(max_unpacked_bytes=MIB)).startswith(
            "unpacks_too_large: 2000000 rows of 1 columns"
        )

    def test_what_is_no_parquet_is_refused(self, tmp_path: Path) -> None:
        assert refused(b"PAR1 but no more", "parquet", tmp_path).startswith("not_parquet:")


class TestNpz:
    def test_profile_of_a_table_with_labels(self, tmp_path: Path) -> None:
        profile = accepted(npz(x=np.eye(4), y=np.array([0, 1, 1, 1])), "npz", tmp_path)
        assert (profile["kind"], profile["samples"], profile["mean"]) == ("table", 4, 0.25)
        assert profile["target"]["classes"] == {"0": 1, "1": 3}

    def test_pickled_objects_are_refused_unread(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path.parent / "trapped",))

        content = npz(x=np.array([Trap()], dtype=object))
        assert refused(content, "npz", tmp_path).startswith("pickled_objects: the array 'x' holds Python objects")
        assert not (tmp_path.parent / "trapped").exists()

    @pytest.mark.parametrize(
        ("arrays", "code"),
        [
            ({"q": np.zeros((3, 2))}, "no_inputs"),
            ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "lengths_differ"),
            ({"x": np.array([[np.inf, 0]])}, "not_finite"),
            ({"x": np.zeros((2, 2)), "y": np.array([np.nan, 1])}, "not_finite"),
            ({"x": np.zeros(3)}, "bad_shape"),
            ({"x": np.zeros((2, 2), complex)}, "bad_dtype"),
        ],
    )
    def test_arrays_that_are_no_data_are_refused(self, arrays: dict[str, Any], code: str, tmp_path: Path) -> None:
        assert refused(npz(**arrays), "npz", tmp_path).split(":")[0] == code

    def test_array_that_announces_more_than_it_has_is_refused(self, tmp_path: Path, zipped: Zipped) -> None:
        array = io.BytesIO()
        np.lib.format.write_array_header_1_0(array, {"shape": (10, 10), "fortran_order": False, "descr": "<f8"})
        assert refused(zipped({"x.npy": array.getvalue() + bytes(8)}), "npz", tmp_path) == (
            "not_npy: the array 'x' is cut off"
        )

    def test_array_that_announces_terabytes_is_refused_before_they_are_taken(
        self, tmp_path: Path, zipped: Zipped
    ) -> None:
        array = io.BytesIO()
        np.lib.format.write_array_header_1_0(array, {"shape": (10**9, 10**4), "fortran_order": False, "descr": "<f8"})
        assert refused(zipped({"x.npy": array.getvalue()}), "npz", tmp_path).startswith("unpacks_too_large:")


class TestImages:
    def test_profile_counts_classes_and_ignores_what_systems_add(
        self, tmp_path: Path, zipped: Zipped, png: Png
    ) -> None:
        files = dict.fromkeys(("top/cat/1.png", "top/dog/2.png", "top/dog/3.png"), png())
        files |= dict.fromkeys(("__MACOSX/top/cat/._1.png", "top/.DS_Store", "top/dog/Thumbs.db"), b"junk")
        assert accepted(zipped(files), "images", tmp_path) == {
            "kind": "image", "samples": 3, "channels": 1, "height": 3, "width": 4, "dtype": "uint8",
            "classes": {"cat": 1, "dog": 2},
        }  # fmt: skip

    @pytest.mark.parametrize("name", ["../cat/1.png", "cat/../../1.png", "/cat/1.png", "C:\\cat\\1.png", "..\\1.png"])
    def test_path_that_leaves_the_archive_is_refused(self, name: str, tmp_path: Path, zipped: Zipped, png: Png) -> None:
        assert refused(zipped({name: png(), "dog/2.png": png()}), "images", tmp_path).startswith("unsafe_path:")

    def test_link_is_refused(self, tmp_path: Path, png: Png) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            link = zipfile.ZipInfo("cat/1.png")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
            archive.writestr("dog/2.png", png())
        assert refused(packed.getvalue(), "images", tmp_path) == "unsafe_path: 'cat/1.png' in the zip is a link"

    def test_image_that_is_none_is_named(self, tmp_path: Path, zipped: Zipped, png: Png) -> None:
        content = zipped({"cat/1.png": png(), "dog/readme.txt": b"hello"})
        assert refused(content, "images", tmp_path).startswith("not_an_image: 'dog/readme.txt' in the zip is no image")

    def test_image_that_is_cut_off_is_named(self, tmp_path: Path, zipped: Zipped, png: Png) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
        drawn = io.BytesIO()
        from PIL import Image

        Image.fromarray(noise).save(drawn, "PNG")
        content = zipped({"cat/1.png": drawn.getvalue()[:2000], "dog/2.png": drawn.getvalue()})
        assert refused(content, "images", tmp_path).startswith("not_an_image: the image 'cat/1.png' is damaged")

    def test_image_of_huge_dimensions_is_refused_before_it_is_decoded(
        self, tmp_path: Path, zipped: Zipped, png: Png
    ) -> None:
        content = zipped({"cat/1.png": png(mode="1", size=(30_000, 30_000)), "dog/2.png": png()})
        assert refused(content, "images", tmp_path).startswith("image_too_large: 'cat/1.png'")

    def test_images_of_two_sizes_are_named(self, tmp_path: Path, zipped: Zipped, png: Png) -> None:
        content = zipped({"cat/1.png": png(), "dog/2.png": png(size=(5, 5))})
        assert refused(content, "images", tmp_path) == (
            "image_sizes_differ: 'dog/2.png' is 5x5 pixels and 'cat/1.png' is 4x3"
        )

    @pytest.mark.parametrize(
        ("names", "code"),
        [
            (["a.png", "b.png"], "one_class"),
            (["cat/a.png", "cat/b.png"], "one_class"),
            (["a.png", "cat/b.png"], "not_class_folders"),
            (["train/cat/a.png", "val/cat/b.png"], "not_class_folders"),
        ],
    )
    def test_zip_without_class_folders_is_refused(
        self, names: list[str], code: str, tmp_path: Path, zipped: Zipped, png: Png
    ) -> None:
        assert refused(zipped(dict.fromkeys(names, png())), "images", tmp_path).split(":")[0] == code

    def test_zip_bomb_is_refused_by_its_sizes(self, tmp_path: Path, zipped: Zipped) -> None:
        content = zipped({"cat/1.png": bytes(80 * MIB)})
        assert refused(content, "images", tmp_path).startswith("unpacks_too_large: the zip grows from")
        limits = Limits(max_unpacked_bytes=MIB)
        assert refused(content, "images", tmp_path, limits=limits).startswith("unpacks_too_large: the zip unpacks to")

    def test_zip_that_lies_about_its_sizes_is_refused(self, tmp_path: Path, zipped: Zipped) -> None:
        content = bytearray(zipped({"cat/1.png": bytes(5000), "dog/2.png": bytes(5000)}))
        for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
            at = content.index(signature) + offset
            content[at : at + 4] = struct.pack("<I", 10)
        assert refused(bytes(content), "images", tmp_path).split(":")[0] in ("damaged_archive", "not_an_image")

    def test_too_many_files_are_refused(self, tmp_path: Path, zipped: Zipped) -> None:
        content = zipped({f"cat/{number}.png": b"" for number in range(20)})
        assert refused(content, "images", tmp_path, limits=Limits(max_entries=10)).startswith("too_many_files:")

    def test_what_is_no_zip_is_refused(self, tmp_path: Path) -> None:
        assert refused(b"PK, but no zip", "images", tmp_path).startswith("not_a_zip:")

    def test_preview_lists_files_and_classes(self, tmp_path: Path, zipped: Zipped, png: Png) -> None:
        (tmp_path / "a.zip").write_bytes(zipped({"cat/1.png": png(), "dog/2.png": png()}))
        rows = [["cat/1.png", "cat"], ["dog/2.png", "dog"]]
        assert preview(tmp_path / "a.zip", "images") == {"columns": ["file", "class"], "rows": rows}


class TestIdx:
    def test_pair_in_a_zip_has_images_and_classes(self, tmp_path: Path, zipped: Zipped) -> None:
        pair = {"images": idx(np.zeros((4, 5, 5), np.uint8)), "labels": idx(np.array([0, 1, 0, 1], np.uint8))}
        profile = accepted(zipped(pair), "idx", tmp_path)
        assert (profile["kind"], profile["sample_shape"]) == ("image", [1, 5, 5])
        assert profile["target"]["classes"] == {"0": 2, "1": 2}

    def test_single_file_has_no_target(self, tmp_path: Path) -> None:
        assert accepted(idx(np.zeros((4, 5, 5), np.uint8)), "idx", tmp_path)["target"] is None

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"hello", "begins with 68 65 6c 6c"),
            (idx(np.zeros((2, 2, 2), np.uint8))[:-1], "cut off"),
            (idx(np.zeros((2, 2, 2), np.uint8)) + b"x", "bytes after"),
            (b"\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "announces"),
            (b"\x1f\x8b damaged", "gzip stream is damaged"),
        ],
    )
    def test_what_is_no_idx_is_refused(self, content: bytes, says: str, tmp_path: Path) -> None:
        assert says in refused(content, "idx", tmp_path)


def test_more_bytes_than_allowed_are_too_large_and_leave_nothing(tmp_path: Path) -> None:
    endless = iter(lambda: bytes(MIB), b"")
    with pytest.raises(TooLarge, match=r"larger than the 3145728 bytes"):
        receive(endless, format="csv", folder=tmp_path, limits=Limits(max_bytes=3 * MIB))
    assert list(tmp_path.iterdir()) == []


def test_stream_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield b"a,b\n"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        receive(broken(), format="csv", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid) as caught:
        receive(io.BytesIO(b"x"), format="xlsx", folder=tmp_path)
    issue = caught.value.issues[0]
    assert (issue.pointer, issue.hint) == ("/format", "one of csv, parquet, npz, images, idx, jsonl")


def test_digest_and_size_are_of_the_bytes(tmp_path: Path) -> None:
    from hashlib import sha256

    body = b"a,b\n1,2\n"
    with receive([body[:3], body[3:]], format="csv", folder=tmp_path) as upload:
        assert (upload.sha256, upload.size_bytes) == (sha256(body).hexdigest(), len(body))
        assert upload.path.read_bytes() == body
