"""The driver for the portal service over HTTP (``https://…``).

``driver`` implements the portal protocol, ``requests`` maps steps to requests, ``responses`` reads the
responses, ``paths`` maps operations to URLs. The endpoint table is the server's:
:mod:`provisioner.embedded.server.endpoints`.

To add an operation: add it to that table, read its response in ``responses``, and call it in ``driver``. To
add a step: add its request to ``requests``.
"""
