"""The values that users inherit: their profile, then ``defaults:``, then the program's own defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provisioner.manifest.declared import Activation
from provisioner.manifest.fields import nfc
from provisioner.manifest.models import Preset, WorkspaceFile


class Profiles:
    """The merged profiles of one provisioner.yaml, by name in NFC, and the defaults alone.

    ``type``, ``production``, ``apps`` and ``companies`` of a merged preset may be None; the rest is set.
    """

    def __init__(self, settings: WorkspaceFile) -> None:
        profiles = settings.catalogue.profiles
        bottom = {
            "removal": "month_end",
            "activation": Activation.IMMEDIATE,
            "welcome_email": True,
            "language": settings.firm.language,
        }
        self.defaults = settings.defaults.model_copy(update=bottom | _written(settings.defaults))
        self.by_name: Mapping[str, Preset] = {
            nfc(name): self.defaults.model_copy(update=_written(preset)) for name, preset in profiles.items()
        }
        self._with_companies = {
            nfc(name): name for name, preset in profiles.items() if preset.companies is not None
        }

    def company_path(self, profile: str | None, position: int) -> tuple[str | int, ...]:
        """The path in provisioner.yaml of a dossier that users of this profile (None: no profile) inherit."""
        name = self._with_companies.get(profile) if profile is not None else None
        path = ("catalogue", "profiles", name) if name is not None else ("defaults",)
        return *path, "companies", position

    def digestible(self) -> Iterator[Any]:
        """The merged presets as JSON values, independent of the order of lists."""
        for name, preset in (("", self.defaults), *sorted(self.by_name.items())):
            values = preset.model_dump(mode="json")
            yield [name, {key: sorted(it) if isinstance(it, list) else it for key, it in values.items()}]


def _written(preset: Preset) -> dict[str, Any]:
    return {name: getattr(preset, name) for name in preset.model_fields_set}
