"""Fuzzes the reading and validation of manifests with inputs derived from the samples.

    python tests/generative/fuzz_documents.py RUNS CORPUS

CORPUS is an empty folder. An input that fails is printed and saved in the current folder as ``crash-…``. The
exit code is then 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["provisioner.manifest", "provisioner.yaml_source"]):
    from provisioner.codes import CODES
    from provisioner.manifest.models import MODELS
    from provisioner.manifest.validate import read_model
    from provisioner.yaml_source.document import read_document


def read(content: bytes) -> None:
    """Assert that reading and validating ``content`` returns data or diagnostics."""
    document, problems = read_document("fuzz.yaml", content)
    assert document is not None or problems
    if document is not None:
        for model in MODELS.values():
            problems.extend(read_model(model, document).problems)
    assert all(problem.code in CODES and problem.detail for problem in problems)


def main(runs: str, corpus: str) -> None:
    """Run the fuzzer with ``runs`` inputs. ``corpus`` is an empty folder for the inputs."""
    samples = Path(__file__).resolve().parents[2] / "samples"
    for number, path in enumerate(sorted(samples.rglob("*.yaml"))):
        Path(corpus, str(number)).write_bytes(path.read_bytes())
    atheris.Setup([sys.argv[0], f"-runs={runs}", "-seed=1", "-max_len=4096", corpus], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
