"""The manifests: pydantic models, checks, the desired state, and the export of a portal as manifests.

The package turns the documents that ``yaml_source`` parses into declarations (``load``), checks them
(``check``), and computes the desired state from them and the portal's state (``resolve``). It does not read
files, call a portal or make a plan.

To add a field, edit ``models``; for a field of users, edit also ``declared``, ``load`` and ``resolve``. Then
run ``UPDATE_GOLDEN=1 pytest tests/test_schema.py``, which writes ``schemas/``.
To add a value type, add its function to ``fields`` or ``urls`` and its annotated type to ``normalizers``.
To add a check, add a function to ``check`` and to its ``CHECKS``. To add a rule, edit ``provisioner.rules``.
"""
