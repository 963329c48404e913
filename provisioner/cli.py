"""The entry point: runs one command and maps errors to exit codes; declares the commands on a workspace.

``--version`` and ``--help`` load click alone; each command imports what it needs. To add a command, declare
it here, or in :mod:`provisioner.commands.portal_cli` if it concerns the portal, and write its module in
:mod:`provisioner.commands`.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provisioner import __version__
from provisioner.commands.options import (
    COUNT,
    FILE,
    Group,
    Invocation,
    WholeNumber,
    json_option,
    lock_timeout_option,
    pass_invocation,
    selection_options,
    terraform_option,
)
from provisioner.commands.portal_cli import api_client, portal, serve, simulate
from provisioner.terminal.streams import install_resilient_streams

if TYPE_CHECKING:
    from provisioner.errors import ProvisionerError

USAGE = 64
"""The exit code of a usage error; click's own 2 means that changes are present."""

WITH_ANSWER = (0, 2)
"""Exit codes after which stdout has the complete answer."""


def main() -> None:
    """Run the command of ``sys.argv`` and end the process with its exit code."""
    import gc

    # a run makes many values that live to its end and hardly a cycle, so frequent collections cost time only
    gc.set_threshold(1_000_000, 50, 50)
    # SIGTERM ends a run like Ctrl-C: a sentence, a consistent ledger, exit code 8
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answer = install_resilient_streams()
    code = run(sys.argv[1:])
    # the command has ended: a signal that arrives now must not change its exit code
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # a reader that closed the pipe (| head) is no error; an answer that the disk did not take is one
    lost = answer.problem if answer is not None else None
    if lost is not None and not isinstance(lost, BrokenPipeError) and code in WITH_ANSWER:
        _say(f"Error: The answer could not be written: {lost.strerror}.", "Check where stdout goes.")
        code = 1
    # or else the interpreter's last collection would visit every value of the run
    gc.freeze()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code. Errors become a sentence on stderr, never a traceback."""
    from provisioner.errors import Cancelled, ProvisionerError

    invocation = Invocation(arguments)
    try:
        result = cli.main(arguments, prog_name="provisioner", standalone_mode=False, obj=invocation)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as problem:
        click.echo(problem.format_message(), err=True)
        return USAGE
    except click.UsageError as problem:
        command = problem.ctx.command_path if problem.ctx else "provisioner"
        # click lists choices a line each, behind tabs
        message = problem.format_message().replace("\n\t", " ")
        _say(f"Error: {message}", f"To see what it takes: {command} --help")
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        done = " (what is done stays done)" if {"apply", "mail"} & set(arguments) else ""
        _say("\nStopped.", f"To finish: {invocation.command}{done}")
        return Cancelled.exit_code
    except Cancelled as problem:
        _say(problem.sentence, problem.remedy)
        return problem.exit_code
    except ProvisionerError as problem:
        _report(problem, invocation)
        return problem.exit_code
    except RecursionError:
        _say("Error: The input is nested too deeply.", "Simplify it.")
        return 1


def _say(sentence: str, remedy: str) -> None:
    from provisioner.render.sanitize import printable_lines

    stream = sys.stderr
    stream.write(f"{printable_lines(sentence)}\n")
    if remedy:
        stream.write(f"  {printable_lines(remedy)}\n")


def _report(problem: ProvisionerError, invocation: Invocation) -> None:
    if problem.diagnostics:
        from provisioner.commands.report import show_problems
        from provisioner.errors import WorkspaceError
        from provisioner.workspace.files import find_workspace

        root = invocation.folder
        with suppress(WorkspaceError):
            root = find_workspace(root)
        show_problems(invocation.console(), root, problem.diagnostics)
    _say(f"Error: {problem.sentence}", problem.remedy)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="provisioner %(version)s")
@click.option(
    "-C", "--chdir", "chdir", default=".", metavar="FOLDER", help="The workspace, or a folder in it."
)
@terraform_option("--no-color", "no_color", is_flag=True, help="No colour (NO_COLOR does the same).")
@pass_invocation
def cli(invocation: Invocation, chdir: str, no_color: bool) -> None:
    """Client accesses to the portal, declared in YAML, planned and applied."""
    invocation.folder = Path(chdir)
    invocation.no_color = no_color


@cli.command()
@click.argument("folder", required=False, default=None, type=FILE)
@pass_invocation
def init(invocation: Invocation, folder: Path | None) -> int:
    """Make a first workspace in FOLDER (here, without one)."""
    from provisioner.commands.init import init as command

    return command(folder or invocation.folder, invocation.console())


@cli.command()
@json_option
@pass_invocation
def validate(invocation: Invocation, as_json: bool) -> int:
    """Check the manifests, without asking the portal."""
    from provisioner.commands.validate import validate as command

    return command(invocation.folder, invocation.console(), as_json=as_json)


@cli.command()
@json_option
@selection_options
@click.option("--markdown", "markdown", type=FILE, metavar="FILE", help="Also as Markdown.")
@terraform_option("--out", "out", type=FILE, metavar="FILE", help="Save it for apply.")
@terraform_option("--detailed-exitcode", is_flag=True, help="Exit 2 when there are changes.")
@pass_invocation
def plan(
    invocation: Invocation,
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
        invocation.folder,
        invocation.console(),
        outputs=Outputs(as_json, markdown, out),
        selection=Selection(parse_addresses(targets), parse_addresses(excludes)),
        detailed_exitcode=detailed_exitcode,
    )


@cli.command()
@click.argument("planfile", type=FILE)
@json_option
@click.option("--markdown", "markdown", type=FILE, metavar="FILE", help="Also as Markdown.")
@pass_invocation
def show(invocation: Invocation, planfile: Path, as_json: bool, markdown: Path | None) -> int:
    """Show a saved plan."""
    from provisioner.commands.plan import Outputs
    from provisioner.commands.plan import show as command

    return command(planfile, invocation.console(), outputs=Outputs(as_json, markdown))


@cli.command()
@click.argument("planfile", required=False, default=None, type=FILE)
@selection_options
@terraform_option("--auto-approve", is_flag=True, help="Do not ask.")
@terraform_option("--input", "may_ask", type=bool, default=True, help="--input=false: never ask.")
@lock_timeout_option
@terraform_option(
    "--parallelism",
    default=10,
    show_default=True,
    type=WholeNumber(1, 100),
    metavar="N",
    help="Steps under way at once, on a portal that is reached over the network.",
)
@pass_invocation
def apply(
    invocation: Invocation,
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
        invocation.folder,
        planfile,
        invocation.console(no_input=not may_ask),
        selection=Selection(parse_addresses(targets), parse_addresses(excludes)),
        auto_approve=auto_approve,
        lock_timeout=lock_timeout,
        parallelism=parallelism,
    )


@cli.command()
@click.argument("destination", metavar="FOLDER", type=FILE)
@pass_invocation
def export(invocation: Invocation, destination: Path) -> int:
    """Write the portal as it is into FOLDER, as a workspace."""
    from provisioner.commands.export import export as command

    return command(invocation.folder, destination, invocation.console())


@cli.command()
@click.argument("run_number", required=False, default=None, type=COUNT, metavar="[RUN]")
@click.option("--most", default=20, type=COUNT, metavar="N", show_default=True, help="How many runs.")
@json_option
@pass_invocation
def history(invocation: Invocation, run_number: int | None, most: int, as_json: bool) -> int:
    """Who applied what and when; or each step of one RUN."""
    from provisioner.commands.history import history as command

    return command(invocation.folder, run_number, invocation.console(), most=most, as_json=as_json)


@cli.command()
@json_option
@pass_invocation
def lock(invocation: Invocation, as_json: bool) -> int:
    """Who holds the lock of the ledger, since when and until when."""
    from provisioner.commands.history import lock as command

    return command(invocation.folder, invocation.console(), as_json=as_json)


@cli.command()
@click.argument("lock_id", required=False, default=None)
@pass_invocation
def unlock(invocation: Invocation, lock_id: str | None) -> int:
    """Say who holds the lock; with LOCK_ID, take it away."""
    from provisioner.commands.history import unlock as command

    return command(invocation.folder, lock_id, invocation.console())


@cli.command()
@click.argument("kind", type=click.Choice(["client", "provisioner", "plan"]))
@pass_invocation
def schema(invocation: Invocation, kind: str) -> int:
    """The JSON Schema of manifests, provisioner.yaml or plans."""
    from provisioner.commands.schema import schema as command

    return command(kind, invocation.console())


@cli.group(cls=Group)
def mail() -> None:
    """Welcome e-mails: preview, status, send, settle."""


@mail.command("preview")
@click.argument("subject", metavar="USER|PLANFILE")
@terraform_option("--out", type=FILE, metavar="FOLDER", help="Write .eml and .html.")
@pass_invocation
def mail_preview(invocation: Invocation, subject: str, out: Path | None) -> int:
    """Show the e-mail of a declared user, or all those of a saved plan."""
    from provisioner.commands.mail import preview as command

    return command(invocation.folder, subject, invocation.console(), out=out)


@mail.command("status")
@json_option
@pass_invocation
def mail_status(invocation: Invocation, as_json: bool) -> int:
    """How far each e-mail got."""
    from provisioner.commands.mail import status as command

    return command(invocation.folder, invocation.console(), as_json=as_json)


@mail.command("send")
@click.argument("user", required=False, default=None)
@click.option("--again", is_flag=True, help="Even though one was sent already.")
@lock_timeout_option
@pass_invocation
def mail_send(invocation: Invocation, user: str | None, again: bool, lock_timeout: float) -> int:
    """Send what is owed, or the welcome of one USER.

    The latter is what the portal calls *Envoyer l'email de bienvenue*.
    """
    from provisioner.commands.mail import send as command

    return command(invocation.folder, user, invocation.console(), again=again, lock_timeout=lock_timeout)


@mail.command("settle")
@click.argument("user")
@click.option(
    "--sent/--resend", "arrived", required=True, default=None, help="It arrived, or send it once more."
)
@lock_timeout_option
@pass_invocation
def mail_settle(invocation: Invocation, user: str, arrived: bool, lock_timeout: float) -> int:
    """Decide what became of an e-mail whose fate is unknown."""
    from provisioner.commands.mail import settle as command

    return command(invocation.folder, user, invocation.console(), arrived=arrived, lock_timeout=lock_timeout)


for command in (portal, simulate, serve, api_client):
    cli.add_command(command)
