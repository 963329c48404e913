"""The terminal: console, questions and progress, and output streams whose failure stops no run.

It knows neither plans nor portals. Commands use it; operations receive callbacks instead.

To add a way of reporting: add it to ``console``.
"""
