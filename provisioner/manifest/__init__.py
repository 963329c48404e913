"""The manifests: pydantic models, checks, the desired state, and the export of a portal as manifests.

``load`` turns the documents that ``yaml_source`` parses into declarations. ``check`` checks the declarations.
``resolve`` computes the desired state from the declarations and the portal's state. The package does not read
files, call a portal or make a plan.

To add a field, edit ``models``; for a field of users, edit also ``declared``, ``load`` and ``resolve``. Then
run ``UPDATE_GOLDEN=1 pytest tests/unit/test_schema.py``, which writes ``schemas/``.
To add a value type, add its function to ``fields`` or ``urls`` and its annotated type to ``normalizers``.
To add a check, add a function to ``check`` and to ``CHECKS``. To add a rule, edit ``provisioner.rules``.
"""
