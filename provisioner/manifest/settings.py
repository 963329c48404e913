"""What provisioner.yaml says about manifests: by these values they are read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from provisioner.diagnostics import Severity, Source
from provisioner.manifest.declared import Activation
from provisioner.model import PortalTerms, Production, UserType


@dataclass(frozen=True, slots=True)
class Preset:
    """A profile, laid over ``defaults:``, or these alone. None: not said here either."""

    type: UserType | None = None
    production: Production | None = None
    apps: frozenset[str] | None = None
    companies: frozenset[str] | None = None
    immediate_removal: bool = False
    activation: Activation = Activation.IMMEDIATE
    welcome: bool = True
    language: str = "fr"
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Where provisioner.yaml names each of ``companies``."""


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """The firm's terms and habits, as far as manifests meet them."""

    terms: PortalTerms = field(default_factory=PortalTerms)
    defaults: Preset = field(default_factory=Preset)
    profiles: Mapping[str, Preset] = field(default_factory=dict)
    generic_addresses: Severity = Severity.WARNING
    """How grave a generic address is (S1)."""
