"""Where this machine's browser is; a test that needs one is skipped where there is none."""

import os
from shutil import which

import pytest

NEEDED = os.environ.get("QFACTORY_NEEDS_CHROMIUM", "") not in ("", "0")
"""Whether a missing browser is a failure; the continuous integration says so."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str:
    """Return the path of a Chromium; skip the test, or fail if it is needed, without one."""
    found = next(filter(None, map(which, BROWSERS)), None)
    if found is None:
        (pytest.fail if NEEDED else pytest.skip)(f"none of {', '.join(BROWSERS)} is on the PATH")
    return found
