"""The `qfactory` command. Long work runs as Prefect flows, questions are answered directly."""

import atexit
import gc
import signal
import sys
import traceback
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError
from rich.markup import escape

from flows.cli import stopping, temporary_server
from flows.cli.log_lines import log_to_stderr
from flows.console import notes, show_progress
from flows.settings import prepare_environment, settings, use_prefect_server
from pipeline.timings import timed
from storage.shown import reason_of, shown_uri

# Commands are named as "module:function" and imported when they are called: Prefect, Ray, MLflow
# and torch together take seconds, and Prefect reads the environment when it is imported.
HERE = "flows.commands"
USAGE_ERROR = 2
RUN_FLOWS = (
    {"study"},
    {"train"},
    {"restore-batch"},
    {"patches", "build"},
    {"analyze", "recipes"},
    {"evaluate", "--record"},
    {"report"},
)
"""Words of the command lines that need a Prefect server."""

app = App(
    name="qfactory",
    help="Data and training pipeline for JPEG compression-artifact reduction.",
    default_parameter=Parameter(consume_multiple=True, negative=""),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.command(
    f"{HERE}.study_train_batch:study",
    help="Build a store, train recipes, evaluate, register: it all.",
)
app.command(
    f"{HERE}.study_train_batch:train",
    help="Train one recipe on a store that is there, and register it.",
)
app.command(
    f"{HERE}.evaluate_networks:evaluate",
    help="Score JPEG, a registered model or a checkpoint.",
)
app.command(
    f"{HERE}.report_again:report",
    help="Make an earlier run's HTML report again, from MLflow.",
)
app.command(
    f"{HERE}.restore_photographs:restore",
    help="Restore JPEG photographs: files, folders, globs.",
)
app.command(
    f"{HERE}.study_train_batch:restore_batch",
    help="Restore a folder or bucket with Ray, resumable.",
)
app.command(
    f"{HERE}.doctor:doctor",
    help="Are servers, nodes and places to write fit for work? What mends what is not.",
)
app.command(
    f"{HERE}.clean_up:gc",
    help="List what nothing needs any more, with sizes and reasons; --delete removes it.",
)

patches = App(name="patches", help="Patch stores: build, look into, verify, clean up.")
patches.command(f"{HERE}.patches_build:build", help="Cut a dataset into a patch store.")
patches.command(
    f"{HERE}.patches_look:list_stores", name="list", help="List stores and their versions."
)
patches.command(
    f"{HERE}.patches_look:inspect", help="Show what a store holds; save a contact sheet."
)
patches.command(
    f"{HERE}.patches_look:list_files", name="files", help="Print the paths of a version's files."
)
patches.command(
    f"{HERE}.patches_look:verify", help="Compare every byte of a store with its version file."
)
patches.command(
    f"{HERE}.patches_content:diff", help="Tell what changed between two versions of a store."
)
patches.command(
    f"{HERE}.patches_content:stats",
    help="Measure patches: JPEG's loss and bits, luma, flat ones; a picture.",
)
patches.command(f"{HERE}.patches_content:export", help="Write a version for another loader.")
patches.command(f"{HERE}.patches_look:gc", help="Remove what no kept version names.")
app.command(patches)

datasets = App(name="datasets", help="Datasets: what is known, fetch, verify.")
datasets.command(f"{HERE}.datasets:list_datasets", name="list", help="List the known datasets.")
datasets.command(f"{HERE}.datasets:fetch", help="Download a dataset, every file checked.")
datasets.command(
    f"{HERE}.datasets:verify", help="Compare a dataset's files with the pinned hashes."
)
app.command(datasets)

recipes = App(name="recipes", help="The recipes that networks are trained by.")
recipes.command(
    f"{HERE}.recipes:list_recipes", name="list", help="List the recipes, or some of them."
)
recipes.command(
    f"{HERE}.recipes:show_recipe", name="show", help="Print a recipe's settings as JSON."
)
recipes.command(
    f"{HERE}.recipes:graph", help="Show which recipes start from which others' weights."
)
app.command(recipes)

analyze = App(name="analyze", help="Comparisons: what one choice does.")
analyze.command(
    f"{HERE}.analyze_recipes:list_comparisons", name="list", help="List the comparisons."
)
analyze.command(
    f"{HERE}.analyze_recipes:recipes",
    help="Train recipes that differ in one thing equally long; a table and a chart.",
)
analyze.command(
    f"{HERE}.analyze_networks:transfer", help="Networks of one QF each on JPEGs of other QFs."
)
analyze.command(
    f"{HERE}.analyze_networks:rate_distortion", help="PSNR and SSIM against bits; bits saved."
)
analyze.command(
    f"{HERE}.analyze_downstream:downstream",
    help="What restoration does for super-resolution and contrast curves.",
)
app.command(analyze)

models = App(name="models", help="Registered models: look, compare, promote. Networks' costs.")
models.command(
    f"{HERE}.models_registry:list_models", name="list", help="List the registered models."
)
models.command(
    f"{HERE}.models_registry:show_model", name="show", help="Show a version: card, files, history."
)
models.command(f"{HERE}.models_compare:compare", help="Compare two versions, and ask the gate.")
models.command(
    f"{HERE}.models_registry:promote", help="Make a version champion, if the gate or --force says."
)
models.command(f"{HERE}.models_registry:rollback", help="Go back to the champion before.")
models.command(
    f"{HERE}.models_shipped:shipped",
    help="Show what ships, with scores and trainings; score it again.",
)
models.command(f"{HERE}.models_check:check", help="Can a network be trained, exported and tiled?")
models.command(
    f"{HERE}.models_check:complexity",
    help="Parameters, memory, multiply-adds, receptive field of every network.",
)
app.command(models)


def main() -> None:
    """Run the command line.

    A user's mistake is one line on stderr and exit code 2, an interruption exit code 130, and
    SIGTERM, which ends everything in the same way, 143. A second one ends it at once.
    """
    gc.disable()  # what is imported stays: looking for garbage is a quarter of the imports' time
    atexit.register(gc.freeze)  # and takes two seconds of the end
    stopping.handle_signals()
    try:
        log_to_stderr(settings().log_format)
        prepare_environment()
        _start_server({*sys.argv[1:]})
        if settings().log_format == "text":
            show_progress()
        with timed("import programs"):
            command, given, _ = app.parse_args(exit_on_error=False, print_error=False)
        gc.freeze()
        gc.enable()
        sys.exit(command(*given.args, **given.kwargs))
    except KeyboardInterrupt:
        _interrupted()
    except CycloptsError as error:
        _stop(_reason(error), USAGE_ERROR)
    except Exception as error:
        if stopping.stopped_by():
            _interrupted()
        if _is_of_prefects_server(error):
            _stop(
                f"Prefect's server did not do what it was asked: {reason_of(error)}. What was "
                "published stays; `qfactory doctor` tells whether the server answers, and the same "
                "command goes on from there",
                USAGE_ERROR,
            )
        if not _is_explained(error):
            sys.exit(shown_uri("".join(traceback.format_exception(error)).rstrip()))
        _stop(str(error), USAGE_ERROR)


def _start_server(words: set[str]) -> None:
    """Start the command's Prefect server, if it needs one, while this process imports the rest."""
    needed = any(command <= words for command in RUN_FLOWS) and not words & {"-h", "--help"}
    if needed and not settings().prefect_api_url:
        use_prefect_server(temporary_server.start())


def _interrupted() -> NoReturn:
    stopping.have_told()
    code = 128 + (stopping.stopped_by() or signal.SIGINT)
    _stop("interrupted: what was published stays; the same command goes on from there", code)


def _is_explained(error: Exception) -> bool:
    """Tell whether the message alone says what to do: the project's own errors and refusals."""
    own = type(error).__module__.split(".")[0] in ("flows", "pipeline", "models", "storage")
    return own or isinstance(error, ValueError | ConnectionError)


def _is_of_prefects_server(error: Exception) -> bool:
    """Tell whether Prefect's client of its server failed, or what asks it whether there is room."""
    modules = ("httpx", "prefect.concurrency")
    return any(base.__module__.startswith(modules) for base in type(error).__mro__)


def _reason(error: CycloptsError) -> str:
    cause = error.__cause__ or error.__context__
    if not isinstance(cause, ValidationError):
        return str(error)
    reasons = (
        f"{detail['input']!r}: {detail['msg'].removeprefix('Value error, ')}"
        for detail in cause.errors()
    )
    option = error.argument.name if error.argument is not None else "parameter"
    return f"{option} {'; '.join(reasons)}"


def _stop(message: str, code: int) -> NoReturn:
    notes.print("[red]error:[/]", escape(shown_uri(message)))
    sys.exit(code)
