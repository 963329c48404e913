"""The driver for the portal service over HTTP (``https://…``).

``driver`` implements the portal protocol, ``requests`` maps steps to requests, ``responses`` reads the
responses, ``paths`` maps operations to URLs. Driver and server share one endpoint table,
:mod:`provisioner.embedded.server.endpoints`.

To add an operation, add it to the endpoint table, to ``responses`` and to ``driver``. A new step needs
no change here.
"""
