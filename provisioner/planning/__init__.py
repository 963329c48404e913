"""The package that compares two states, makes a plan of the differences, and converts the plan to JSON.

``planner.make_plan`` compares the current state with the desired state. ``diff`` finds the changes and the
letters to send for them, ``steps`` splits each change into steps, ``order`` puts the steps in an order in
which every intermediate state respects the portal's rules, and ``guard`` reports exceeded safety limits.
``planfile`` converts a plan to the JSON text of a plan file and back. ``plan_document`` defines the types of
this JSON, and ``codec`` converts values of these types to and from text.

The package does no I/O, does not read the clock, and imports neither portals nor manifests:
``provisioner.manifest.resolve`` computes the desired state, and ``provisioner.operations.apply`` applies the
steps.

To add

- a step: add its class and effect to ``steps.py``, its request to ``portals/rest/requests.py`` and
  ``portals/scim/steps.py``, its route, body and handler to ``embedded/server/``, its checks to
  ``embedded/decide.py``, and its sentence to ``render/describe.py``;
- a limit: add a field to ``Limits`` in ``plan.py``, its check to ``guard.py``, its code to
  ``codes.py``, its key to ``manifest/models.py``, and its value to ``operations/pipeline.py``;
- a notice: add a member to ``NoticeKind`` in ``model.py``, a heading to ``render/overview.py``, and the
  function that finds the notice to ``manifest/resolve.py`` if the notice follows from the declarations, or
  to ``planner.py`` if it follows from the changes.
"""
