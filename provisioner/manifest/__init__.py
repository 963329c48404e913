"""The manifests: pydantic models, checks, the desired state, and the export of a portal as manifests.

The package turns documents of ``yaml_source`` into declarations (``load``), checks them (``check``), and
resolves them against the portal's state (``resolve``). It does not read files, ask a portal or make a plan.

To add a field, edit ``models``, and for a field of users also ``declared``, ``load`` and ``resolve``. Then
run ``UPDATE_GOLDEN=1 pytest tests/test_schema.py``, which writes ``schemas/``.
To add a kind of value, add its function to ``fields`` or ``urls`` and its type to ``normalizers``.
To add a check, write a function in ``check`` and add it to ``CHECKS``. A rule over a state goes to ``rules``.
"""
