"""What a spec may name."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from api.dependencies import JobReader
from api.parameters import problems
from api.schemas.base import Listing
from api.schemas.components import ComponentBody, KindBody
from core.errors import NotFound
from core.spec import catalog

router = APIRouter(prefix="/components", tags=["components"])

Kind = Annotated[str, Path(description="Such as `layers` or `optimizers`.", examples=["optimizers"])]
Name = Annotated[str, Path(description="Such as `Adam`.", examples=["Adam"])]


@router.get("")
def kinds(_who: JobReader) -> Listing[KindBody]:
    """List the kinds of components, and the names of each."""
    return Listing(data=[KindBody(kind=kind, names=catalog.names(kind)) for kind in catalog.kinds()])


@router.get("/{kind}", responses=problems(404))
def of_kind(_who: JobReader, kind: Kind) -> Listing[ComponentBody]:
    """List the components of a kind, with their arguments; refused ones say why."""
    _check(kind)
    return Listing(data=[_body(entry) for entry in catalog.entries(kind)])


@router.get("/{kind}/{name}", responses=problems(404))
def one(_who: JobReader, kind: Kind, name: Name) -> ComponentBody:
    """Show a component with its arguments and JSON Schema."""
    _check(kind)
    entry = catalog.find(kind, name)
    if entry is None:
        raise NotFound(f"There is no {name!r} among the {kind}; GET /v1/components/{kind} lists them.")
    return _body(entry)


def _check(kind: str) -> None:
    if kind not in catalog.kinds():
        raise NotFound(f"There is no kind {kind!r} of components; there are {', '.join(catalog.kinds())}.")


def _body(entry: catalog.Entry) -> ComponentBody:
    body: dict[str, Any] = entry.as_json()
    return ComponentBody.model_validate(body)
