"""The command line as people type it: answers, refusals, exit codes."""

import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import QFACTORY, environment, several
from tests.support.embedded import embedded_workspace, prefect_database
from tests.support.store_images import build, image_folder, texture_file

pytestmark = pytest.mark.slow


MISTAKES = [
    (("evaluate", "jpeg", "--dataset", "nix", "--qf", "10"), "live1, classic5, div2k"),
    (("evaluate", "jpeg", "--dataset", "sample", "--qf", "0"), "greater than or equal to 1"),
    (("evaluate", "jpeg", "--dataset", "sample:nix", "--qf", "10"), "choose train, test"),
    (("evaluate", "nix", "--dataset", "sample", "--qf", "10"), "and no registry at sqlite"),
    (("recipes", "show", "nix"), "quickres-qf10"),
    (("recipes", "graph", "nix-*"), "no recipe matches 'nix-*'"),
    (("patches", "inspect", "nowhere"), "qfactory patches build"),
    (("patches", "list", "--root", "nowhere"), "there is no such folder"),
    (("datasets", "fetch", "nix"), "live1, classic5, div2k"),
    (("nonsense",), "study, train, evaluate, report"),
    (("study", "--recipes", "nix"), "quickres-qf10"),
    (("study", "--recipes", "arcnnn-*"), "no recipe matches 'arcnnn-*'"),
    (("study", "--steps", "0"), "greater than or equal to 1"),
    (("train", "quickres-qf10", "--for", "9 weeks"), "write it as 90s, 9m, 1.5h or 7d"),
    (("patches", "build", "--side", "33"), "multiple of 8"),
]
REFUSED_BY_FLOWS = [
    (("train", "quickres-qf10"), "there is no patch store"),
    (("study", "--evaluate-on", "live1"), "qfactory datasets fetch live1"),
]
ANSWERS = [
    (("evaluate", "quickres-blind", "--dataset", "sample", "--qf", "10"), "quickres-blind"),
    (("datasets", "list"), "classic5"),
    (("datasets", "verify", "sample"), "11 files as pinned"),
    (("datasets", "list", "--json"), "classic5"),
    (("analyze", "list"), "arcnn-fig7-fast"),
    (("analyze", "list", "--json"), "arcnn-fig7-fast"),
    (("recipes", "list"), "arcnn-qf20"),
    (("models", "shipped"), "BSDS500 train and val"),
    (("recipes", "list", "--json"), "arcnn-qf20"),
    (("recipes", "list", "arcnn-qf1*"), "arcnn-qf10"),
    (("recipes", "graph"), "arcnn-qf10-from-qf20 takes the first layer"),
    (("recipes", "show", "arcnn-qf10-from-qf20"), "source"),
]
TWO_QUALITIES = (
    "evaluate", "jpeg", "--dataset", "sample", "--qf", "10", "20", "--json", "--csv", "out.csv",
)  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    prefect_database(folder / "workspace" / "prefect" / "prefect.db")
    return folder


@pytest.fixture(scope="module")
def answers(workspace):
    """Command -> what it answered in a workspace where nothing was made yet."""
    commands = [command for command, _ in (*MISTAKES, *REFUSED_BY_FLOWS, *ANSWERS)]
    commands.append(TWO_QUALITIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        return dict(zip(commands, several(workspace, commands), strict=True))


@pytest.mark.parametrize(("command", "told"), MISTAKES)
def test_a_mistake_is_one_line_that_names_the_way_out(answers, command, told):
    done = answers[command]
    assert done.code == 2
    assert done.out == ""
    assert told in done.err
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(("command", "told"), REFUSED_BY_FLOWS)
def test_a_flow_refuses_before_it_does_anything(answers, workspace, command, told):
    done = answers[command]
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err
    assert not (workspace / "workspace" / "stores").exists()
    assert not (workspace / "workspace" / "checkpoints").exists()


@pytest.mark.parametrize(("command", "told"), ANSWERS)
def test_a_question_is_answered_on_stdout(answers, command, told):
    assert answers[command].code == 0, answers[command].err
    assert told in answers[command].out


def test_a_recipe_is_shown_as_json_and_a_glob_lists_some(answers):
    shown = json.loads(answers["recipes", "show", "arcnn-qf10-from-qf20"].out)
    assert shown["init_from"] == {"recipe": "arcnn-qf20", "layers": 1}
    assert "arcnn-qf40" not in answers["recipes", "list", "arcnn-qf1*"].out


@pytest.mark.parametrize(
    "command", [("datasets", "list"), ("recipes", "list"), ("analyze", "list")]
)
def test_a_table_breaks_no_name_in_80_columns_and_is_there_as_json(answers, command):
    rows = json.loads(answers[*command, "--json"].out)
    shown = answers[command].out
    lines = [line for line in shown.splitlines() if "folder:PATH" not in line]  # the title
    assert max(map(len, lines)) <= 80
    words = set(shown.split())
    assert {next(iter(row.values())) for row in rows} <= words


def test_evaluate_prints_exactly_the_stated_json(answers, workspace):
    done = answers[TWO_QUALITIES]
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert [list(row) for row in rows] == [
        ["dataset", "qf", "images", "psnr", "ssim", "ssim_gaussian", "psnr_b", "bpp",
         "seconds_per_mpx", "published"]
    ] * 2  # fmt: skip
    assert [row["qf"] for row in rows] == [10, 20]
    assert rows[0]["psnr"] < rows[1]["psnr"]
    table = (workspace / "out.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * (3 + 1)


def test_what_changed_in_a_store_what_it_measures_and_its_patches_for_other_loaders(tmp_path):
    photos, store = image_folder(tmp_path / "photos", 6), tmp_path / "my [new] store"
    build(photos, store)
    shutil.copy(photos / "000.png", photos / "twin.png")
    texture_file(photos / "new.png", 70, 90, seed=99)
    version = build(photos, store, max_rejected_share=0.5).version
    told, as_json, backwards, measured, kept, exported, refused = several(
        tmp_path,
        [
            ("patches", "diff", store),
            ("patches", "diff", store, "--json"),
            ("patches", "diff", store, 2, 1, "--json"),
            ("patches", "stats", store),
            ("patches", "stats", store, "--all", "--json"),
            ("patches", "export", store, "out", "--to", "numpy"),
            ("patches", "export", store, "out", "--to", "numpy"),
        ],
    )
    assert f"{store}@1 -> {store}@2" in told.out
    assert re.search(r"images added +2, 12 patches\n  new.png\n  twin.png\n", told.out)
    assert json.loads(as_json.out)["rejected_added"] == ["twin.png"]
    assert json.loads(backwards.out)["images_removed"] == ["new.png", "twin.png"]
    assert "all 84 patches" in measured.out
    assert "flat patches" in measured.out
    facts = json.loads(kept.out)
    assert facts["rows"] == sum(facts["luma"]) / 32**2 == version.rows
    assert [one["qf"] for one in facts["quality"]] == [10, 40]
    assert Path(facts["picture"]).stat().st_size > 10_000
    assert exported.code == 0
    assert len(np.load(tmp_path / "out" / "qf10.npy")) == version.rows
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "is there already" in refused.err


def test_a_store_is_listed_inspected_verified_and_repaired_by_the_command_that_is_printed(tmp_path):
    prefect_database(tmp_path / "workspace" / "prefect" / "prefect.db")
    store = tmp_path / "workspace" / "stores" / "clouds"
    photos = image_folder(tmp_path / "photos", 6)
    (photos / "broken.png").write_bytes(b"no image")
    version = build(photos, store, max_rejected_share=0.5).version
    listed, inspected, paths, as_json, verified = several(
        tmp_path,
        [
            ("patches", "list"),
            ("patches", "inspect", "clouds"),
            ("patches", "files", "clouds"),
            ("patches", "inspect", store, "--json"),
            ("patches", "verify", "clouds"),
        ],
    )
    assert "clouds" in listed.out
    assert f"{version.rows:,} of 32x32" in inspected.out
    assert "broken.png" in inspected.out
    assert "not compared byte by byte since it was built" in inspected.out
    assert [Path(path).is_file() for path in paths.out.splitlines()] == [True] * len(version.shards)
    assert json.loads(as_json.out)["files"] == paths.out.splitlines()
    (sheet,) = (tmp_path / "workspace" / "reports").glob("*.png")
    assert sheet.stat().st_size > 10_000
    assert "are whole" in verified.out
    shard = next((store / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    (damaged,) = several(tmp_path, [("patches", "verify", store)])
    assert damaged.code == 1
    (command,) = [line for line in damaged.out.splitlines() if line.startswith("repair: ")]
    repair = [*shlex.split(command.removeprefix("repair: qfactory ")), "--max-rejected-share", 0.5]
    again = [word for word in repair if word != "--repair"]
    reused, repaired, whole, cleaned = several(
        tmp_path, [again, repair, ("patches", "verify", store), ("patches", "gc", "clouds")]
    )
    assert "by the sizes of its shards" in reused.err
    assert " shards were damaged at" in reused.err
    assert "--repair" in reused.err
    assert repaired.code == 0, repaired.err
    assert "are whole" in whole.out
    assert "removed 0 files" in cleaned.out


def test_a_traceback_an_error_and_a_warning_show_no_password(tmp_path):
    code = """
import logging, sys
import flows.commands.recipes as recipes
from flows.cli.app import main
place = "http://me:5ecret@127.0.0.1:1"
def list_recipes():
    logging.getLogger("storage").warning("no answer from %s", place)
    raise RuntimeError(f"{place} is not there")
def show_recipe(name: str):
    raise ValueError(f"{place} is refused")
recipes.list_recipes, recipes.show_recipe = list_recipes, show_recipe
main()
"""
    told = {}
    for words in (("recipes", "list"), ("recipes", "show", "nix")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True,
        )  # fmt: skip
        told[done.returncode] = done.stderr
    assert told.keys() == {1, 2}
    warning, *traceback = told[1].splitlines()
    assert warning == "WARNING no answer from http://127.0.0.1:1"
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == "RuntimeError: http://127.0.0.1:1 is not there"
    assert told[2] == "error: http://127.0.0.1:1 is refused\n"


def test_a_warning_reaches_prefects_log_and_is_a_line_of_json(tmp_path):
    photos, folder = image_folder(tmp_path / "photos", 3), tmp_path / "workspace"
    version = build(photos, folder / "stores" / "mine").version
    (folder / "stores" / "mine" / "versions" / "1.json").write_text("{}")
    spec = ("--side", "32", "--stride", "16", "--qf", "10", "40", "--degradation", "patch")
    done = subprocess.run(
        [QFACTORY, "patches", "build", "--dataset", f"folder:{photos}", "--store", "mine", *spec],
        cwd=tmp_path, capture_output=True, text=True,
        env=environment(tmp_path, **embedded_workspace(folder), QFACTORY_LOG_FORMAT="json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    (warning,) = (line for line in lines if line["level"] == "WARNING")
    assert warning["message"].endswith("a new version is made")
    assert warning["flow_run"] == f"folder:{photos}"
    assert warning["task_run"].startswith("build shards and publish the version")
    (built,) = (line for line in lines if line["message"].startswith("store built"))
    assert {name: built[name] for name in ("flow_run", "task_run")} == {
        name: warning[name] for name in ("flow_run", "task_run")
    }
    with closing(sqlite3.connect(folder / "prefect" / "prefect.db")) as database:
        logged = database.execute("SELECT name, message FROM log WHERE level >= 30").fetchall()
    assert logged == [("pipeline.patches.plan_store", warning["message"])]
    assert done.stdout.startswith(f"{version.uri}@2")
