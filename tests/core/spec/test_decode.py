"""What is not JSON, or not JSON that every reader takes alike."""

import json

import pytest

from core.errors import Malformed
from core.spec.decode import MAX_DEPTH, MAX_ITEMS, check_plain, decode


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ('{"a" 1}', "json_invalid", 1, 6),
        ("", "json_invalid", 1, 1),
        ('{"a": tru}', "json_invalid", 1, 7),
        ("[1] 2", "json_invalid", 1, 5),
        ("\ufeff{}", "json_invalid", 1, 1),
        ("01", "json_invalid", 1, 2),
        ('"no end', "json_invalid", 1, 1),
        ('{\n  "lr": NaN}', "non_finite", 2, 9),
        ("[1, -Infinity]", "non_finite", 1, 5),
        ('{\n\n "lr":\t1e999}', "number_too_large", 3, 8),
        ("[-1e999]", "number_too_large", 1, 2),
        ("9223372036854775808", "number_too_large", 1, 1),
        ("1" * 5000, "number_too_large", 1, 1),
        ("[" * (MAX_DEPTH + 1), "too_deep", 1, MAX_DEPTH + 1),
        ("[" * 200_000, "too_deep", 1, MAX_DEPTH + 1),
    ],
)
def test_broken_text_is_refused_with_line_and_column(text: str, code: str, line: int, column: int) -> None:
    with pytest.raises(Malformed) as caught:
        decode(text)
    assert caught.value.issues[0].code == code
    assert caught.value.extra == {"line": line, "column": column}
    assert f"line {line}, column {column}" in caught.value.detail


@pytest.mark.parametrize(
    ("text", "code", "pointer"),
    [
        ('{"a": {"b/c": [{"k": 1, "k": 1}]}}', "duplicate_key", "/a/b~1c/0"),
        ('{"a": "\\ud800"}', "text_invalid", "/a"),
        ('{"a": ["x\\u0000"]}', "text_invalid", "/a/0"),
        ('{"\\u0000": 1}', "text_invalid", ""),
        (f'{{"a": {[0] * (MAX_ITEMS + 1)}}}', "too_many_items", "/a"),
    ],
)
def test_what_readers_take_differently_is_refused_at_its_pointer(text: str, code: str, pointer: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode(text)
    assert [(issue.code, issue.pointer) for issue in caught.value.issues] == [(code, pointer)]


def test_the_doubled_key_is_named() -> None:
    with pytest.raises(Malformed, match='"epochs" stands twice'):
        decode('{"epochs": 1, "name": "x", "epochs": 2}')


@pytest.mark.parametrize("body", [b"\xff", b'{"name": "\xc3("}', '{"a": 1}'.encode("utf-16")])
def test_other_encodings_than_utf8_are_refused(body: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        decode(body)
    assert caught.value.issues[0].code == "utf8_invalid"


@pytest.mark.parametrize("text", ['"NaN"', '"[[[1e999"', r'"\"NaN"', '{"NaN": "Infinity"}', r'"\\"'])
def test_words_inside_strings_are_only_text(text: str) -> None:
    assert decode(text) == json.loads(text)


def test_numbers_at_the_limits_are_taken() -> None:
    assert decode("[9223372036854775807, -9223372036854775808, 1.7976931348623157e308, 1E-400, -0]") == [
        2**63 - 1, -(2**63), 1.7976931348623157e308, 0.0, 0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "code", "pointer"),
    [
        ({"a": [float("nan")]}, "non_finite", "/a/0"),
        ({"a": float("-inf")}, "non_finite", "/a"),
        ({"a": 2**63}, "number_too_large", "/a"),
        ({"a": {1: 2}}, "json_invalid", "/a"),
        ({"a": (1, 2)}, "json_invalid", "/a"),
        ({"a": b"x"}, "json_invalid", "/a"),
    ],
)
def test_values_without_a_form_in_json_are_refused(value: object, code: str, pointer: str) -> None:
    with pytest.raises(Malformed) as caught:
        check_plain(value)
    assert [(issue.code, issue.pointer) for issue in caught.value.issues] == [(code, pointer)]


def test_a_value_that_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(Malformed, match="nested deeper"):
        check_plain(endless)
