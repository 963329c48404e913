"""The embedded portal: a portal of record on SQLite or PostgreSQL that enforces rules R1 to R15.

``decide`` says how one step ends, as a function of values. ``portal`` stores the result. ``host`` is the
interface between the portal and whatever runs it: a driver in this process, or ``server`` behind HTTP.

To add a step: add it to :mod:`provisioner.planning.steps` and to ``decide``.
"""
