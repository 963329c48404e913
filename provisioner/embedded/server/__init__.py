"""The embedded portal behind HTTP: OAuth 2.0 log-in, roles, rate limits, OpenAPI 3.1, activation pages.

``app`` is the ASGI application, ``routes`` the table of operations, ``handlers`` has one function for each
operation, and ``schemas`` the models of the bodies. The business rules are in :mod:`provisioner.embedded`.

To add an operation, add it to ``endpoints`` and to ``routes``, the model of its body to ``schemas``, and its
handler to ``handlers``.
"""
