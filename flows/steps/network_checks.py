"""Networks are checked before a store is built or a step is taken: a fault costs seconds."""

import hashlib
import json
from collections.abc import Iterable

from flows.runtime import say
from flows.settings import settings
from pipeline.networks.code_fingerprint import code_fingerprint
from pipeline.networks.contract import check_network
from pipeline.recipes import Recipe
from pipeline.timings import timed


@timed("check networks")
def check_networks(recipes: Iterable[Recipe]) -> None:
    """Raise NetworkError unless every recipe's network can be trained, exported and tiled.

    One that passed is not checked again in this workspace until code or options change.
    """
    for recipe in recipes:
        what = json.dumps([code_fingerprint(recipe.architecture), recipe.options], default=str)
        digest = hashlib.sha256(what.encode()).hexdigest()[:16]
        passed = settings().root / "checked" / f"{recipe.architecture}-{digest}"
        if not passed.exists():
            say(f"checking network {recipe.architecture}")
            check_network(recipe.architecture, recipe.options)
            passed.parent.mkdir(parents=True, exist_ok=True)
            passed.touch()
