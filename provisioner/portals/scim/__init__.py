"""The driver for SCIM 2.0 servers (``scim+https://…``, RFC 7643 and RFC 7644).

``discovery`` reads what a server supports, ``client`` sends requests, ``directory`` caches what was read,
``mapping`` translates between SCIM attributes and the model, ``projection`` says what the server can
store. ``driver`` implements the portal protocol, ``steps`` does one step, and ``completion`` finishes or
withdraws a step of several writes.

To map one more attribute: add it to ``mapping``, to ``projection`` where servers may lack it, and to
``discovery`` and the published schemas if SCIM has no attribute for it.
"""
