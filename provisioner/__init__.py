"""Client accesses to the portal, declared in YAML, planned and applied."""

__version__ = "0.1.0"
