"""The terminal: console, questions and progress, and output streams whose failure stops no run.

This package knows neither plans nor portals. Commands use it; operations receive callbacks instead.

To add another kind of output: add a method to ``Console`` in ``console``.
"""
