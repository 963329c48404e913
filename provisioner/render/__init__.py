"""The functions that render plans and problems as text. They return strings and print nothing.

``overview`` and ``describe`` put the content of a plan into words, ``text`` and ``markdown`` lay out the
plan, ``diagnostics`` lays out problems, and ``sanitize`` makes text from outside safe to show.

To add an output format for plans, write a module in this package and add it to ``formats.FORMATS``.
"""
