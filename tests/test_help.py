"""The help of both commands: nothing unsaid, nothing cut, examples that can be typed."""

import re
import shlex

import click
import pytest
from click.testing import CliRunner

import janus_export.cli
import janus_runtime.cli

PROGRAMS = {"janus-rt": janus_runtime.cli.main, "janus-export": janus_export.cli.main}
COMMANDS = [(program, name) for program, group in PROGRAMS.items() for name in group.commands]


def help_of(program, *names):
    result = CliRunner().invoke(PROGRAMS[program], [*names, "--help"], prog_name=program, env={"COLUMNS": "80"}, terminal_width=80)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_every_option_says_what_it_does_and_its_default(program, name):
    group = PROGRAMS[program]
    context = click.Context(group.commands[name], parent=click.Context(group, **group.context_settings))
    for option in group.commands[name].get_params(context):
        if not isinstance(option, click.Option):
            continue
        _, text = option.get_help_record(context)
        assert re.match(r"[A-Z0-9]\w*.*[.)]", option.help), option.name
        assert option.is_flag or option.required or "[default: " in text, f"{option.name}: {text}"


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_options_stand_in_sections(program, name):
    sections = re.findall(r"^(\w+):$", help_of(program, name), re.MULTILINE)
    assert sections[-1] == "Example" and "Common" in sections and "Options" not in sections
    assert len(sections) == len(set(sections))


@pytest.mark.parametrize("program", PROGRAMS)
def test_summaries_are_whole_sentences(program):
    listed = help_of(program).partition("Commands:\n")[2]
    lines = listed.splitlines()
    assert len(lines) == len(PROGRAMS[program].commands) and "..." not in listed
    for line in lines:
        assert re.fullmatch(r"  \w+ +[A-Z][^.]{20,}\.", line), line


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_help_can_be_read_anywhere(program, name):
    text = help_of(program, name)
    assert text.isascii() and max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_examples_can_be_typed(program, name):
    command = PROGRAMS[program].commands[name]
    assert f"\n  {command.example}\n" in help_of(program, name)
    typed, verb, *arguments = shlex.split(command.example)
    assert (typed, verb) == (program, name)
    command.make_context(name, arguments)  # raises where an option is unknown or out of range
