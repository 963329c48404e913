"""The program with one letter a connection: ``python one_a_connection.py ARGUMENTS``.

Shows what reused connections save; no setting turns them off.
"""

from __future__ import annotations

from provisioner.cli import main
from provisioner.mail import smtp

if __name__ == "__main__":
    smtp.MESSAGES_A_CONNECTION = 1
    main()
