"""The driver for SCIM 2.0 servers (``scim+https://…``, RFC 7643 and RFC 7644).

``discovery`` reads what a server supports, ``client`` sends requests, ``directory`` holds what was read,
``mapping`` translates between SCIM attributes and the model, ``projection`` says what the server can hold,
and ``driver`` implements the portal protocol.

To map one more attribute: add it to ``mapping`` and ``schema``, and to
``projection`` where servers may lack it.
"""
