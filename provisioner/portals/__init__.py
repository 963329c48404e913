"""Portals and their drivers."""
