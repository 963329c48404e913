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
            needed: frozenset[str] = getattr(getattr(PortalContract, name), "needs", frozenset())
            if name not in vars(cls) and needed:
                # pytest ignores an attribute that is None
                setattr(cls, name, getattr(PortalContract, name) if needed <= cls.features else None)
