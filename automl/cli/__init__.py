"""The command `secateur`."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click

_COMMANDS = {
    "search": ("automl.cli.search", "Search how to compress a net; finetune, test and report the front."),
    "resume": ("automl.cli.search", "Go on with a search that was stopped."),
    "front": ("automl.cli.results", "Print the front of a finished search."),
    "export": ("automl.cli.results", "Write one member of the front: policy, program and weights."),
    "apply": ("automl.cli.results", "Make the net that a policy describes."),
    "report": ("automl.cli.results", "Write a run's report again."),
    "track": ("automl.cli.results", "Write into MLflow whatever of a run it does not have."),
    "submit": ("automl.cli.jobs", "Run a search as a job on a Ray cluster."),
    "status": ("automl.cli.jobs", "Say how a job on a cluster is doing."),
    "logs": ("automl.cli.jobs", "Print what a job on a cluster says."),
    "stop": ("automl.cli.jobs", "Stop a job on a cluster; its run can be resumed."),
    "sweep": ("automl.cli.sweep", "Run many searches on Ray: nets, targets, agents, compressors, seeds."),
    "train": ("automl.cli.nets", "Train or finetune a net."),
    "layers": ("automl.cli.nets", "Print a net's layers, groups, and what is left whole."),
    "profile": ("automl.cli.nets", "Measure how much each layer can lose."),
    "list": ("automl.cli.nets", "List the names of nets, data, agents, orders and repairs."),
    "bench": ("automl.cli.bench", "Measure Secateur's own speed and quality."),
}
_PACKAGES = ("automl", "envs", "agents", "compressors", "dashboards")


class _Lazy(click.Group):
    """Imports a command only when it is called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[name][0]), f"{name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from compressors.errors import one_of

        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise one_of("command", args[0], _COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="secateur", prog_name="secateur")
def cli() -> None:
    """Finds how much of each layer of a trained network to cut, and how few bits to keep.

    Begin with: secateur search --data digits
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends in one line and exit code 2."""
    foreign = foreign_packages()
    if foreign:
        _fail(foreign)
    from compressors.errors import UserError

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        cli.main(args=given, prog_name="secateur", standalone_mode=False, obj=_recorded(given))
    except UserError as error:
        _fail(str(error))
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        _fail("Interrupted.")
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left, e.g. `| head`
        sys.exit(1)
    except MemoryError:
        _fail(
            "Out of memory. Use fewer images (--search-images, --calibration-images) or smaller batches (--batch-size)."
        )
    except OSError as error:
        if error.strerror is None:
            raise
        _fail(f"{error.strerror}{f': {error.filename}' if error.filename else ''}.")


def foreign_packages() -> str:
    """What is wrong if one of our packages' names belongs to another distribution here, else nothing.

    The names are common ones, and whichever comes first on the path wins.
    """
    home = Path(__file__).resolve().parents[2]
    for name in _PACKAGES:
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin is None or origin.parents[1] != home:
            where = f"comes from {origin}" if origin else "is missing"
            return (
                f"The package {name!r} {where}, but Secateur's lies in {home}. Another distribution or folder of that "
                "name is in the way: install Secateur in a virtual environment of its own, and start it elsewhere."
            )
    return ""


def _recorded(arguments: Sequence[str]) -> str:
    """The command as it was typed, for the record, without the passwords of tracking servers."""
    return re.sub(r"://[^/@\s']+@", "://***@", shlex.join(["secateur", *arguments]))


def _fail(message: str) -> None:
    print(f"Error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
