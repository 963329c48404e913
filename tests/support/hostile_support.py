"""Hostile texts for a YAML reader, each with the code of the expected problem.

Run as a program, this module reads and validates each text in its own process, with limits for memory and
processor time. Then it prints a report on all texts.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

MEBIBYTE = 1024 * 1024
MEMORY = 512 * MEBIBYTE
"""The maximum address space of a child process in bytes, including the interpreter and the libraries."""

PROCESSOR = 20
"""The maximum processor time of a child process in seconds. Each child process needs less than one second."""


def _fill(unit: str, size: int = MEBIBYTE) -> bytes:
    encoded = unit.encode()
    return encoded * (size // len(encoded))


def _laughs() -> bytes:
    lines = ["a0: &a0 [ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines).encode()


def _noise() -> bytes:
    return random.Random(1).randbytes(MEBIBYTE)


BOMBS: dict[str, tuple[bytes, str]] = {
    "a billion laughs": (_laughs(), "yaml-unsafe"),
    "one long value aliased often": (
        b"a: &a " + b"x" * 60_000 + b"\nb: [" + b"*a, " * 50_000 + b"]",
        "yaml-limit",
    ),
    "an anchor inside itself": (b"&a [*a, *a]", "yaml-unsafe"),
    "many anchors": (b"".join(b"- &a%d x\n" % n for n in range(60_000)), "yaml-limit"),
    "many merge keys": (b"a: {" + b"<<: {a: b}, " * 60_000 + b"}", "yaml-limit"),
    "lists in lists": (_fill("[", 200_000), "yaml-limit"),
    "lists in lists to the last byte": (_fill("["), "yaml-limit"),
    "mappings in mappings": (_fill("{"), "yaml-limit"),
    "mappings as keys of mappings": (_fill("{? "), "yaml-limit"),
    "lists and mappings in turn": (_fill("[{a: "), "yaml-limit"),
    "dashes in one line": (_fill("- "), "yaml-limit"),
    "question marks in one line": (_fill("? "), "yaml-limit"),
    "keys that sink deeper with each line": (
        b"".join(b" " * n + b"a:\n" for n in range(1_400)),
        "yaml-limit",
    ),
    "values without end": (b"[" + _fill("a,", MEBIBYTE - 2), "yaml-limit"),
    "empty keys without end": (_fill("?\n"), "yaml-limit"),
    "keys without end": (b"".join(b"%d:\n" % n for n in range(120_000)), "yaml-limit"),
    "one key again and again": (_fill("a: b\n"), "yaml-limit"),
    "one key again and again in one line": (b"{" + _fill("a: b, ", MEBIBYTE - 2) + b"}", "yaml-limit"),
    "one byte too many": (b"a" * (MEBIBYTE + 1), "yaml-limit"),
    "a gigantic plain value": (_fill("a"), "yaml-limit"),
    "a gigantic value of many lines": (b"a:\n" + _fill(" b\n", MEBIBYTE - 6), "yaml-limit"),
    "a gigantic value of escapes": (b'"' + _fill("\\U0001F600", MEBIBYTE - 2) + b'"', "yaml-limit"),
    "a quote that never closes": (b"'" + _fill("a\n", MEBIBYTE - 2), "yaml-syntax"),
    "quotes without end": (_fill("''"), "yaml-limit"),
    "a block of nothing": (b"a: |+\n" + _fill("\n", MEBIBYTE - 6), "yaml-limit"),
    "one line of spaces": (b"a:" + _fill(" ", MEBIBYTE - 3) + b"[", "yaml-syntax"),
    "one line of tabs": (_fill("\t", MEBIBYTE - 1) + b"[", "yaml-syntax"),
    "tabs and a value": (_fill("\t", MEBIBYTE - 9) + b"a: b", "yaml-syntax"),
    "colons without end": (_fill(": "), "yaml-syntax"),
    "colons in colons": (_fill("a: "), "yaml-syntax"),
    "commas without end": (b"[" + _fill(",", MEBIBYTE - 1), "yaml-syntax"),
    "a key of a megabyte": (_fill("k", MEBIBYTE - 3) + b": v", "yaml-syntax"),
    "an anchor of a megabyte": (b"&" + _fill("a", MEBIBYTE - 3) + b" v", "yaml-unsafe"),
    "a tag of a megabyte": (b"!<" + _fill("%41", MEBIBYTE - 8) + b"> v", "yaml-unsafe"),
    "a tag that is no Unicode": (b"a: !<%ED%A0%80> b", "yaml-syntax"),
    "a tag that runs a program": (b"!!python/object/apply:os.system ['true']", "yaml-unsafe"),
    "an escape beyond Unicode": (b'"\\U7fffffff"', "yaml-syntax"),
    "half a character in an escape": (b'"\\uD800"', "yaml-syntax"),
    "documents without end": (_fill("---\n"), "yaml-unsafe"),
    "directives without end": (b"".join(b"%%TAG !%d! x\n" % n for n in range(60_000)), "yaml-limit"),
    "directives of a second document": (
        b"a\n...\n" + b"".join(b"%%TAG !%d! x\n" % n for n in range(60_000)),
        "yaml-limit",
    ),
    "a version of a megabyte": (b"%YAML 1." + _fill("9", MEBIBYTE - 20) + b"\n---\na", "yaml-unsafe"),
    "zero bytes": (_fill("\0"), "file-encoding"),
    "zero bytes after a letter": (b"ab" + _fill("\0", MEBIBYTE - 2), "yaml-limit"),
    "text turned round": (_fill("\u202e"), "yaml-limit"),
    "byte-order marks": (_fill("\ufeff"), "yaml-limit"),
    "bare carriage returns": (_fill("a: b\r"), "yaml-limit"),
    "noise": (_noise(), "file-encoding"),
    "UTF-16": ("a: b\n".encode("utf-16") * 50_000, "file-encoding"),
    "UTF-32": ("a: b\n".encode("utf-32") * 40_000, "file-encoding"),
    "half characters": (b"a: " + b"\xed\xa0\x80" * 300_000, "file-encoding"),
}


def _report(report_on: Callable[[bytes], Any], content: bytes, reading: int, writing: int) -> NoReturn:
    """Write the report on ``content`` to the pipe ``writing``, and exit. Runs in the child process."""
    status = 1
    try:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR, PROCESSOR))
        with os.fdopen(writing, "w") as pipe:
            json.dump(report_on(content), pipe)
        status = 0
    except BaseException:  # noqa: BLE001  # otherwise the child would continue as the parent
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    """Print a JSON object that maps the name of each hostile text to the report on this text."""
    # imported once, before the fork
    from provisioner.manifest.models import ClientManifest
    from provisioner.manifest.validate import read_model
    from provisioner.yaml_source.document import read_document

    def report_on(content: bytes) -> dict[str, Any]:
        document, problems = read_document("bomb.yaml", content)
        if document is not None:
            problems.extend(read_model(ClientManifest, document).problems)
        return {
            "codes": [problem.code for problem in problems],
            "sentences": [problem.detail for problem in problems],
        }

    reports: dict[str, Any] = {}
    for name, (content, expected) in BOMBS.items():
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            _report(report_on, content, reading, writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        _, ended = os.waitpid(child, 0)
        reports[name] = {"expected": expected, **(json.loads(said) if ended == 0 else {"ended": ended})}
    json.dump(reports, sys.stdout)


if __name__ == "__main__":
    main()
