"""The embedded portal: a portal inside this program, on SQLite or PostgreSQL. It enforces rules R1 to R15.

``decide`` computes the result of one step, without input or output. ``portal`` stores the result. ``server``
is an HTTP service that uses ``portal``. ``portal_types`` has the types that these three modules exchange.
To add a condition for a step, add it to ``decide``.
"""
