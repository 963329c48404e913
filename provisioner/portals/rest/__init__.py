"""The driver for the portal service over HTTP (``https://…``).

``driver`` implements the portal protocol, ``responses`` reads what the service answers, ``paths`` maps
operations to URLs. The endpoint table is the server's: :mod:`provisioner.embedded.server.endpoints`.

To add an operation: add it to that table, read its response in ``responses``, and call it in ``driver``.
"""
