"""The embedded portal: a portal of record on SQLite or PostgreSQL that enforces rules R1 to R15.

``decide`` says how one step ends, as a function of values. ``portal`` stores the result, for a run in this
process or for ``server``, which puts the portal behind HTTP. ``portal_types`` holds what they exchange.

To add a step: add it to :mod:`provisioner.planning.steps` and to ``decide``.
"""
