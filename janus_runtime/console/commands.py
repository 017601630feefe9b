"""click's commands as ours are: options in sections, an example below them, numbers that are finite."""

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Option(click.Option):
    """An option that help lists under `section`."""

    def __init__(self, *arguments: Any, section: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section = section


def option(section: str, *names: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    """`click.option` in a section of the help."""
    return click.option(*names, cls=Option, section=section, **settings)


class Command(click.Command):
    """A command whose help has options by section, in order of first use, and an example."""

    def __init__(self, *arguments: Any, example: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.example = example

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            # Newer versions of click list arguments too, which the usage line shows already.
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record:
                sections.setdefault(getattr(parameter, "section", "Common"), []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example"):
            formatter.write(f"{'':{formatter.current_indent}}{self.example}\n")


class Group(click.Group):
    command_class = Command

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        context = {"help_option_names": ["-h", "--help"], "show_default": True}
        super().__init__(*arguments, context_settings=context, **settings)


class FiniteFloat(click.FloatRange):
    """A range of numbers. NaN compares with nothing, so it passes click's own; infinity passes where one end is open."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class ByteSize(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click
    """A number of bytes: `4G`, `512M`, `65536`. K, M and G are powers of 1024."""

    name = "bytes"

    def __init__(self, min: int) -> None:
        self.min = min

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        stated = re.fullmatch(r"(\d{1,15})([KMG]?)B?", str(value).upper(), re.ASCII)
        if not stated:
            self.fail(f"{value!r} is not a number of bytes such as 4G, 512M or 65536", param, ctx)
        size = int(stated[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[stated[2]]
        if size < self.min:
            self.fail(f"{value} is too little; expected {self.min} bytes or more", param, ctx)
        return size
