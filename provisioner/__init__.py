"""The program that compares a portal's users with YAML manifests (plan) and makes the changes (apply)."""

__version__ = "0.1.0"
