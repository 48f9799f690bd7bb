import pytest

from core import ids


def test_ids_sort_by_time_of_creation() -> None:
    made = [ids.new("job") for _ in range(10_000)]
    assert made == sorted(set(made))


def test_an_id_fits_its_column_and_says_what_it_is() -> None:
    assert len(ids.new("job")) <= 40
    assert ids.is_id("job", ids.new("job"))


@pytest.mark.parametrize("text", ["", "job_", "job_xyz", "ds_" + "0" * 32, "job_" + "0" * 31, "job_" + "0" * 32 + "\n"])
def test_other_text_is_no_job_id(text: str) -> None:
    assert not ids.is_id("job", text)
