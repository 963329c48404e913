"""Welcome letters: how their templates are rendered, how they are written as messages, and how they travel.

:mod:`~provisioner.mail.message` writes a letter. :mod:`~provisioner.mail.template_sandbox` and
:mod:`~provisioner.mail.template_worker` render its templates. A transport takes the messages and reports a
:class:`~provisioner.mail.delivery.Delivery` for each: :mod:`~provisioner.mail.smtp` or
:mod:`~provisioner.mail.maildir`.

This package does not decide who gets a letter, and it stores no state: a plan decides, the outbox of the
ledger stores, and ``operations/deliver.py`` reads letters from the outbox and records what a transport
reports.

To add a transport, write a class that implements :class:`~provisioner.mail.delivery.Transport` and add its
scheme to ``TRANSPORTS`` in ``transport.py``.
"""
