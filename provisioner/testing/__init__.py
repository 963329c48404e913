"""The contracts of portal drivers and mail transports, for those in this repository and in other packages.

The extra ``testing`` installs what the contracts need: pytest and Hypothesis. A package with a driver tests
the driver with one module::

    from provisioner.testing import VERSIONS, PortalContract


    class TestCrm(PortalContract):
        url = "crm://portal"
        features = frozenset({VERSIONS})

``pytest`` then runs each promise of :class:`provisioner.portal.Portal` that a driver with these features
makes. Each test gets an empty portal: by default the portal at ``url``, which is opened through the entry
point of the package with a temporary folder as the workspace. If that does not suit, such as for a portal on
a server, override :meth:`~provisioner.testing.world.Promises.make_world`. The features are the constants of
:mod:`provisioner.testing.world`. If :class:`~provisioner.portal.Capabilities` has an attribute for a feature,
the attribute must be True if ``features`` contains the feature, otherwise False. The features in
``EVERYTHING`` are those of the reference portal, ``reference_portal.MemoryPortal``, with which the contract
compares a driver that enforces the rules and counts versions.

A driver reports what its portal cannot store as diagnostics of ``project``. If provisioner has no
code for a problem, the driver uses its own code, which begins with the scheme of its URLs, and gives the
diagnostic a ``driver_summary``. The driver itself always writes the sentences of refused steps
(``Receipt.problem``) and of errors (:class:`~provisioner.errors.PortalError`).

A transport is tested in the same way with a subclass of ``TransportContract``, whose ``make_mailbox`` yields
the transport and a function that returns the letters that have arrived.

Nothing else in provisioner imports this package. To add a promise, write a test in ``step_promises``,
``run_promises`` or ``plan_promises``, and mark it with the features that it needs. The promises of transports
are in ``transport_contract``.
"""

import pytest

pytest.register_assert_rewrite(
    "provisioner.testing.world",
    "provisioner.testing.step_promises",
    "provisioner.testing.run_promises",
    "provisioner.testing.plan_promises",
    "provisioner.testing.transport_contract",
)

from provisioner.testing.contract import PortalContract  # noqa: E402 - rewritten while they are imported
from provisioner.testing.transport_contract import Mailbox, TransportContract  # noqa: E402
from provisioner.testing.world import (  # noqa: E402
    CLAIMS,
    COUNTED,
    CREATING,
    EVERYTHING,
    LEASES,
    LINKS,
    MONTHS,
    OTHERS,
    READING,
    RECEIPTS,
    RIGHTS,
    RULES,
    VERSIONS,
    WHOLE,
    World,
)

__all__ = [
    "CLAIMS",
    "COUNTED",
    "CREATING",
    "EVERYTHING",
    "LEASES",
    "LINKS",
    "MONTHS",
    "OTHERS",
    "READING",
    "RECEIPTS",
    "RIGHTS",
    "RULES",
    "VERSIONS",
    "WHOLE",
    "Mailbox",
    "PortalContract",
    "TransportContract",
    "World",
]
