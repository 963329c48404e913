"""The commands on a portal: list it, play its other writers, serve it, and manage its API clients."""

from __future__ import annotations

from pathlib import Path

import click

from provisioner.commands.options import (
    FILE,
    Command,
    Group,
    Invocation,
    Number,
    WholeNumber,
    json_option,
    pass_invocation,
)

CHANGES = "This changes the portal at once, without asking."


@click.group(cls=Group)
def portal() -> None:
    """The portal itself: users, configure."""


@portal.command("users")
@json_option
@pass_invocation
def portal_users(invocation: Invocation, as_json: bool) -> int:
    """Who is on the portal."""
    from provisioner.commands.portal import users as command

    return command(invocation.folder, invocation.console(), as_json=as_json)


@portal.command("configure")
@pass_invocation
def portal_configure(invocation: Invocation) -> int:
    """Take catalogue, domains and staff from provisioner.yaml."""
    from provisioner.commands.portal import configure as command

    return command(invocation.folder, invocation.console())


@click.group(cls=Group)
def simulate() -> None:
    """Play the other writers of the embedded portal. Not for provisioning."""


def _staff_command(verb: str, words: str) -> None:
    @simulate.command(verb, help=f"{words}\n\n{CHANGES}")
    @click.argument("email")
    @pass_invocation
    def act(invocation: Invocation, email: str) -> int:
        from provisioner.commands.simulate import staff as command

        return command(invocation.folder, verb, email, invocation.console())


_staff_command("close", "The firm's staff closes a user by hand.")
_staff_command("reopen", "The firm's staff reopens a user by hand (R8).")
_staff_command("validate", "The firm's staff validates a user by hand (R7).")


@simulate.command("client-creates")
@click.argument("administrator")
@click.argument("email")
@click.argument("first_name")
@click.argument("last_name")
@pass_invocation
def simulate_client_creates(
    invocation: Invocation, administrator: str, email: str, first_name: str, last_name: str
) -> int:
    """A client's ADMINISTRATOR creates a user.

    The new user awaits validation (R11). This changes the portal at once, without asking.
    """
    from provisioner.commands.simulate import client_creates as command

    return command(invocation.folder, administrator, email, first_name, last_name, invocation.console())


@simulate.command("user-changes")
@click.argument("email")
@click.option("--email", "new_email", help="The new e-mail.")
@click.option("--phone", "new_phone", help="The new phone; empty for none.")
@pass_invocation
def simulate_user_changes(
    invocation: Invocation, email: str, new_email: str | None, new_phone: str | None
) -> int:
    """A user changes their own e-mail or phone (*Mon compte*).

    This changes the portal at once, without asking.
    """
    from provisioner.commands.simulate import user_changes as command

    return command(invocation.folder, email, invocation.console(), new_email=new_email, new_phone=new_phone)


@simulate.command("requests-app")
@click.argument("email")
@click.argument("app")
@pass_invocation
def simulate_requests_app(invocation: Invocation, email: str, app: str) -> int:
    """A user asks for an application in the Store (R10).

    This changes the portal at once, without asking.
    """
    from provisioner.commands.simulate import requests_app as command

    return command(invocation.folder, email, app, invocation.console())


@simulate.command("activate")
@click.argument("link")
@pass_invocation
def simulate_activate(invocation: Invocation, link: str) -> int:
    """Follow the LINK of a welcome e-mail.

    This changes the portal at once, without asking.
    """
    from provisioner.commands.simulate import activate as command

    return command(invocation.folder, link, invocation.console())


_database = click.option(
    "--url", metavar="URL", help="The portal's database; that of the workspace here, without one."
)


@click.command(cls=Command)
@_database
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The address to listen at."
)
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=WholeNumber(0, 65535),
    metavar="N",
    help="0: any that is free.",
)
@click.option("--certificate", type=FILE, metavar="FILE", help="Speak TLS, with this PEM file.")
@click.option("--key", type=FILE, metavar="FILE", help="The certificate's key.")
@click.option("--behind-proxy", is_flag=True, help="A proxy before it speaks TLS and says who asks.")
@click.option("--public-url", metavar="URL", help="What activation links begin with.")
@click.option(
    "--rate",
    default=2000,
    show_default=True,
    type=Number(min=0.1),
    metavar="N",
    help="Requests a second from one client.",
)
@click.option(
    "--failed-logins",
    default=30,
    show_default=True,
    type=Number(min=1),
    metavar="N",
    help="Failed log-ins a minute from one address.",
)
@click.option(
    "--token-seconds", default=900, show_default=True, type=WholeNumber(1, 86400), metavar="N",
    help="How long an access token lasts.",
)  # fmt: skip
@pass_invocation
def serve(
    invocation: Invocation,
    url: str | None,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    behind_proxy: bool,
    public_url: str | None,
    rate: float,
    failed_logins: float,
    token_seconds: int,
) -> int:
    """Serve the embedded portal over HTTP."""
    from provisioner.commands.serve import serve as command
    from provisioner.operations.serve import Allowed, Listening

    return command(
        invocation.folder,
        invocation.console(),
        url=url,
        listening=Listening(host, port, certificate, key, behind_proxy),
        allowed=Allowed(rate, token_seconds, failed_logins),
        public_url=public_url,
    )


@click.group("api-client", cls=Group)
def api_client() -> None:
    """Who may log in to the served portal: add, list, disable."""


@api_client.command("add")
@click.argument("name")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["administrator", "partner", "customer_manager", "collaborator"]),
    help="Whose rights it has.",
)
@click.option("--read-only", is_flag=True, help="It may read, as plan does, and write nothing.")
@_database
@json_option
@pass_invocation
def api_client_add(
    invocation: Invocation, name: str, role: str, read_only: bool, url: str | None, as_json: bool
) -> int:
    """Make a client; its secret is shown once, for the shell to eval."""
    from provisioner.commands.api_client import add as command

    return command(
        invocation.folder, name, role, invocation.console(), url=url, read_only=read_only, as_json=as_json
    )


@api_client.command("list")
@_database
@json_option
@pass_invocation
def api_client_list(invocation: Invocation, url: str | None, as_json: bool) -> int:
    """Who may log in."""
    from provisioner.commands.api_client import everyone as command

    return command(invocation.folder, invocation.console(), url=url, as_json=as_json)


@api_client.command("disable")
@click.argument("name")
@_database
@pass_invocation
def api_client_disable(invocation: Invocation, name: str, url: str | None) -> int:
    """Shut a client out, at once; NAME or id."""
    from provisioner.commands.api_client import disable as command

    return command(invocation.folder, name, invocation.console(), url=url)
