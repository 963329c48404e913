"""Strict YAML with positions: ``document.read_document`` turns bytes into data, positions and problems.

Everything YAML can express that a manifest must not contain (tags, anchors, merge keys, duplicate keys) is a
problem with a line and a column. Nothing here knows what a manifest means.

To refuse one more construct, add it to ``events``.
To explain one more syntax error, add it to ``syntax_errors``.
"""
