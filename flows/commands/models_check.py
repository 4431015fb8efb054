"""Commands about networks: no Prefect, no Ray."""

from dataclasses import asdict

from flows.console import notes, out, print_json, show_table, shown
from models import ARCHITECTURES, build_model
from models.measuring import complexity as measuring
from pipeline.networks.contract import check_network

LEGEND = (
    "memory: parameters + 2 x activations + input for 40x40 pixels in float32, MiB, as the papers "
    "state it; receptive field: measured, a mean over the whole image held fixed"
)


def complexity(*names: str, json: bool = False) -> None:
    """Print parameters, memory, multiply-adds a pixel and receptive field of networks.

    Args:
        names: networks (default: all); each is measured as its paper has it, without options
        json: print one JSON array of rows and nothing else
    """
    networks = {name: build_model(name) for name in sorted(set(names or ARCHITECTURES))}
    rows = []
    with shown("measure") as update:
        for done, (name, network) in enumerate(networks.items()):
            update(done, len(networks), name)
            rows.append({"network": name, **asdict(measuring.complexity(network))})
        update(len(networks), len(networks))
    if json:
        print_json(rows)
        return
    show_table([_readable(row) for row in rows])
    notes.print(LEGEND)


def check(*names: str) -> None:
    """Tell whether networks keep the rules of ARCHITECTURES, as a study does before it begins.

    Exit code 2 with what to change, and in which file, for the first that does not.

    Args:
        names: networks (default: all); each as its paper has it, without options
    """
    for name in names or sorted(ARCHITECTURES):
        found = check_network(name, quick=False)
        out.print(
            f"{name}: {found.layers} layers, any size, exports; receptive field "
            f"{found.receptive_field} measured, {build_model(name).receptive_field} declared"
        )


def _readable(row: dict[str, object]) -> dict[str, object]:
    return {
        "network": row["network"],
        "parameters": row["parameters"],
        "memory MB": f"{row['total_memory_mb']:.2f}",
        "multiply-adds a pixel": row["multiply_adds_per_pixel"],
        "receptive field": row["receptive_field"],
    }
