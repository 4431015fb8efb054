"""The `qfactory` command as people type it, in a folder of its own."""

import atexit
import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from tests.support.forks import FORKS
from tests.support.processes import clean_environment

QFACTORY = str(Path(sys.executable).with_name("qfactory"))


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


def several(folder, commands):
    """Run commands one after the other in one process, which imports everything only once."""
    answers, told = FORKS.Pipe(duplex=False)
    arguments = [[*map(str, command)] for command in commands]
    process = FORKS.Process(target=_answer, args=(folder, environment(folder), arguments, told))
    process.start()
    told.close()  # so that its end is seen
    with answers:
        found = [answers.recv() for _ in arguments]
    process.join()
    assert process.exitcode == 0
    return found


def _answer(folder, variables, commands, told):
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    from flows.cli.app import main  # the folder's, if it holds a checkout

    for arguments in commands:
        sys.argv = ["qfactory", *arguments]
        code, out, err = 0, io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main()
            except SystemExit as stop:
                code = stop.code or 0
        told.send(Answer(int(code), out.getvalue(), err.getvalue()))
    atexit._run_exitfuncs()  # which the end of a fork leaves out


def environment(folder, **variables):
    return clean_environment(**{"QFACTORY_WORKSPACE": str(folder / "workspace"), **variables})
