"""The `qfactory` command as people type it, in a folder of its own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import clean_environment

QFACTORY = str(Path(sys.executable).with_name("qfactory"))


SEVERAL = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from flows.cli.app import main
told = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["qfactory", *arguments]
    code, out, err = 0, io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


def several(folder, commands):
    """Run commands one after the other in one process, which imports everything only once."""
    arguments = json.dumps([[*map(str, command)] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, arguments],
        cwd=folder, env=environment(folder), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Answer(*told) for told in json.loads(done.stdout.splitlines()[-1])]


def environment(folder, **variables):
    return clean_environment(**{"QFACTORY_WORKSPACE": str(folder / "workspace"), **variables})
