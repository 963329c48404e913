"""The values that users inherit from a profile, ``defaults:`` or the program, in this order of precedence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provisioner.manifest.declared import Activation
from provisioner.manifest.fields import nfc
from provisioner.manifest.models import Preset, WorkspaceFile


class Profiles:
    """The values of users without a profile (``defaults``) and of users with a profile (``by_name``).

    Each profile is already merged with ``defaults``. The profile names are in NFC. The only values
    that can be None are ``type``, ``production``, ``apps`` and ``companies``.
    """

    def __init__(self, settings: WorkspaceFile) -> None:
        profiles = settings.catalogue.profiles
        bottom = {
            "removal": "month_end",
            "activation": Activation.IMMEDIATE,
            "welcome_email": True,
            "language": settings.firm.language,
        }
        written = settings.defaults.model_dump(exclude_unset=True)
        self.defaults = settings.defaults.model_copy(update=bottom | written)
        self.by_name: Mapping[str, Preset] = {
            nfc(name): self.defaults.model_copy(update=preset.model_dump(exclude_unset=True))
            for name, preset in profiles.items()
        }
        self._with_companies = {
            nfc(name): name for name, preset in profiles.items() if preset.companies is not None
        }

    def company_path(self, profile: str | None, position: int) -> tuple[str | int, ...]:
        """Return the YAML path of item ``position`` of ``companies:`` in ``profile`` or ``defaults:``."""
        name = self._with_companies.get(profile) if profile is not None else None
        path = ("catalogue", "profiles", name) if name is not None else ("defaults",)
        return *path, "companies", position

    def digestible(self) -> Iterator[Any]:
        """Yield each profile's name and values as JSON data for a digest. The name of ``defaults`` is ""."""
        for name, preset in (("", self.defaults), *sorted(self.by_name.items())):
            values = preset.model_dump(mode="json")
            yield [name, {key: sorted(it) if isinstance(it, list) else it for key, it in values.items()}]
