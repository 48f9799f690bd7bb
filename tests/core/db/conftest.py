import pytest

pytest.register_assert_rewrite("tests.core.db.promises")  # so that a broken promise says what was there instead
