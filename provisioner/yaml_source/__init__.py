"""A strict YAML parser: ``document.read_document`` turns bytes into data, positions and problems.

The parser reports each YAML construct that a manifest must not contain (tags, anchors, merge keys, duplicate
keys), with a line and a column. The package does not know the structure of manifests.

To refuse another construct, add it to ``events``. To explain a syntax error, add it to ``syntax_errors``.
"""
