"""The command line: click, lazy imports, and the one place that catches.

``--version`` and ``--help`` load click alone; each command imports what it needs.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from provisioner import __version__
from provisioner.terminal.streams import install_resilient_streams

if TYPE_CHECKING:
    from provisioner.errors import ProvisionerError
    from provisioner.terminal.console import Console

USAGE = 64
"""click's own 2 would read as *changes present*."""

ANSWERED = (0, 2)
"""Exit codes that promise an answer on stdout."""

F = TypeVar("F", bound=Callable[..., Any])


def main() -> None:
    """The program: runs a command and ends with its exit code; errors are caught here and nowhere else."""
    import gc

    # a run makes many lasting values and hardly a cycle: looking for garbage often is time lost
    gc.set_threshold(1_000_000, 50, 50)
    # a polite end is Ctrl-C by another name: a sentence, a consistent ledger, exit code 8
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answer = install_resilient_streams()
    code = run(sys.argv[1:])
    # whatever comes now comes too late
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # a reader who has gone (| head) has read enough; an answer that a disk did not take is lost
    lost = answer.problem if answer is not None else None
    if lost is not None and not isinstance(lost, BrokenPipeError) and code in ANSWERED:
        _tell(f"Error: The answer could not be written: {lost.strerror}.", "Check where stdout goes.")
        code = 1
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """One command; returns its exit code. A problem is a sentence on stderr, never a traceback."""
    from provisioner.errors import Cancelled, ProvisionerError

    _arguments[:] = arguments
    try:
        result = cli.main(arguments, prog_name="provisioner", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as problem:
        click.echo(problem.format_message(), err=True)
        return USAGE
    except click.UsageError as problem:
        command = problem.ctx.command_path if problem.ctx else "provisioner"
        # click lists choices a line each, behind tabs
        message = problem.format_message().replace("\n\t", " ")
        _tell(f"Error: {message}", f"To see what it takes: {command} --help")
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        done = " (what is done stays done)" if {"apply", "mail"} & set(arguments) else ""
        _tell("\nStopped.", f"To finish: {_invocation(arguments)}{done}")
        return Cancelled.exit_code
    except Cancelled as problem:
        _tell(problem.sentence, problem.remedy)
        return problem.exit_code
    except ProvisionerError as problem:
        _report(problem)
        return problem.exit_code
    except RecursionError:
        _tell("Error: The input is nested too deeply.", "Simplify it.")
        return 1


def _invocation(arguments: list[str]) -> str:
    """The command as it was given, to be copied."""
    import shlex

    from provisioner.render.sanitize import printable

    return printable(shlex.join(["provisioner", *arguments]))


def _tell(sentence: str, remedy: str) -> None:
    from provisioner.render.sanitize import printable_lines

    stream = sys.stderr
    stream.write(f"{printable_lines(sentence)}\n")
    if remedy:
        stream.write(f"  {printable_lines(remedy)}\n")


def _report(problem: ProvisionerError) -> None:
    if problem.diagnostics:
        from provisioner.commands.report import show_problems
        from provisioner.errors import WorkspaceError
        from provisioner.workspace.files import find_workspace

        try:
            root = find_workspace(_folder())
        except WorkspaceError:
            root = _folder()
        show_problems(_console(), root, problem.diagnostics)
    _tell(f"Error: {problem.sentence}", problem.remedy)


_chdir = "."
_no_color = False
_arguments: list[str] = []


def _console(*, no_input: bool = False) -> Console:
    from provisioner.terminal.console import system_console

    return system_console(no_color=_no_color, no_input=no_input, invocation=_invocation(_arguments))


class _Command(click.Command):
    """A command to whose own help every wrong use of it points."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click's own, which forgets whose option had no value."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as problem:
            problem.ctx = problem.ctx or ctx
            raise


class _Ordered(click.Group):
    """Commands in the order in which a person meets them; each takes what all of them take."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        if not isinstance(cmd, click.Group):
            # people write it after the verb as well as before it
            cmd.params.append(
                click.Option(
                    ["--no-color", "-no-color"], is_flag=True, expose_value=False, callback=_without_colour,
                    help="No colour (NO_COLOR does the same).",
                )
            )  # fmt: skip
        super().add_command(cmd, name)


def _without_colour(_context: click.Context, _option: click.Parameter, chosen: bool) -> None:
    global _no_color
    _no_color = _no_color or chosen


@click.group(cls=_Ordered, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="provisioner %(version)s")
@click.option(
    "-C", "--chdir", "chdir", default=".", metavar="FOLDER", help="The workspace, or a folder in it."
)
@click.option("--no-color", "-no-color", "no_color", is_flag=True, help="No colour (NO_COLOR does the same).")
def cli(chdir: str, no_color: bool) -> None:
    """Client accesses to the portal, declared in YAML, planned and applied."""
    global _chdir, _no_color
    _chdir, _no_color = chdir, no_color


def _folder() -> Path:
    return Path(_chdir)


def _selecting(function: F) -> F:
    """``--target`` and ``--exclude``, as plan and apply take them."""
    for name, words in (
        ("exclude", "Leave this company or user out (company:NUMBER, user:E-MAIL); repeatable."),
        ("target", "Only this company, with its users, or this user; repeatable."),
    ):
        function = click.option(
            f"--{name}", f"-{name}", f"{name}s", multiple=True, metavar="ADDRESS", help=words
        )(function)
    return function


class _Whole(click.IntRange):
    """A number that counts."""

    name = "whole number"


class _Number(click.FloatRange):
    """A number with or without a fraction."""

    name = "number"


class _Seconds(_Number):
    """A span of time; what is no number is none."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click's own."""
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


_as_json = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")
_COUNT = _Whole(1, 1_000_000_000)
_lock_timeout = click.option(
    "--lock-timeout",
    "-lock-timeout",
    default=0.0,
    type=_Seconds(min=0),
    metavar="SECONDS",
    help="Wait this long for another run to end.",
)


@cli.command()
@click.argument("folder", required=False, default=None, type=click.Path(path_type=Path))
def init(folder: Path | None) -> int:
    """Make a first workspace in FOLDER (here, without one)."""
    from provisioner.commands.export import init as command

    return command(folder or _folder(), _console())


@cli.command()
@_as_json
def validate(as_json: bool) -> int:
    """Check the manifests, without asking the portal."""
    from provisioner.commands.validate import validate as command

    return command(_folder(), _console(), as_json=as_json)


@cli.command()
@_as_json
@_selecting
@click.option(
    "--markdown", "markdown", type=click.Path(path_type=Path), metavar="FILE", help="Also as Markdown."
)
@click.option(
    "--out", "-out", "out", type=click.Path(path_type=Path), metavar="FILE", help="Save it for apply."
)
@click.option(
    "--detailed-exitcode", "-detailed-exitcode", is_flag=True, help="Exit 2 when there are changes."
)
def plan(
    as_json: bool,
    targets: tuple[str, ...],
    excludes: tuple[str, ...],
    markdown: Path | None,
    out: Path | None,
    detailed_exitcode: bool,
) -> int:
    """Show what would change. Writes nothing to the portal."""
    from provisioner.commands.plan import Outputs
    from provisioner.commands.plan import plan as command
    from provisioner.operations.pipeline import Selection, parse_addresses

    return command(
        _folder(),
        _console(),
        outputs=Outputs(as_json, markdown, out),
        selection=Selection(parse_addresses(targets), parse_addresses(excludes)),
        detailed_exitcode=detailed_exitcode,
    )


@cli.command()
@click.argument("planfile", type=click.Path(path_type=Path))
@_as_json
@click.option(
    "--markdown", "markdown", type=click.Path(path_type=Path), metavar="FILE", help="Also as Markdown."
)
def show(planfile: Path, as_json: bool, markdown: Path | None) -> int:
    """Show a saved plan."""
    from provisioner.commands.plan import Outputs
    from provisioner.commands.plan import show as command

    return command(planfile, _console(), outputs=Outputs(as_json, markdown))


@cli.command()
@click.argument("planfile", required=False, default=None, type=click.Path(path_type=Path))
@_selecting
@click.option("--auto-approve", "-auto-approve", is_flag=True, help="Do not ask.")
@click.option("--input", "-input", "may_ask", type=bool, default=True, help="--input=false: never ask.")
@_lock_timeout
@click.option(
    "--parallelism",
    "-parallelism",
    default=10,
    show_default=True,
    type=_Whole(1, 100),
    metavar="N",
    help="Steps under way at once, on a portal that is reached over the network.",
)
def apply(
    planfile: Path | None,
    targets: tuple[str, ...],
    excludes: tuple[str, ...],
    auto_approve: bool,
    may_ask: bool,
    lock_timeout: float,
    parallelism: int,
) -> int:
    """Do what PLANFILE says; or plan, show, ask and do it."""
    from provisioner.commands.apply import apply as command
    from provisioner.operations.pipeline import Selection, parse_addresses

    return command(
        _folder(),
        planfile,
        _console(no_input=not may_ask),
        selection=Selection(parse_addresses(targets), parse_addresses(excludes)),
        auto_approve=auto_approve,
        lock_timeout=lock_timeout,
        parallelism=parallelism,
    )


@cli.command()
@click.argument("destination", metavar="FOLDER", type=click.Path(path_type=Path))
def export(destination: Path) -> int:
    """Write the portal as it is into FOLDER, as a workspace."""
    from provisioner.commands.export import export as command

    return command(_folder(), destination, _console())


@cli.command()
@click.argument("run_number", required=False, default=None, type=_COUNT, metavar="[RUN]")
@click.option("--most", default=20, type=_COUNT, metavar="N", show_default=True, help="How many runs.")
@_as_json
def history(run_number: int | None, most: int, as_json: bool) -> int:
    """Who applied what and when; or each step of one RUN."""
    from provisioner.commands.history import history as command

    return command(_folder(), run_number, _console(), most=most, as_json=as_json)


@cli.command()
@_as_json
def lock(as_json: bool) -> int:
    """Who holds the lock of the ledger, since when and until when."""
    from provisioner.commands.history import lock as command

    return command(_folder(), _console(), as_json=as_json)


@cli.command()
@click.argument("lock_id", required=False, default=None)
def unlock(lock_id: str | None) -> int:
    """Say who holds the lock; with LOCK_ID, take it away."""
    from provisioner.commands.history import unlock as command

    return command(_folder(), lock_id, _console())


@cli.command()
@click.argument("kind", type=click.Choice(["client", "provisioner"]))
def schema(kind: str) -> int:
    """The JSON Schema of client manifests, or of provisioner.yaml."""
    from provisioner.commands.export import schema as command

    return command(kind, _console())


@cli.group(cls=_Ordered)
def mail() -> None:
    """Welcome e-mails: preview, status, send, settle."""


@mail.command("preview")
@click.argument("subject", metavar="USER|PLANFILE")
@click.option(
    "--out", "-out", type=click.Path(path_type=Path), metavar="FOLDER", help="Write .eml and .html."
)
def mail_preview(subject: str, out: Path | None) -> int:
    """Show the e-mail of a declared user, or all those of a saved plan."""
    from provisioner.commands.mail import preview as command

    return command(_folder(), subject, _console(), out=out)


@mail.command("status")
@_as_json
def mail_status(as_json: bool) -> int:
    """How far each e-mail got."""
    from provisioner.commands.mail import status as command

    return command(_folder(), _console(), as_json=as_json)


@mail.command("send")
@click.argument("user", required=False, default=None)
@click.option("--again", is_flag=True, help="Even though one was sent already.")
@_lock_timeout
def mail_send(user: str | None, again: bool, lock_timeout: float) -> int:
    """Send what is owed, or the welcome of one USER.

    The latter is what the portal calls *Envoyer l'email de bienvenue*.
    """
    from provisioner.commands.mail import send as command

    return command(_folder(), user, _console(), again=again, lock_timeout=lock_timeout)


@mail.command("settle")
@click.argument("user")
@click.option(
    "--sent/--resend", "arrived", required=True, default=None, help="It arrived, or send it once more."
)
@_lock_timeout
def mail_settle(user: str, arrived: bool, lock_timeout: float) -> int:
    """Decide what became of an e-mail whose fate is unknown."""
    from provisioner.commands.mail import settle as command

    return command(_folder(), user, _console(), arrived=arrived, lock_timeout=lock_timeout)


@cli.group(cls=_Ordered)
def portal() -> None:
    """The embedded portal's other writers: staff, clients, users."""


@portal.command("users")
@_as_json
def portal_users(as_json: bool) -> int:
    """Who is on the portal."""
    from provisioner.commands.portal import users as command

    return command(_folder(), _console(), as_json=as_json)


@portal.command("configure")
def portal_configure() -> int:
    """Take catalogue, domains and staff from provisioner.yaml."""
    from provisioner.commands.portal import configure as command

    return command(_folder(), _console())


def _staff_command(verb: str, words: str) -> None:
    @portal.command(verb, help=words)
    @click.argument("email")
    def act(email: str) -> int:
        from provisioner.commands.portal import staff as command

        return command(_folder(), verb, email, _console())


_staff_command("close", "The firm's staff closes a user by hand.")
_staff_command("reopen", "The firm's staff reopens a user by hand (R8).")
_staff_command("validate", "The firm's staff validates a user by hand (R7).")


@portal.command("client-creates")
@click.argument("administrator")
@click.argument("email")
@click.argument("first_name")
@click.argument("last_name")
def portal_client_creates(administrator: str, email: str, first_name: str, last_name: str) -> int:
    """A client's ADMINISTRATOR creates a user.

    The new user awaits validation (R11).
    """
    from provisioner.commands.portal import client_creates as command

    return command(_folder(), administrator, email, first_name, last_name, _console())


@portal.command("user-changes")
@click.argument("email")
@click.option("--email", "new_email", help="His new e-mail.")
@click.option("--phone", "new_phone", help="His new phone; empty for none.")
def portal_user_changes(email: str, new_email: str | None, new_phone: str | None) -> int:
    """A user changes his own e-mail or phone (*Mon compte*)."""
    from provisioner.commands.portal import user_changes as command

    return command(_folder(), email, _console(), new_email=new_email, new_phone=new_phone)


@portal.command("requests-app")
@click.argument("email")
@click.argument("app")
def portal_requests_app(email: str, app: str) -> int:
    """A user asks for an application in the Store (R10)."""
    from provisioner.commands.portal import requests_app as command

    return command(_folder(), email, app, _console())


@portal.command("activate")
@click.argument("link")
def portal_activate(link: str) -> int:
    """Follow the LINK of a welcome e-mail."""
    from provisioner.commands.portal import activate as command

    return command(_folder(), link, _console())


_database = click.option(
    "--url", metavar="URL", help="The portal's database; that of the workspace here, without one."
)


@cli.command()
@_database
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The address to listen at."
)
@click.option(
    "--port", default=8080, show_default=True, type=_Whole(0, 65535), metavar="N", help="0: any that is free."
)
@click.option(
    "--certificate", type=click.Path(path_type=Path), metavar="FILE", help="Speak TLS, with this PEM file."
)
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="The certificate's key.")
@click.option("--behind-proxy", is_flag=True, help="A proxy before it speaks TLS and says who asks.")
@click.option("--public-url", metavar="URL", help="What activation links begin with.")
@click.option(
    "--rate",
    default=2000,
    show_default=True,
    type=_Number(min=0.1),
    metavar="N",
    help="Requests a second from one client.",
)
@click.option(
    "--failed-logins",
    default=30,
    show_default=True,
    type=_Number(min=1),
    metavar="N",
    help="Failed log-ins a minute from one address.",
)
@click.option(
    "--token-seconds", default=900, show_default=True, type=_Whole(1, 86400), metavar="N",
    help="How long an access token lasts.",
)  # fmt: skip
def serve(
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
    from provisioner.commands.serve import Allowed, Listening
    from provisioner.commands.serve import serve as command

    return command(
        _folder(),
        _console(),
        url=url,
        listening=Listening(host, port, certificate, key, behind_proxy),
        allowed=Allowed(rate, token_seconds, failed_logins),
        public_url=public_url,
    )


@cli.group(cls=_Ordered)
def client() -> None:
    """Who may log in to the served portal: add, list, disable."""


@client.command("add")
@click.argument("name")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["administrator", "partner", "customer_manager", "collaborator"]),
    help="Whose rights it has.",
)
@click.option("--read-only", is_flag=True, help="It may read, as plan does, and write nothing.")
@_database
@_as_json
def client_add(name: str, role: str, read_only: bool, url: str | None, as_json: bool) -> int:
    """Make a client; its secret is shown once, for the shell to eval."""
    from provisioner.commands.api_client import add as command

    return command(_folder(), name, role, _console(), url=url, read_only=read_only, as_json=as_json)


@client.command("list")
@_database
@_as_json
def client_list(url: str | None, as_json: bool) -> int:
    """Who may log in."""
    from provisioner.commands.api_client import everyone as command

    return command(_folder(), _console(), url=url, as_json=as_json)


@client.command("disable")
@click.argument("name")
@_database
def client_disable(name: str, url: str | None) -> int:
    """Shut a client out, at once; NAME or id."""
    from provisioner.commands.api_client import disable as command

    return command(_folder(), name, _console(), url=url)
