"""Plans and problems as text: functions that return a string and print nothing.

``overview`` and ``describe`` say what a plan contains, ``text`` and ``markdown`` lay it out, ``diagnostics``
lays out problems, ``sanitize`` makes text from outside safe to show.

To add an output format of a plan: write a module beside ``markdown``, call it in ``commands/plan.py``, and
declare its option in ``cli.py``.
"""
