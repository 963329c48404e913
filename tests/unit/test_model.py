"""``PRODUCTION_APPS`` contains the portal's names, and the program's value objects are immutable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields, is_dataclass
from importlib import import_module
from inspect import getmembers, isclass
from pkgutil import walk_packages
from typing import Any

import pytest

import provisioner
from provisioner.model import PRODUCTION_APPS, Production
from provisioner.testing.people import user

ACCUMULATORS = {"ApplyReport", "Baseline", "DeliveryReport", "Exchange", "Invocation", "ResourceProgress"}
"""The only public mutable dataclasses: a run, an exchange or the command line fills them in step by step."""


def values() -> Iterator[type[Any]]:
    """Yield every public dataclass of the program."""
    for found in walk_packages(provisioner.__path__, "provisioner."):
        module = import_module(found.name)
        for name, kind in getmembers(module, isclass):
            if kind.__module__ == module.__name__ and is_dataclass(kind) and name[0] != "_":
                yield kind


def test_production_trios_have_the_names_of_the_portal() -> None:
    full = ("Production Compta", "Production Fiscalité", "Production Paie")
    assert PRODUCTION_APPS[Production.FULL] == full
    assert PRODUCTION_APPS[Production.CONSULTATION] == tuple(f"{name} (Consultation)" for name in full)


def test_user_name_is_first_and_last_name() -> None:
    assert user("claire").name == "Claire Martin"


def test_no_attribute_of_a_value_can_be_set_or_deleted() -> None:
    kinds = [kind for kind in values() if kind.__name__ not in ACCUMULATORS]
    assert len(kinds) > 40
    for kind in kinds:
        made = object.__new__(kind)
        for part in fields(kind):
            with pytest.raises(FrozenInstanceError, match=part.name):
                setattr(made, part.name, None)
            with pytest.raises(FrozenInstanceError):
                delattr(made, part.name)
