"""The program, by its name or as ``python -m provisioner``: ready for Ctrl-C before anything is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """See :func:`provisioner.cli.main`."""
    try:
        from provisioner.cli import main as command

        command()
    except KeyboardInterrupt:
        _stop()
    except RuntimeError as problem:
        # Python 3.11 makes this of an interruption while it makes a class
        if not isinstance(problem.__cause__, KeyboardInterrupt):
            raise
        _stop()
    finally:
        # after an interruption in code that was text (a dataclass is made so), handled or not, Python ends by
        # that signal, unless it has run such code again: the exit code is to be ours
        exec("")  # noqa: S102


def _stop() -> None:
    sys.stderr.write("\nStopped.\n")
    sys.exit(8)


if __name__ == "__main__":
    main()
