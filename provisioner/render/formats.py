"""The file formats in which ``plan`` and ``show`` can write a plan; each format is a command-line option.

To add a format, write a module for it in this package and add an entry to :data:`FORMATS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from provisioner.planning.plan import Plan


class Format(NamedTuple):
    """A file format for plans. ``help`` is the help text of its command-line option."""

    function: str
    """The function that renders a plan as text, written as ``module:function`` relative to this package."""
    help: str

    def render(self, plan: Plan) -> str:
        """Return the text of the plan in this format."""
        module, _, name = self.function.partition(":")
        text: str = getattr(import_module(f"provisioner.render.{module}"), name)(plan)
        return text


FORMATS: dict[str, Format] = {
    "markdown": Format("markdown:render_markdown", "Also as Markdown."),
}
