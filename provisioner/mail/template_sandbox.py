"""The Jinja2 sandbox for mail templates. A value is never interpreted as markup or compiled as a template.

Loops, conditions, macros and built-in filters are allowed. In an HTML template (``*.html.j2``), every value
is escaped, also in included and extended templates. No template can disable this escaping. The same template
with the same values always gives the same text. The worker process limits the time and memory of a template.
The filters ``safe``, ``random``, ``attr`` and ``pprint``, the filters that produce or escape markup
(``indent``, ``tojson``, ``urlize`` and ``xmlattr``), the function ``lipsum`` and the tag ``{% autoescape %}``
are not available.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import (
    BaseLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    Undefined,
    UndefinedError,
    nodes,
    pass_eval_context,
)
from jinja2.meta import find_referenced_templates
from jinja2.sandbox import ImmutableSandboxedEnvironment
from typing_extensions import override

from provisioner.errors import MailError
from provisioner.mail.message import TemplateRenderer, too_much, within_bounds

HTML_SUFFIX = ".html.j2"

_NOT_AVAILABLE = ("safe", "random", "attr", "pprint", "indent", "tojson", "urlize", "xmlattr")
_GLOBALS = ("range", "dict", "namespace")
_AUTOESCAPE = (nodes.EvalContextModifier, nodes.ScopedEvalContextModifier)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox without ``str.translate``, which can turn escaped text into markup."""

    @override
    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        is_translate = isinstance(obj, str) and attr == "translate"
        return not is_translate and super().is_safe_attribute(obj, attr, value)


class _Loader(BaseLoader):
    """A loader for the given templates. It refuses a template that changes autoescaping."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    @override
    def get_source(
        self, environment: Any, template: str
    ) -> tuple[str, str | None, Callable[[], bool] | None]:
        if template not in self._sources:
            raise TemplateNotFound(template)
        source = self._sources[template]
        for node in environment.parse(source, template).find_all(_AUTOESCAPE):
            raise TemplateSyntaxError("autoescape is not available in letters", node.lineno, template)
        # the template's name is passed as its file name, because tracebacks then contain it
        return source, template, None


def environment(sources: Mapping[str, str], *, autoescape: bool) -> Sandbox:
    """Return a sandbox for ``sources`` (template texts by file name). It escapes values if ``autoescape``."""
    made = Sandbox(
        loader=_Loader(sources),
        undefined=StrictUndefined,
        # fixed for all templates, because a text template included in an HTML template is escaped too
        autoescape=autoescape,
        finalize=_printed,
        # no reloading is needed, because the sources never change
        auto_reload=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals = {name: made.globals[name] for name in _GLOBALS}
    for name in _NOT_AVAILABLE:
        del made.filters[name]
    return made


# with this decorator Jinja2 calls the function only at run time, even for constants
@pass_eval_context
def _printed(_: object, value: object) -> object:
    """Return text or a number unchanged. Refuse any other value, because it may contain a memory address."""
    if isinstance(value, str | int | float | Undefined):
        return value
    raise TypeError(f"a value of type {type(value).__name__} is not text")


class Templates(TemplateRenderer):
    """A renderer that works in this process and compiles each template at its first use."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources
        self._environments = {html: environment(sources, autoescape=html) for html in (False, True)}
        self._compiled: dict[str, Template] = {}

    @override
    def render(self, name: str, context: Mapping[str, str]) -> str:
        if name not in self._sources:
            raise MailError(
                f"There is no mail template {name}.", "Templates are looked up in templates/mail/."
            )
        try:
            template = self._compiled.get(name) or self._compile(name)
            return within_bounds(name, template.render(context))
        except TemplateSyntaxError as problem:
            raise MailError(
                f"The mail template {problem.name or name}:{problem.lineno} is not a valid template: "
                f"{problem.message}.",
                "Correct that line.",
            ) from problem
        except UndefinedError as problem:
            raise MailError(
                f"The mail template {self._where(name, problem)} uses something that does not exist: "
                f"{problem.message}.",
                f"A template may use: {', '.join(sorted(context))}.",
            ) from problem
        except MemoryError as problem:
            raise too_much(name) from problem
        except (
            TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            AssertionError,
            RuntimeError,
        ) as problem:
            raise MailError(
                f"The mail template {self._where(name, problem)} cannot be rendered: {problem}.",
                "Correct that line.",
            ) from problem

    def _compile(self, name: str) -> Template:
        """Compile a template and all templates it includes or extends, to find all their syntax errors."""
        sandbox = self._environments[name.endswith(HTML_SUFFIX)]
        waiting, seen = [name], {name}
        while waiting:
            part = waiting.pop()
            sandbox.get_template(part)
            referenced = set(find_referenced_templates(sandbox.parse(self._sources[part], part)))
            found = {other for other in referenced if other is not None and other in self._sources} - seen
            waiting += found
            seen |= found
        self._compiled[name] = sandbox.get_template(name)
        return self._compiled[name]

    def _where(self, name: str, problem: BaseException) -> str:
        """Return ``file:line`` of the innermost template in the traceback, or ``name`` if there is none."""
        frames = traceback.extract_tb(problem.__traceback__)
        lines = [f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename in self._sources]
        return lines[-1] if lines else name
