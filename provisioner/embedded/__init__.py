"""The embedded portal: a portal of record on SQLite or PostgreSQL that enforces rules R1 to R15.

``decide`` computes the result of one step, without input or output. ``portal`` stores that result, for a run
in this process or for ``server``, the HTTP service. ``portal_types`` has the types that all three exchange.

To add a step, add it to :mod:`provisioner.planning.steps` and to ``decide``.
"""
