"""Welcome letters: rendering their templates, writing them as e-mail messages, and sending the messages.

:mod:`~provisioner.mail.message` writes a letter as a message. :mod:`~provisioner.mail.template_sandbox` and
:mod:`~provisioner.mail.template_worker` render its templates. A transport (:mod:`~provisioner.mail.smtp` or
:mod:`~provisioner.mail.maildir`) sends or stores the messages, and reports a
:class:`~provisioner.mail.delivery.Delivery` for each message.

This package does not decide who gets a letter, and it stores no state. A plan decides who gets a letter. The
outbox of the ledger stores the state. ``operations/deliver.py`` reads the letters from the outbox and stores
there what a transport reports.

To add a transport, write a class that implements :class:`~provisioner.mail.delivery.Transport` and add its
scheme to ``TRANSPORTS`` in ``transport.py``.
"""
