"""The entry point of the program, for the command ``provisioner`` and for ``python -m provisioner``.

A Ctrl-C during the import of ``cli`` is handled here. Later, ``cli.run`` handles interruptions and errors.
"""

from __future__ import annotations

import gc
import os
import sys

# otherwise pydantic would search every installed package for plugins, which takes longer than a small plan,
# and would run the plugins in this process, which has the firm's secrets
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> None:
    """Run :func:`provisioner.cli.main`; after an interruption, end the process with exit code 8."""
    # most objects of a run live until its end and few are in reference cycles, so frequent garbage
    # collections would cost time and free little memory
    gc.set_threshold(1_000_000, 50, 50)
    try:
        from provisioner.cli import main as command

        command()
    except KeyboardInterrupt:
        _stop()
    except RuntimeError as problem:
        # Python 3.11 raises RuntimeError for an interruption in __set_name__, while it creates a class
        if not isinstance(problem.__cause__, KeyboardInterrupt):
            raise
        _stop()
    finally:
        # after an interruption inside exec (which dataclasses call), Python ends the process by the signal
        # and not with the exit code, unless exec has run again
        exec("")  # noqa: S102


def _stop() -> None:
    sys.stderr.write("\nStopped.\n")
    sys.exit(8)


if __name__ == "__main__":
    main()
