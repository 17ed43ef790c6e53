"""The command group: imports a command when it is called, and turns errors into two lines and an exit code."""

import logging
import os
import sys
import traceback
from importlib import import_module
from typing import Any

import click

import moeprof
from moeprof.cli.streams import prepare
from moeprof.records.system.causes import described
from moeprof.records.system.signals import exit_code, ignore_signals, raise_on_signals, settled, why

BUG = "This is a bug in moeprof; rerun with --debug for a traceback."

COMMANDS = {
    "characterize": "Run workloads as deployed and record routing, time and memory; or analyse a routing trace.",
    "optimize": "Apply optimizations one after another and compare speed, memory and outputs.",
    "replay": "Replay a routing trace through expert caches or placements, without a model.",
    "convert": "Write a trace in the format of another tool.",
    "placement": "Show, compare and check placements of experts.",
    "report": "Render recorded runs again.",
    "compare": "Compare two runs metric by metric; the exit code is for CI.",
    "history": "Show how the numbers of a recipe changed from run to run.",
    "baseline": "Save, list and show baselines: the numbers of runs, to compare with later.",
    "recipes": "List, show and validate recipes.",
    "train": "Train the small checkpoints that ship with the package.",
    "fit-predictor": "Fit SiDA's predictor of experts to a model, for prefetching, and judge it on held-out documents.",
    "export": "Write a trained translation model in the layout of NLLB-MoE.",
    "doctor": "Report what can be measured on this machine.",
}
"""Every command with its line of help, so that `moeprof --help` imports none of them."""


class LazyGroup(click.Group):
    """A group that imports a command from the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"moeprof.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(moeprof.__version__, prog_name="moeprof")
@click.option(
    "--debug", is_flag=True, expose_value=False, help="Show tracebacks and debug messages; allowed after any command."
)
@click.option(
    "--max-bytes",
    metavar="SIZE",
    expose_value=False,
    help="Read at most SIZE of an input file, decompressed; allowed after any command.  [default: a share of the free memory]",
)
@click.option(
    "--quiet", is_flag=True, expose_value=False, help="Show no progress and no remarks on stderr; allowed after any command."
)
def group() -> None:
    """Profile and characterize Mixture-of-Experts inference.

    `moeprof characterize` without a recipe runs a small language model and a small translation model in about a minute.
    """


def main(argv: list[str] | None = None) -> None:
    """The entry point; exits with a documented exit code."""
    raise_on_signals()
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch 2.13 otherwise writes `USDT:` lines to stderr
    prepare()
    arguments = sys.argv[1:] if argv is None else argv
    code = run(arguments)
    ignore_signals()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    debug, quiet = "--debug" in arguments, "--quiet" in arguments
    start_logging(logging.DEBUG if debug else logging.ERROR if quiet else logging.WARNING)
    rest = [argument for argument in arguments if argument not in ("--debug", "--quiet")]
    try:
        result: Any = group.main(
            without_limit(rest), prog_name="moeprof", standalone_mode=False, obj={"quiet": quiet, "arguments": arguments}
        )
    except click.ClickException as error:
        click.echo(usage(error), err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        ending = error.__cause__ or error  # click puts Abort in the place of KeyboardInterrupt
        if code := exit_code(ending):
            click.echo(f"moeprof: {why(ending)}", err=True)
        return code
    except Exception as error:
        if debug:
            traceback.print_exc()
        reported = described(error, BUG)
        click.echo(f"Error: {reported.what}\n{reported.remedy}", err=True)
        return reported.exit_code
    finally:
        settled.clear()
    return result if isinstance(result, int) else 0


def usage(error: click.ClickException) -> str:
    """Two lines about wrong arguments; the help if a command that needs some got none."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "moeprof"
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"Error: {command}: {message[:1].lower()}{message[1:]}\nRun `{command} --help` to see its arguments and options."


def without_limit(arguments: list[str]) -> list[str]:
    """The other arguments; the SIZE behind `--max-bytes` holds for this process and those that it starts."""
    rest, others = iter(arguments), []
    for argument in rest:
        name, equals, size = argument.partition("=")
        if name == "--max-bytes":
            from moeprof.records.system.inputs import limit_inputs

            limit_inputs(size if equals else next(rest, ""))
        else:
            others.append(argument)
    return others


def start_logging(level: int) -> None:
    """Sends moeprof's remarks to stderr as plain lines."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("moeprof").setLevel(level)
