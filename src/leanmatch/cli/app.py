"""The ``leanmatch`` command: which commands there are. What they do stands in one module each.

Importing this module must stay cheap: the command modules import typer and the standard library only, and
load the rest inside their functions (tests/test_import_time.py).
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from leanmatch import __version__
from leanmatch.cli.common import EXIT_INTERRUPTED, Commands, reserve_stdout
from leanmatch.cli.compress.command import compress
from leanmatch.cli.data.command import app as data_app
from leanmatch.cli.demo.command import demo
from leanmatch.cli.diagnose import diagnose
from leanmatch.cli.doctor import doctor
from leanmatch.cli.evaluate.command import evaluate
from leanmatch.cli.explain import explain
from leanmatch.cli.export import export
from leanmatch.cli.help import example
from leanmatch.cli.index.command import app as index_app
from leanmatch.cli.index.encode import encode
from leanmatch.cli.inspect.command import inspect
from leanmatch.cli.push import push
from leanmatch.cli.recommend import recommend
from leanmatch.cli.serve import serve
from leanmatch.cli.train.command import train
from leanmatch.cpus import limit_openmp

app = Commands(
    name="leanmatch",
    help="Train text matchers that hold outside their training distribution, measure them, and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"leanmatch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


app.command(epilog=example("train pairs.csv --hold-out category=Toys -o model/"))(train)
app.command(epilog=example("evaluate model/ pairs.csv --against base"))(evaluate)
app.command(epilog=example("diagnose model/ pairs.csv -o report.html"))(diagnose)
app.command(epilog=example('explain model/ "usb c dock" "dock with two hdmi ports"'))(explain)
app.command(epilog=example("compress model/ --data pairs.csv --keep 0.99 -o lean/"))(compress)
app.command(epilog=example("inspect lean/ --plot layers.svg"))(inspect)
app.command(epilog=example("export catalogue/ --to web -o site/"))(export)
app.command(epilog=example("push lean/ hub:user/name --private"))(push)
app.command(epilog=example("encode lean/ items.parquet -o vectors/"))(encode)
app.add_typer(index_app, name="index")
app.command(epilog=example('recommend catalogue/ "usb c dock" -k 5'))(recommend)
app.command(epilog=example("serve catalogue/ --port 8080"))(serve)
app.add_typer(data_app, name="data")
app.command(epilog=example("demo --quick"))(demo)
app.command(epilog=example("doctor --full"))(doctor)


def main() -> None:
    """The console script. Usage errors end with exit code 2, failed work with 1, Ctrl-C with 130."""
    limit_openmp()
    if "--json" in sys.argv:
        reserve_stdout()
    try:
        app(prog_name="leanmatch")
    except KeyboardInterrupt:  # before or after a command's own work
        typer.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
