"""The contract of portal drivers, run on the installed package."""

from provisioner.testing import COUNTED, CREATING, READING, VERSIONS, PortalContract


class TestJsonFile(PortalContract):
    url = "jsonfile:///portal.json"
    features = frozenset({VERSIONS, COUNTED, READING, CREATING})
