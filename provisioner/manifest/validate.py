"""One document through its model. Most documents pass, and need no more than pydantic's core.

The models' compiled form is used where it was made by the very version of pydantic-core at hand, the models
themselves elsewhere: the same answers, a twentieth of a second later. What a model refuses is for faults.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import pydantic_core

from provisioner.diagnostics import Diagnostic
from provisioner.yaml_source.document import Document

if TYPE_CHECKING:
    from provisioner.manifest.models import ClientManifest, Kind, WorkspaceFile

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Validated(Generic[M]):
    """What a document says, as far as it can be used; ``model`` is None when nothing can.

    ``users`` has the position in the document of each of the model's users; ``faulty`` those positions of
    which something was told; ``lost`` is true when a user is missing from the model.
    """

    model: M | None
    problems: Sequence[Diagnostic] = ()
    users: Sequence[int] = ()
    faulty: frozenset[int] = frozenset()
    lost: bool = False


@overload
def read_model(kind: Literal["client"], document: Document) -> Validated[ClientManifest]: ...
@overload
def read_model(kind: Literal["provisioner"], document: Document) -> Validated[WorkspaceFile]: ...
def read_model(kind: Kind, document: Document) -> Validated[Any]:
    """Validate a whole document at once."""
    try:
        found = validator(kind)(document.data)
    except pydantic_core.ValidationError:
        from provisioner.manifest.explain import recover

        return recover(kind, document)
    return Validated(found, users=range(len(found.users)) if kind == "client" else ())


@cache
def validator(kind: Kind) -> Callable[[Any], Any]:
    """The function that turns a document's data into its model, or what has the model's fields."""
    from provisioner.manifest import compiled

    if pydantic_core.__version__ != compiled.PYDANTIC_CORE:
        from provisioner.manifest.models import MODELS

        return MODELS[kind].model_validate
    core_schema = {"client": compiled.CLIENT, "provisioner": compiled.PROVISIONER}[kind]
    return pydantic_core.SchemaValidator(core_schema).validate_python
