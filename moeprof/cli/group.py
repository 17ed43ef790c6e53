"""The command group: commands are imported when they are called, and errors become two lines and an exit code."""

import logging
import os
import sys
import traceback
from importlib import import_module
from typing import Any

import click

import moeprof
from moeprof.records.errors import MoeprofError

INTERRUPTED = 130

COMMANDS = {
    "characterize": "Run workloads as deployed and record where routing, time and memory go.",
    "optimize": "Apply optimizations one after another and compare speed, memory and outputs.",
    "replay": "Run eviction policies over a recorded routing trace, without a model.",
    "placement": "Show, compare and check placements of experts.",
    "report": "Render recorded runs again.",
    "compare": "Decide what got better or worse between two runs; the exit code is for CI.",
    "baseline": "Keep a run's numbers to compare with later.",
    "recipes": "List, show and validate recipes.",
    "train": "Train the small checkpoints that come with the package.",
    "doctor": "Say what can be measured on this machine.",
}
"""Every command with its one line of help, so that `--help` imports none of them."""


class LazyGroup(click.Group):
    """Looks a command up in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"moeprof.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(moeprof.__version__, prog_name="moeprof")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks and debug messages; allowed anywhere.")
@click.option("--quiet", is_flag=True, expose_value=False, help="No progress and no remarks on stderr; allowed anywhere.")
def group() -> None:
    """Profile and characterize Mixture-of-Experts inference.

    Without a recipe, `moeprof characterize` runs a small language model and a small translation model, in about a minute.
    """


def main(argv: list[str] | None = None) -> None:
    """The entry point; exits with the codes that the documentation promises."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch 2.13 otherwise writes `USDT:` lines to stderr
    arguments = sys.argv[1:] if argv is None else argv
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """The exit code of one call."""
    debug, quiet = "--debug" in arguments, "--quiet" in arguments
    start_logging(logging.DEBUG if debug else logging.ERROR if quiet else logging.WARNING)
    rest = [argument for argument in arguments if argument not in ("--debug", "--quiet")]
    try:
        result: Any = group.main(rest, prog_name="moeprof", standalone_mode=False, obj={"quiet": quiet, "arguments": arguments})
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("moeprof: interrupted", err=True)
        return INTERRUPTED
    except MoeprofError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"Error: {error.what}\n{error.remedy}", err=True)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        click.echo(f"Error: {type(error).__name__}: {error}\nThis is a defect of moeprof; --debug shows where.", err=True)
        return 1
    return result if isinstance(result, int) else 0


def start_logging(level: int) -> None:
    """Remarks of moeprof go to stderr, as plain lines."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("moeprof").setLevel(level)
