"""Where the templates of letters run, and what they may say: values, conditions, blocks, other templates.

A letter needs no loops, no calls, no attributes and no arithmetic, and bombs and escapes are made of
nothing else. So a template is refused before it is compiled for anything but what is listed here, and what
is left takes time and room in proportion to its text: each part of it is rendered once at the most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import DictLoader, StrictUndefined, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from provisioner import limits

_SYNTAX = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.CondExpr,
    nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand, nodes.Test, nodes.Filter,
    nodes.Keyword, nodes.Block, nodes.Extends, nodes.Include,
)  # fmt: skip
FILTERS = ("capitalize", "default", "e", "escape", "lower", "title", "trim", "upper")
TESTS = ("defined", "undefined")
_CALLED = {
    nodes.For: "a loop", nodes.Call: "a call", nodes.Getattr: "an attribute", nodes.Getitem: "an index",
    nodes.Assign: "a variable of its own", nodes.AssignBlock: "a variable of its own",
    nodes.Macro: "a macro", nodes.CallBlock: "a macro",
    nodes.Import: "an import", nodes.FromImport: "an import",
    nodes.List: "a list", nodes.Tuple: "a list", nodes.Dict: "a mapping",
    nodes.BinExpr: "an operator that computes", nodes.UnaryExpr: "an operator that computes",
    nodes.Concat: "the operator ~", nodes.Scope: "autoescape",
}  # fmt: skip
"""What the kinds of syntax that people may try are called."""


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment that compiles nothing but the listed syntax.

    The sandbox that it is made from is the second fence: it would refuse whatever reached inside a value.
    """

    def is_safe_callable(self, obj: Any) -> bool:
        """Nothing is called: what is written has no calls, and a value is a text."""
        return False

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """The tree of one template, seen to keep to the rules. Raises ``TemplateSyntaxError``."""
        if len(source.encode("utf-8", "surrogatepass")) > limits.MAX_TEMPLATE_BYTES:
            raise _refused(f"it is longer than {limits.MAX_TEMPLATE_BYTES:,} bytes", 1, name)
        try:
            tree = super()._parse(source, name, filename)
        except RecursionError:
            raise _too_deep(1, name) from None
        # some kinds of node come without a line
        for count, (node, depth, in_block) in enumerate(_walked(tree)):
            if count > limits.MAX_TEMPLATE_NODES:
                most = f"{limits.MAX_TEMPLATE_NODES:,}"
                raise _refused(f"it has more than {most} tags, values and operators", node.lineno or 1, name)
            if depth > limits.MAX_TEMPLATE_DEPTH:
                raise _too_deep(node.lineno or 1, name)
            if reason := _fault(node, in_block=in_block):
                raise _refused(reason, node.lineno or 1, name)
        return tree

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        """The program made of a tree, once it is seen that what it draws in comes to an end."""
        self._count_parts(source, name)
        return super()._generate(source, name, filename, defer_init)

    def _count_parts(self, tree: nodes.Template, name: str | None) -> None:
        """No template draws in too many, however few they are: those that draw in themselves never end."""
        drawn: dict[str, list[str]] = {}
        waiting = _drawn_in(tree)
        count = 0
        while waiting:
            count += 1
            if count > limits.MAX_TEMPLATE_PARTS:
                most = limits.MAX_TEMPLATE_PARTS
                raise _refused(f"it draws in more than {most} others, or itself", 1, name)
            part = waiting.pop()
            if part not in drawn:
                drawn[part] = self._drawn_by(part)
            waiting += drawn[part]

    def _drawn_by(self, name: str) -> list[str]:
        sources = self.loader.mapping if isinstance(self.loader, DictLoader) else {}
        return _drawn_in(self.parse(sources[name], name)) if name in sources else []


def environment(sources: Mapping[str, str]) -> Sandbox:
    """An environment for these templates, by file name."""
    made = Sandbox(
        loader=DictLoader(dict(sources)),
        undefined=StrictUndefined,
        # select_autoescape looks at the last ending only and would miss .html.j2
        autoescape=lambda name: bool(name and ".html" in name),
        # the sources are given once and do not change
        auto_reload=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.clear()
    made.filters = {name: made.filters[name] for name in FILTERS}
    made.tests = {name: made.tests[name] for name in TESTS}
    return made


def _walked(tree: nodes.Template) -> Iterator[tuple[nodes.Node, int, bool]]:
    """Every node with its depth, and whether it stands in a block; without recursion."""
    waiting: list[tuple[nodes.Node, int, bool]] = [(tree, 0, False)]
    while waiting:
        node, depth, in_block = waiting.pop()
        yield node, depth, in_block
        inside = in_block or isinstance(node, nodes.Block)
        children = [(child, depth + 1, inside) for child in node.iter_child_nodes()]
        waiting += reversed(children)


def _fault(node: nodes.Node, *, in_block: bool) -> str:
    """Why a node is not accepted; empty if it is."""
    if not isinstance(node, _SYNTAX):
        called = next((words for kind, words in _CALLED.items() if isinstance(node, kind)), "")
        return f"{called or type(node).__name__.lower()} is not available in letters"
    if isinstance(node, nodes.Name) and node.name in ("self", "super"):
        return f"{node.name} is not available in letters"
    if isinstance(node, nodes.Block) and in_block:
        # or else a block could be rendered again and again through one of its own
        return "a block cannot stand inside another one"
    if isinstance(node, nodes.Extends | nodes.Include) and not _is_named(node):
        return "another template is named by a text between quotes, and one at a time"
    if isinstance(node, nodes.Filter | nodes.Test) and (node.dyn_args or node.dyn_kwargs):
        return "a star is not available in letters"
    return ""


def _is_named(node: nodes.Extends | nodes.Include) -> bool:
    return isinstance(node.template, nodes.Const) and isinstance(node.template.value, str)


def _drawn_in(tree: nodes.Template) -> list[str]:
    """The names of the templates that one names, as often as it names them."""
    drawn: list[nodes.Extends | nodes.Include] = [
        *tree.find_all(nodes.Extends),
        *tree.find_all(nodes.Include),
    ]
    return [node.template.value for node in drawn if isinstance(node.template, nodes.Const)]


def _too_deep(line: int, name: str | None) -> TemplateSyntaxError:
    most = limits.MAX_TEMPLATE_DEPTH
    return _refused(f"it has more than {most} tags and expressions inside one another", line, name)


def _refused(reason: str, line: int, name: str | None) -> TemplateSyntaxError:
    return TemplateSyntaxError(reason, line, name)
