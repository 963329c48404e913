"""What is drawn on a terminal: console, questions and progress; plus output streams that do not fail.

Nothing here knows about plans or portals. Commands use it; operations receive callbacks instead.

To add a way of reporting: add it to ``console``.
"""
