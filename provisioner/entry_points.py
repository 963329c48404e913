"""Loads drivers that other packages provide, for the URL schemes that are not built in.

A package declares its drivers as entry points, under the scheme of their URLs, in its pyproject.toml::

    [project.entry-points."provisioner.portals"]
    crm = "provisioner_crm:driver"

    [project.entry-points."provisioner.transports"]
    ses = "provisioner_ses:driver"

The installed packages are searched only for a scheme that is not built in, because the search takes several
milliseconds. A package cannot replace a built-in driver.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from provisioner.errors import ProvisionerError
from provisioner.spelling import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

D = TypeVar("D")


def load_driver(
    group: str, scheme: str, kind: type[D], built_in: Iterable[str], error: type[ProvisionerError]
) -> D:
    """Return the driver of class ``kind`` that an installed package provides for ``scheme`` in ``group``.

    Raises ``error`` if no package or more than one package provides the driver, or if it cannot be loaded.
    The error for an unknown scheme lists the schemes in ``built_in`` and the schemes that packages provide.
    """
    from importlib.metadata import entry_points

    found = entry_points(group=group, name=scheme)
    if not found:
        raise _unknown(scheme, [*built_in, *sorted(entry_points(group=group).names)], error)
    packages = sorted(_package(entry) for entry in found)
    if len(packages) > 1:
        raise error(
            f"More than one installed package has a driver for {scheme}:// URLs: {', '.join(packages)}.",
            f"Keep one of them:\n    {sys.executable} -m pip uninstall {packages[-1]}",
        )
    [entry] = found
    again = f"{sys.executable} -m pip install --upgrade {packages[0]}"
    try:
        driver = entry.load()
    except Exception as problem:
        # the package's own code runs here and can raise anything
        raise error(
            f"The driver for {scheme}:// URLs in the package {packages[0]} cannot be loaded: "
            f"{type(problem).__name__}: {problem}.",
            f"Install what it needs, or another version of it:\n    {again}",
        ) from problem
    if not isinstance(driver, kind):
        raise error(
            f"The driver for {scheme}:// URLs in the package {packages[0]} cannot be used: {entry.value} is "
            f"of type {type(driver).__name__} instead of {kind.__module__}.{kind.__qualname__}.",
            f"Tell the authors of the package, or install another version of it:\n    {again}",
        )
    return driver


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module


def _unknown(scheme: str, known: list[str], error: type[ProvisionerError]) -> ProvisionerError:
    return error(
        f"No driver is installed for {scheme}:// URLs.{did_you_mean(scheme, known)} There are drivers for: "
        f"{', '.join(known)}.",
        "Correct the URL, or install the package that has the driver:\n"
        f"    {sys.executable} -m pip install PACKAGE",
    )
