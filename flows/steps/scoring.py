"""The Prefect task that scores a trained network on one set, and how it is stopped."""

from concurrent.futures import CancelledError
from threading import Event

from flows.console import counted
from flows.planning.beside_jpeg import keep_scores, kept_scores, scores_file
from flows.runtime import progress, retried_task, say
from flows.settings import settings
from flows.steps import recording
from pipeline.cluster import may_grow
from pipeline.datasets import references
from pipeline.evaluation.on_cluster import compare_on_cluster
from pipeline.evaluation.protocol import compare, load_images
from pipeline.evaluation.scores import Comparison
from pipeline.images.degrade import protocol_of
from pipeline.networks.devices import best_device
from pipeline.networks.restorer import Restorer, network_restorer
from pipeline.networks.weights import load_network
from pipeline.recipes import Recipe
from pipeline.timings import timed


@retried_task("evaluate", run_name="evaluate {recipe.name} on {dataset}")
@timed("score")
def score_network(
    recipe: Recipe, weights: str, dataset: str, stop: Event, gpus: float = 0
) -> Comparison:
    """Score trained weights beside JPEG, at the quality factors and degradation of the recipe.

    On a cluster that was joined tasks do it, an image each with at most one of the `gpus` that a
    training worker has, beside the trainings; else this process does. What was scored before by the
    same protocol, on images of the same content, is not again.
    """
    sources = references.list_images(dataset, root=settings().datasets_root, purpose="evaluate")
    kept = scores_file(weights, recipe, dataset, sources)
    comparison = kept_scores(kept)
    if comparison is not None:
        say(f"{recipe.name} was scored on these images of {dataset}: the scores are reused")
    else:
        qfs, protocol = recipe.evaluation_qfs, protocol_of(recipe.patches.degradation)
        with progress(f"evaluate {recipe.name} on {dataset}", stop) as update:
            if may_grow():
                _, network = load_network(weights)
                comparison = compare_on_cluster(
                    network,
                    sources,
                    dataset,
                    qfs,
                    protocol,
                    gpus=min(1.0, gpus),
                    on_image=lambda done: update(done, len(sources)),
                    stop=stop,
                )
            else:
                images = counted(load_images(sources), len(sources), update)
                comparison = compare(stoppable(weights, stop), images, dataset, qfs, protocol)
        keep_scores(kept, comparison)
    recording.scores_artifact(recipe.name, comparison, recipe.architecture)
    return comparison


def stoppable(weights: str, stop: Event) -> Restorer:
    """Return a function that restores luma and ends with CancelledError once `stop` is set.

    It looks before every layer: a large network takes minutes for one image on a CPU.
    """
    _, network = load_network(weights)

    def check(*_: object) -> None:
        if stop.is_set():
            raise CancelledError(f"{weights}: stopped")

    for module in network.modules():
        module.register_forward_pre_hook(check)
    return network_restorer(network, best_device())
