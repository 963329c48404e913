"""The entry point: declares all commands, runs one command and maps errors to exit codes.

For ``--version`` and ``--help``, click is the only library that is imported. To add a command, declare it in
this module and write the function that it calls in :mod:`provisioner.commands`.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import Argument, Choice, Option

from provisioner import __version__
from provisioner.commands.options import (
    AS_JSON,
    COUNT,
    DATABASE_URL,
    EXCLUDES,
    FILE,
    FORMAT_FILES,
    GLOBAL_OPTIONS,
    LOCK_TIMEOUT,
    TARGETS,
    Group,
    Invocation,
    Number,
    TerraformOption,
    WholeNumber,
    number_option,
)
from provisioner.limits import MAX_PARALLELISM
from provisioner.terminal.streams import install_resilient_streams

if TYPE_CHECKING:
    from provisioner.errors import ProvisionerError

USAGE = 64
"""The exit code of a usage error. Click's default is 2, but here 2 means that a plan has changes."""

WITH_ANSWER = (0, 2)
"""The exit codes of commands that answer on stdout. If the answer cannot be written, the code becomes 1."""


def main() -> None:
    """Run the command of ``sys.argv`` and end the process with its exit code."""
    import gc

    # SIGTERM ends a run as Ctrl-C does: with a sentence, a consistent ledger and exit code 8
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answer = install_resilient_streams()
    code = run(sys.argv[1:])
    # the command has ended: a signal that arrives now must not change its exit code
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # a pipe closed by its reader (| head) is no error, but a failed write to a disk is an error
    lost = answer.problem if answer is not None else None
    if lost is not None and not isinstance(lost, BrokenPipeError) and code in WITH_ANSWER:
        _say(f"Error: The answer could not be written: {lost.strerror}.", "Check where stdout goes.")
        code = 1
    # otherwise the last garbage collection of the interpreter would visit every object of the run
    gc.freeze()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. Print errors as sentences on stderr, without tracebacks."""
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
        # click lists the valid choices one per line, each after a tab
        message = problem.format_message().replace("\n\t", " ")
        _say(f"Error: {message}", _usage_remedy(problem, command))
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


def _usage_remedy(problem: click.UsageError, command: str) -> str:
    if isinstance(problem, click.NoSuchOption) and problem.option_name in ("-C", "--chdir"):
        return f"Write it before the command: {command.replace(' ', ' -C FOLDER ', 1)}"
    return getattr(problem, "remedy", "") or f"To see what it takes: {command} --help"


def _say(sentence: str, remedy: str) -> None:
    from provisioner.render.sanitize import printable_lines

    sys.stderr.write(f"{printable_lines(sentence)}\n")
    if remedy:
        sys.stderr.write(f"  {printable_lines(remedy)}\n")


def _report(problem: ProvisionerError, invocation: Invocation) -> None:
    from provisioner.render.commands import in_folder

    if problem.diagnostics:
        from provisioner.commands.report import show_problems
        from provisioner.errors import WorkspaceError
        from provisioner.workspace.files import find_workspace

        root = invocation.folder
        with suppress(WorkspaceError):
            root = find_workspace(root)
        show_problems(invocation.console(), root, problem.diagnostics)
    _say(
        f"Error: {in_folder(problem.sentence, invocation.given_folder)}",
        in_folder(problem.remedy, invocation.given_folder),
    )


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="provisioner %(version)s")
@click.option(
    "-C",
    "--chdir",
    "chdir",
    default=".",
    type=FILE,
    metavar="FOLDER",
    help="The workspace, or a folder in it.",
)
@click.pass_obj
def cli(invocation: Invocation, chdir: Path) -> None:
    """Client accesses to the portal, declared in YAML, planned and applied."""
    invocation.folder = chdir


cli.params.extend(GLOBAL_OPTIONS)

cli.declare(
    "init",
    "init:init",
    "Make a first workspace in FOLDER (here, without one).",
    Argument(["target"], required=False, metavar="[FOLDER]", type=FILE),
)
cli.declare(
    "validate",
    "validate:validate",
    "Check the manifests, without asking the portal.\n\n"
    "With FILEs, read all of them and show the problems of these alone.",
    Argument(["paths"], nargs=-1, metavar="[FILE]...", type=FILE),
    AS_JSON,
)
cli.declare(
    "plan",
    "plan:plan",
    "Show what would change. Writes nothing to the portal.",
    AS_JSON,
    TARGETS,
    EXCLUDES,
    *FORMAT_FILES,
    TerraformOption(["--out"], type=FILE, metavar="FILE", help="Save it for apply."),
    TerraformOption(["--detailed-exitcode"], is_flag=True, help="Exit 2 when there are changes."),
)
cli.declare(
    "show", "plan:show", "Show a saved plan.", Argument(["planfile"], type=FILE), AS_JSON, *FORMAT_FILES
)
cli.declare(
    "apply",
    "apply:apply",
    "Do what PLANFILE says; or plan, show, ask and do it.",
    Argument(["planfile"], required=False, type=FILE),
    TARGETS,
    EXCLUDES,
    TerraformOption(["--auto-approve"], is_flag=True, help="Do not ask."),
    TerraformOption(["--input", "may_ask"], type=bool, default=True, help="--input=false: never ask."),
    LOCK_TIMEOUT,
    number_option(
        "--parallelism",
        10,
        WholeNumber(1, MAX_PARALLELISM),
        "Steps under way at once, on a portal that is reached over the network.",
        TerraformOption,
    ),
)
cli.declare(
    "export",
    "export:export",
    "Write the portal as it is into FOLDER, as a workspace.",
    Argument(["destination"], metavar="FOLDER", type=FILE),
)
cli.declare(
    "backup",
    "backup:backup",
    "Copy ledger and portal (SQLite) into FOLDER.\n\nA run may be at work meanwhile.",
    Argument(["destination"], metavar="FOLDER", type=FILE),
)
cli.declare(
    "history",
    "history:history",
    "Who applied what and when; or each step of one RUN.",
    Argument(["run"], required=False, type=COUNT, metavar="[RUN]"),
    number_option("--most", 20, COUNT, "How many runs."),
    AS_JSON,
)
cli.declare("lock", "history:lock", "Who holds the lock of the ledger, since when and until when.", AS_JSON)
cli.declare(
    "unlock",
    "history:unlock",
    "Say who holds the lock; with LOCK_ID, take it away.",
    Argument(["lock_id"], required=False),
)
cli.declare(
    "explain",
    "explain:explain",
    "What a CODE in a message means; without one, all codes.",
    Argument(["code"], required=False),
)
cli.declare(
    "schema",
    "schema:schema",
    "The JSON Schema of manifests, provisioner.yaml or plans.",
    Argument(["kind"], type=Choice(["client", "provisioner", "plan"])),
)
cli.declare(
    "completion",
    "completion:completion",
    "Print the script with which your shell completes commands.\n\n"
    "\b\n"
    'bash: add to ~/.bashrc: eval "$(provisioner completion bash)"\n'
    'zsh:  add to ~/.zshrc:  eval "$(provisioner completion zsh)"\n'
    "fish: provisioner completion fish\n"
    "      > ~/.config/fish/completions/provisioner.fish",
    Argument(["shell"], type=Choice(["bash", "zsh", "fish"])),
)

mail = Group("mail", help="Welcome e-mails: preview, status, send, settle.")
cli.add_command(mail)
mail.declare(
    "preview",
    "mail:preview",
    "Show the e-mail of a declared user, or all those of a saved plan.",
    Argument(["subject"], metavar="USER|PLANFILE"),
    TerraformOption(["--out"], type=FILE, metavar="FOLDER", help="Write .eml and .html."),
)
mail.declare("status", "mail:status", "How far each e-mail got.", AS_JSON)
mail.declare(
    "send",
    "mail:send",
    "Send what is owed, or the welcome of one USER.\n\n"
    "The latter is what the portal calls *Envoyer l'email de bienvenue*.",
    Argument(["user"], required=False),
    Option(["--again"], is_flag=True, help="Even though one was sent already."),
    LOCK_TIMEOUT,
)
mail.declare(
    "settle",
    "mail:settle",
    "Decide what became of an e-mail whose fate is unknown.",
    Argument(["user"]),
    Option(["--sent"], is_flag=True, help="It arrived."),
    Option(["--resend"], is_flag=True, help="Send it once more."),
    LOCK_TIMEOUT,
)

portal = Group("portal", help="The portal itself: users, configure.")
cli.add_command(portal)
portal.declare("users", "portal:users", "Who is on the portal.", AS_JSON)
portal.declare("configure", "portal:configure", "Take catalogue, domains and staff from provisioner.yaml.")

simulate = Group("simulate", help="Play the other writers of the embedded portal. Not for provisioning.")
cli.add_command(simulate)
AT_ONCE = "This changes the portal at once, without asking."
EMAIL = Argument(["email"])
for verb, words in (
    ("close", "The firm's staff closes a user by hand."),
    ("reopen", "The firm's staff reopens a user by hand (R8)."),
    ("validate", "The firm's staff validates a user by hand (R7)."),
):
    simulate.declare(verb, "simulate:staff", f"{words}\n\n{AT_ONCE}", EMAIL, verb=verb)
simulate.declare(
    "client-creates",
    "simulate:client_creates",
    f"A client's ADMINISTRATOR creates a user.\n\nThe new user awaits validation (R11). {AT_ONCE}",
    Argument(["administrator"]),
    EMAIL,
    Argument(["first_name"]),
    Argument(["last_name"]),
)
simulate.declare(
    "user-changes",
    "simulate:user_changes",
    f"A user changes their own e-mail or phone (*Mon compte*).\n\n{AT_ONCE}",
    EMAIL,
    Option(["--email", "new_email"], help="The new e-mail."),
    Option(["--phone", "new_phone"], help="The new phone; empty for none."),
)
simulate.declare(
    "requests-app",
    "simulate:requests_app",
    f"A user asks for an application in the Store (R10).\n\n{AT_ONCE}",
    EMAIL,
    Argument(["app"]),
)
simulate.declare(
    "activate",
    "simulate:activate",
    f"Follow the LINK of a welcome e-mail.\n\n{AT_ONCE}",
    Argument(["link"]),
)

cli.declare(
    "serve",
    "serve:serve",
    "Serve the embedded portal over HTTP.",
    DATABASE_URL,
    Option(
        ["--host"],
        default="127.0.0.1",
        show_default=True,
        metavar="ADDRESS",
        help="The address to listen at.",
    ),
    number_option("--port", 8080, WholeNumber(0, 65535), "0: any that is free."),
    Option(["--certificate"], type=FILE, metavar="FILE", help="Speak TLS, with this PEM file."),
    Option(["--key"], type=FILE, metavar="FILE", help="The certificate's key."),
    Option(["--behind-proxy"], is_flag=True, help="A proxy before it speaks TLS and says who asks."),
    Option(["--public-url"], metavar="URL", help="What activation links begin with."),
    number_option("--rate", 2000, Number(min=0.1), "Requests a second from one client."),
    number_option("--failed-logins", 30, Number(min=1), "Failed log-ins a minute from one address."),
    number_option("--token-seconds", 900, WholeNumber(1, 86400), "How long an access token lasts."),
)

api_client = Group("api-client", help="Who may log in to the served portal: add, list, disable.")
cli.add_command(api_client)
api_client.declare(
    "add",
    "api_client:add",
    "Make a client; its secret is shown once, for the shell to eval.",
    Argument(["name"]),
    Option(
        ["--role"],
        required=True,
        type=Choice(["administrator", "partner", "customer_manager", "collaborator"]),
        help="Whose rights it has.",
    ),
    Option(["--read-only"], is_flag=True, help="It may read, as plan does, and write nothing."),
    DATABASE_URL,
    AS_JSON,
)
api_client.declare("list", "api_client:everyone", "Who may log in.", DATABASE_URL, AS_JSON)
api_client.declare(
    "disable",
    "api_client:disable",
    "Shut a client out, at once; NAME or id.",
    Argument(["name"]),
    DATABASE_URL,
)
