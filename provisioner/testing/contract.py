"""The contract of portal drivers: the promises of :class:`~provisioner.portal.Portal` as a class of tests."""

from __future__ import annotations

from provisioner.testing.plan_promises import PlanPromises
from provisioner.testing.run_promises import RunPromises
from provisioner.testing.step_promises import StepPromises


class PortalContract(StepPromises, RunPromises, PlanPromises):
    """The promises of a driver. A subclass whose name begins with ``Test`` tests one driver."""

    def __init_subclass__(cls) -> None:
        """Leave out the promises that need a feature which the driver does not have."""
        super().__init_subclass__()
        for name in dir(PortalContract):
            promise = getattr(PortalContract, name)
            needed: frozenset[str] = getattr(promise, "needs", frozenset())
            if name in vars(cls):
                continue
            if not needed <= cls.features:
                # pytest ignores an attribute that is None
                setattr(cls, name, None)
            elif not needed <= super(cls, cls).features:
                setattr(cls, name, promise)
