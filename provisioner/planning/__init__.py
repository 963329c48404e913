"""From two states to a plan: changes, steps in a legal order, letters, limits, and the plan's file.

``planner.make_plan`` compares the current state with the desired one: ``diff`` finds the changes and the
letters that they earn, ``steps`` the steps of each change, ``order`` an order in which every intermediate
state keeps the rules, ``guard`` the exceeded limits. ``planfile`` writes a plan and reads it again;
``plan_document`` has the types of its JSON, ``codec`` their text.

The package does no input or output, reads no clock, and knows neither portals nor manifests: the desired
state comes from ``provisioner.manifest.resolve``, and ``provisioner.operations.apply`` does the steps.

To add

- a step: its class and its effect in ``steps.py``, its request in ``portals/rest/requests.py`` and
  ``portals/scim/steps.py``, its route, body and handler in ``embedded/server/``, its checks in
  ``embedded/decide.py``, its sentence in ``render/describe.py``;
- a limit: a field of ``Limits`` in ``plan.py``, its check in ``guard.py``, its code in ``diagnostics.py``,
  its key in ``manifest/models.py``, its value in ``operations/pipeline.py``;
- a notice: a member of ``NoticeKind`` in ``model.py``, and the function that finds it: in
  ``manifest/resolve.py`` if it follows from the declarations, in ``planner.py`` if it follows from the
  changes; its heading in ``render/overview.py``.
"""
