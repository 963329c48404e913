"""Click commands, groups and options. Click is the only library that this module imports."""

from __future__ import annotations

import copy
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from provisioner.render.formats import FORMATS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from provisioner.terminal.console import Console


@dataclass(slots=True)
class Invocation:
    """One run of the program: its arguments and the options of all commands. It is click's ``ctx.obj``."""

    arguments: Sequence[str] = ()
    folder: Path = Path()
    """The folder of the workspace, or a folder inside the workspace."""
    no_color: bool = False
    verbose: bool = False
    log: Path | None = None
    """The file for the trace; None for no file."""

    @property
    def command(self) -> str:
        """The command line, quoted for the shell, for messages that tell the user to repeat the command."""
        from provisioner.render.sanitize import printable

        return printable(shlex.join(["provisioner", *self.arguments]))

    @property
    def given_folder(self) -> str:
        """The folder given with ``-C``, quoted for the shell; "" for the current folder."""
        from provisioner.render.sanitize import printable

        return printable(shlex.quote(str(self.folder))) if self.folder != Path() else ""

    def console(self) -> Console:
        """Return the console of this process."""
        from provisioner.terminal.console import system_console

        return system_console(
            no_color=self.no_color,
            verbose=self.verbose,
            invocation=self.command,
            folder=self.given_folder,
        )

    def tracing(self, console: Console) -> AbstractContextManager[None]:
        """Return a context manager that writes the trace where ``--verbose`` and ``--log`` request it."""
        if not self.verbose and self.log is None:
            return nullcontext()
        from provisioner.terminal.trace import tracing

        return tracing(console, self.log, verbose=self.verbose)


class TerraformOption(click.Option):
    """An option ``--name`` that is also accepted as ``-name``, as in Terraform. The help omits ``-name``."""

    def __init__(self, names: Sequence[str], **attributes: Any) -> None:
        twins = [name[1:] for name in names if name.startswith("--")]
        super().__init__([*names, *twins], **attributes)

    @override
    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = copy.copy(self)
        shown.opts = [name for name in self.opts if name.startswith("--")]
        return click.Option.get_help_record(shown, ctx)


class Command(click.Command):
    """A command that imports and calls a function of ``provisioner.commands`` only when the command runs.

    ``target`` is ``module:function``. The function gets these keyword arguments: ``folder``, ``console``, the
    items of ``fixed``, and the value of each click parameter in ``params``. It returns the exit code.
    """

    def __init__(self, name: str, target: str, help: str, *params: click.Parameter, **fixed: object) -> None:
        params = (*params, *GLOBAL_OPTIONS)
        super().__init__(name, params=list(params), help=help, callback=click.pass_obj(self._call))
        self.target = target
        self.fixed = fixed

    def function(self) -> Callable[..., int]:
        """Import and return the function that this command calls."""
        module, _, name = self.target.partition(":")
        function: Callable[..., int] = getattr(import_module(f"provisioner.commands.{module}"), name)
        return function

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as problem:
            # click sets no context in the error for an option whose value is missing
            problem.ctx = problem.ctx or ctx
            raise

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return _without_twins(super().shell_complete(ctx, incomplete))

    def _call(self, invocation: Invocation, **options: object) -> int:
        console = invocation.console()
        with invocation.tracing(console):
            return self.function()(folder=invocation.folder, console=console, **self.fixed, **options)


class UnknownCommand(click.UsageError):
    """The command line names a command that does not exist. ``remedy`` says what to write instead."""

    def __init__(self, ctx: click.Context, name: str, commands: Collection[str]) -> None:
        from provisioner.spelling import did_you_mean

        super().__init__(f"No such command {name!r}.{did_you_mean(name, commands)}", ctx)
        self.remedy = OTHER_NAMES.get(name, "") if ctx.parent is None else ""


OTHER_NAMES = {
    "help": "To see the commands: provisioner --help",
    "version": "To see the version: provisioner --version",
    "restore": "To restore a backup, copy its files back while no run is at work: "
    'see "Backups and restores" in provisioner/portals/README.md.',
}
"""What to do instead of some commands that users of other programs expect."""


class Group(click.Group):
    """A group of commands; its help lists them in the order of their declaration."""

    def declare(self, name: str, target: str, help: str, *params: click.Parameter, **fixed: object) -> None:
        """Add a :class:`Command` to the group. That class explains ``target``, ``params`` and ``fixed``."""
        self.add_command(Command(name, target, help, *params, **fixed))

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UnknownCommand(ctx, args[0], self.commands)
        return super().resolve_command(ctx, args)

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return _without_twins(super().shell_complete(ctx, incomplete))


def _without_twins(items: Iterable[CompletionItem]) -> list[CompletionItem]:
    """Return the completions without the single-dash forms of long options, which the help omits as well."""
    return [
        item
        for item in items
        if not item.value.startswith("-") or len(item.value) == 2 or item.value[1] == "-"
    ]


def _remember_log(context: click.Context, option: click.Parameter, files: Sequence[Path]) -> None:
    """Store the file of ``--log`` in the :class:`Invocation`. Raises ``UsageError`` if it is not one file."""
    given = [*([context.obj.log] if files and context.obj.log else []), *files]
    if len(given) > 1:
        raise click.UsageError("--log is given twice; the trace goes into one file.", context)
    for file in given:
        # Path("") is Path("."), a folder too
        if os.path.isdir(file) or str(file) == "-":
            raise click.UsageError(
                f"--log needs the name of a file, and {str(file)!r} is none. For stderr: --verbose", context
            )
        context.obj.log = file


def _remember(context: click.Context, option: click.Parameter, value: object) -> None:
    """If a global option is given, store its value in the :class:`Invocation` attribute of the same name."""
    if value:
        setattr(context.obj, str(option.name), value)


FILE = click.Path(path_type=Path)

GLOBAL_OPTIONS = (
    TerraformOption(
        ["--no-color"],
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help="No colour (NO_COLOR does the same).",
    ),
    click.Option(
        ["--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help="Trace HTTP, SCIM, SQL and SMTP on stderr, without secrets.",
    ),
    click.Option(
        ["--log"],
        type=FILE,
        metavar="FILE",
        multiple=True,
        expose_value=False,
        callback=_remember_log,
        help="The same trace, into FILE.",
    ),
)
"""The options of all commands. They are accepted before and after the command's name."""


class WholeNumber(click.IntRange):
    """An integer within a range. Usage errors call this type by its ``name``."""

    name = "whole number"


class Number(click.FloatRange):
    """A number within a range, with or without a fraction."""

    name = "number"


class Seconds(Number):
    """A duration in seconds; ``nan`` is refused."""

    name = "number of seconds"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


COUNT = WholeNumber(1, 1_000_000_000)

AS_JSON = click.Option(["--json", "as_json"], is_flag=True, help="JSON on stdout, for programs.")
FORMAT_FILES = tuple(
    click.Option([f"--{name}"], type=FILE, metavar="FILE", help=described.help)
    for name, described in FORMATS.items()
)


class AddressText(click.ParamType[str]):
    """The address of a company or user, in UTF-8 even where the locale cannot show it."""

    name = "address"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return os.fsencode(value).decode("utf-8", "surrogateescape")


TARGETS = TerraformOption(
    ["--target", "targets"],
    type=AddressText(),
    multiple=True,
    metavar="ADDRESS",
    help="Only this company, with its users, or this user; repeatable.",
)
EXCLUDES = TerraformOption(
    ["--exclude", "excludes"],
    type=AddressText(),
    multiple=True,
    metavar="ADDRESS",
    help="Leave this company or user out (company:NUMBER, user:E-MAIL); repeatable.",
)
LOCK_TIMEOUT = TerraformOption(
    ["--lock-timeout"],
    default=0.0,
    type=Seconds(min=0),
    metavar="SECONDS",
    help="Wait this long for another run to end.",
)


def number_option(
    name: str, default: int, kind: click.ParamType[Any], help: str, cls: type[click.Option] = click.Option
) -> click.Option:
    """Return an option whose value is a number of the type ``kind``; the help shows the default."""
    return cls([name], default=default, show_default=True, type=kind, metavar="N", help=help)


DATABASE_URL = click.Option(
    ["--url"], metavar="URL", help="The portal's database; that of the workspace here, without one."
)
