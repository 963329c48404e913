"""Starts the program, by its name or as ``python -m provisioner``; handles Ctrl-C while ``cli`` is imported.

``cli.run`` catches all other exceptions, but cannot catch an interruption before it is imported.
"""

from __future__ import annotations

import gc
import os
import sys

# pydantic would look through every installed package for plugins, which takes longer than a small plan, and
# would run what it finds beside the firm's secrets
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> None:
    """Run :func:`provisioner.cli.main`; an interruption ends with exit code 8."""
    # a run, from its first import on, makes many values that live to its end and hardly a cycle, so frequent
    # collections cost time only
    gc.set_threshold(1_000_000, 50, 50)
    try:
        from provisioner.cli import main as command

        command()
    except KeyboardInterrupt:
        _stop()
    except RuntimeError as problem:
        # Python 3.11 raises this for an interruption in __set_name__, while it creates a class
        if not isinstance(problem.__cause__, KeyboardInterrupt):
            raise
        _stop()
    finally:
        # after an interruption inside exec (dataclasses use it), Python ends by the signal instead of the
        # exit code, unless exec has run again
        exec("")  # noqa: S102


def _stop() -> None:
    sys.stderr.write("\nStopped.\n")
    sys.exit(8)


if __name__ == "__main__":
    main()
