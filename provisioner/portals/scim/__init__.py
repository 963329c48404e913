"""The driver for SCIM 2.0 servers (``scim+https://…``, RFC 7643 and RFC 7644).

``discovery`` reads which features a server supports, ``client`` sends requests, ``directory`` caches the
resources, ``mapping`` translates between SCIM attributes and the model, ``projection`` computes the part of a
state that the server can store. ``driver`` implements the portal protocol, ``steps`` applies one step, and
``completion`` finishes or withdraws a step that needs several writes.

To map another attribute, add the attribute to ``mapping``. If some servers do not store the attribute, also
edit ``projection``. If SCIM does not define the attribute, also edit ``discovery`` and the published schemas.
"""
