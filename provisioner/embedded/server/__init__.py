"""The embedded portal as an HTTP service."""
