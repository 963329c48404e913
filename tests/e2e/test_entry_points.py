"""Drivers from other packages: how they are found, and the sentence for each way in which that can fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from manifest_support import SETTINGS, make_workspace
from manifest_support import manifest as client_manifest
from package_support import install
from shell_support import Shell

from provisioner.errors import MailError, PortalError
from provisioner.mail.transport import TransportOptions, open_transport, transport_for
from provisioner.portals.registry import PORTALS, driver_for

PORTAL = """\
from provisioner.portal import PortalDriver

def open_portal(access):
    raise SystemExit(f"opened {access.url}")

driver = PortalDriver(open_portal, activation_links=False)
"""
ENTRY = "[provisioner.portals]\ncrm = {module}:driver\n"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder on ``sys.path`` for packages. The modules imported from it are forgotten afterwards."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", "") or "").startswith(str(folder)):
            del sys.modules[name]


def refusal(url: str) -> tuple[str, str]:
    with pytest.raises(PortalError) as refused:
        driver_for(url)
    return refused.value.sentence, refused.value.remedy


def test_driver_of_another_package_is_found_by_its_scheme(packages: Path) -> None:
    install(packages, "crm-driver", PORTAL, ENTRY.format(module="crm_driver"))
    driver = driver_for("crm://portal.example.fr")
    assert not driver.activation_links
    with pytest.raises(SystemExit, match="opened x"):
        driver.open(type("Access", (), {"url": "x"})())


def test_package_does_not_replace_a_built_in_driver(packages: Path) -> None:
    install(packages, "crm-driver", PORTAL, "[provisioner.portals]\nhttps = crm_driver:driver\n")
    assert driver_for("https://portal.example.fr") is PORTALS["https"]
    assert "crm_driver" not in sys.modules


def test_unknown_scheme_names_the_schemes_and_how_to_install(packages: Path) -> None:
    install(packages, "crm-driver", PORTAL, ENTRY.format(module="crm_driver"))
    sentence, remedy = refusal("crn://secret@portal.example.fr")
    assert sentence == (
        'No driver is installed for crn:// URLs. Did you mean "crm"? There are drivers for: sqlite, '
        "postgresql, https, http, scim+https, scim+http, crm."
    )
    assert remedy.endswith(f"{sys.executable} -m pip install PACKAGE")
    assert "secret" not in sentence + remedy


def test_two_packages_for_one_scheme_are_refused(packages: Path) -> None:
    for name in ("crm-driver", "other-crm"):
        install(packages, name, PORTAL, ENTRY.format(module=name.replace("-", "_")))
    sentence, remedy = refusal("crm://x")
    assert sentence == "More than one installed package has a driver for crm:// URLs: crm-driver, other-crm."
    assert remedy == f"Keep one of them:\n    {sys.executable} -m pip uninstall other-crm"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import requests_of_the_crm\n", "ModuleNotFoundError: No module named 'requests_of_the_crm'."),
        ("1/0\n", "ZeroDivisionError: division by zero."),
        ("def driver(:\n", "SyntaxError: "),
        ("drivers = 1\n", "AttributeError: "),
    ],
)
def test_driver_that_cannot_be_loaded_names_its_package(packages: Path, source: str, words: str) -> None:
    install(packages, "crm-driver", source, ENTRY.format(module="crm_driver"))
    sentence, remedy = refusal("crm://x")
    assert sentence.startswith("The driver for crm:// URLs in the package crm-driver cannot be loaded: ")
    assert words in sentence
    assert remedy.endswith(f"{sys.executable} -m pip install --upgrade crm-driver")


def test_entry_point_of_another_type_names_its_package(packages: Path) -> None:
    install(packages, "crm-driver", "def driver(access): ...\n", ENTRY.format(module="crm_driver"))
    assert refusal("crm://x")[0] == (
        "The driver for crm:// URLs in the package crm-driver cannot be used: crm_driver:driver is of type "
        "function instead of provisioner.portal.PortalDriver."
    )


def test_transport_of_another_package_is_found_by_its_scheme(packages: Path) -> None:
    source = (
        "from provisioner.mail.transport import TransportDriver\n"
        "driver = TransportDriver(lambda url, options: (url, options.username))\n"
    )
    install(packages, "ses-driver", source, "[provisioner.transports]\nses = ses_driver:driver\n")
    options = TransportOptions(packages, username="acces")
    made: object = open_transport("ses://eu-west-3", options)
    assert made == ("ses://eu-west-3", "acces")
    with pytest.raises(
        MailError, match=r"sess:// URLs.* Did you mean \"ses\"\?.*: maildir, smtp, smtps, ses"
    ):
        transport_for("sess://x")


# --- in the program ---

OUTSIDE = SETTINGS.replace("mail: {", 'portal: {url: "crm://x"}\nmail: {transport: "ses://y", ')


def test_validate_warns_of_a_driver_that_is_missing_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Manifests can be validated where the driver is not installed, such as in CI."""
    shell = Shell(make_workspace(tmp_path, client_manifest(), settings=OUTSIDE), capsys)
    found = shell("validate", "--json")
    assert found.code == 0
    problems = json.loads(found.out)
    assert [(found["severity"], found["code"], found["range"]["start"]["line"]) for found in problems] == [
        ("warning", "no-driver", 8),
        ("warning", "no-driver", 9),
    ]
    refused = shell("plan")
    assert refused.code == 1
    assert problems[0]["detail"] in refused.err.replace("\n", " ")


def test_installed_packages_are_searched_only_for_an_outside_driver(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With built-in drivers, start-up does not wait for a search of all installed packages."""
    searched: list[str] = []
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **words: searched.append(str(words)))
    assert shell("validate").code == 0
    assert shell("apply", "--auto-approve").code == 0
    assert searched == []
