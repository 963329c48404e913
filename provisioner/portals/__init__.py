"""The drivers, through which provisioner accesses portals: one package or module per kind of portal.

``registry`` maps the scheme of ``portal.url`` to a driver. A driver implements
:class:`provisioner.portal.Portal`, translates its library's exceptions into
:class:`~provisioner.errors.PortalError`, and decides nothing about plans.

To add a driver: write a module or package here, add its scheme to ``registry.PORTALS``, and run the contract
tests on it. A driver can also be in another package, which declares it as an entry point: see
:mod:`provisioner.entry_points`.
"""
