"""From a JSON body to a request's model, with pointers."""

from typing import TypeVar

from pydantic import ValidationError

from api.schemas.base import Wanted
from core.errors import Invalid, Issue
from core.spec.decode import decode
from core.spec.pointer import join

Model = TypeVar("Model", bound=Wanted)


def parsed(model: type[Model], body: bytes) -> Model:
    """Return the body as a model.

    Raises:
        Malformed: no JSON, or not JSON that can be stored.
        Invalid: it does not fit; every issue has its pointer.
    """
    value = decode(body)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        issues = [Issue(_pointer(item["loc"]), item["type"], f"{item['msg']}.") for item in error.errors()]
        raise Invalid(
            "; ".join(f"{issue.pointer or 'the body'}: {issue.detail}" for issue in issues), issues=issues
        ) from error


def _pointer(path: tuple[int | str, ...]) -> str:
    pointer = ""
    for part in path:
        pointer = join(pointer, part)
    return pointer
