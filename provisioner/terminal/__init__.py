"""The terminal: console, questions, progress, and output streams whose failure does not stop a run.

This package does not depend on plans or portals. Commands call this package and pass callbacks to operations.

To add another kind of output, add a method to ``Console`` in ``console``.
"""
