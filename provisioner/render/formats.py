"""The formats in which ``plan`` and ``show`` write a plan to a file, as the option of that name does.

To add a format, write its module in this package and add a line to :data:`FORMATS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from provisioner.planning.plan import Plan


class Format(NamedTuple):
    """A format of a plan."""

    function: str
    """``module:function`` in this package; the function takes a plan and returns the text."""
    help: str

    def render(self, plan: Plan) -> str:
        """The plan in this format."""
        module, _, name = self.function.partition(":")
        text: str = getattr(import_module(f"provisioner.render.{module}"), name)(plan)
        return text


FORMATS: dict[str, Format] = {
    "markdown": Format("markdown:render_markdown", "Also as Markdown."),
}
