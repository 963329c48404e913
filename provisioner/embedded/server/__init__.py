"""The embedded portal behind HTTP: OAuth 2.0 log-in, roles, rate limits, OpenAPI 3.1, activation pages.

``app`` is the ASGI application, ``routes`` the table of operations, ``handlers`` what each one does,
``schemas`` the bodies. Business rules are not here: they are in :mod:`provisioner.embedded`.

To add an operation: add it to ``endpoints`` and ``routes``, its body to ``schemas``,
its handler to ``handlers``.
"""
