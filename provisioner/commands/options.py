"""Options, groups and parameter types that the click commands share. Loads click alone."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from provisioner.terminal.console import Console

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Invocation:
    """One run of the program: its arguments, and the options that stand before the verb."""

    arguments: Sequence[str] = ()
    folder: Path = Path()
    """The workspace, or a folder in it."""
    no_color: bool = False

    @property
    def command(self) -> str:
        """The command as the user gave it, to be copied."""
        from provisioner.render.sanitize import printable

        return printable(shlex.join(["provisioner", *self.arguments]))

    def console(self, *, no_input: bool = False) -> Console:
        """The console of this process."""
        from provisioner.terminal.console import system_console

        return system_console(no_color=self.no_color, no_input=no_input, invocation=self.command)


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


class TerraformOption(click.Option):
    """An option that is also accepted with Terraform's single dash; the help shows two dashes alone."""

    def __init__(self, param_decls: Sequence[str] | None = None, **attributes: Any) -> None:
        declared = list(param_decls or ())
        twins = [name[1:] for name in declared if name.startswith("--")]
        super().__init__([*declared, *twins], **attributes)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The line of the help, without the single-dash names."""
        shown = copy.copy(self)
        shown.opts = [name for name in self.opts if name.startswith("--")]
        return click.Option.get_help_record(shown, ctx)


terraform_option = partial(click.option, cls=TerraformOption)


class Command(click.Command):
    """A command whose own help is named by every usage error in its arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; a usage error always has a context."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as problem:
            # click leaves the context empty for an option without its value
            problem.ctx = problem.ctx or ctx
            raise


class Group(click.Group):
    """Commands in the order of their declaration; each takes the options that all of them take."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands in the order of their declaration."""
        return list(self.commands)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, with the option ``--no-color``."""
        if not isinstance(cmd, click.Group):
            # accepted after the verb as well as before it
            cmd.params.append(
                TerraformOption(
                    ["--no-color"], is_flag=True, expose_value=False, callback=_without_colour,
                    help="No colour (NO_COLOR does the same).",
                )
            )  # fmt: skip
        super().add_command(cmd, name)


def _without_colour(context: click.Context, _option: click.Parameter, chosen: bool) -> None:
    invocation = context.ensure_object(Invocation)
    invocation.no_color = invocation.no_color or chosen


class WholeNumber(click.IntRange):
    """An integer within a range, named as usage errors name it."""

    name = "whole number"


class Number(click.FloatRange):
    """A number within a range, with or without a fraction."""

    name = "number"


class Seconds(Number):
    """A duration in seconds; refuses ``nan``."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number of seconds as a float."""
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


FILE = click.Path(path_type=Path)
COUNT = WholeNumber(1, 1_000_000_000)

json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")
lock_timeout_option = terraform_option(
    "--lock-timeout",
    default=0.0,
    type=Seconds(min=0),
    metavar="SECONDS",
    help="Wait this long for another run to end.",
)


def selection_options(function: F) -> F:
    """``--target`` and ``--exclude``, as plan and apply take them."""
    for name, words in (
        ("exclude", "Leave this company or user out (company:NUMBER, user:E-MAIL); repeatable."),
        ("target", "Only this company, with its users, or this user; repeatable."),
    ):
        function = terraform_option(f"--{name}", f"{name}s", multiple=True, metavar="ADDRESS", help=words)(
            function
        )
    return function
