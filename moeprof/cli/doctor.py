"""`moeprof doctor`: reports what can be measured on this machine, and what is missing and why."""

import json

import click

from moeprof.cli.output import show_document
from moeprof.reporters.documents.document import Block, Heading, Table


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def command(as_json: bool) -> None:
    """Report what can be measured on this machine, and what is missing and why."""
    from moeprof.instrument.capabilities import Capability, capabilities

    found: list[Capability] = capabilities()
    if as_json:
        click.echo(json.dumps([item._asdict() for item in found], indent=1))
        return
    rows = [[item.name, "yes" if item.available else "no", item.detail] for item in found]
    blocks: list[Block] = [Heading("moeprof doctor", 1), Table(["capability", "available", "detail"], rows, labels=3)]
    show_document(blocks)
