"""Runs the program with one SMTP connection for each letter: ``python one_a_connection.py ARGUMENTS``.

The benchmark shows how much time reused connections save. No setting of the program turns the reuse off.
"""

from __future__ import annotations

from provisioner.cli import main
from provisioner.mail import smtp

if __name__ == "__main__":
    smtp.MESSAGES_A_CONNECTION = 1
    main()
