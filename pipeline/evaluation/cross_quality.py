"""What a network of one quality factor does to JPEGs of another: CAS-CNN's Fig. 4.

Source: Cavigelli, Hager, Benini, "CAS-CNN: A deep convolutional neural network for image
compression artifact suppression" (2016), section IV.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.drawing.charts import Chart, heat_map
from pipeline.evaluation.protocol import NamedImage, evaluate_each
from pipeline.evaluation.scores import Comparison, EvaluationResult
from pipeline.networks.restorer import Restorer


@dataclass(frozen=True, kw_only=True)
class QfTransfer:
    """Networks of one quality factor each, every one scored on the same JPEGs of several."""

    jpeg: EvaluationResult
    """JPEG itself at every quality factor of the inputs."""
    restored: Mapping[int, EvaluationResult]
    """For each quality factor that a network was trained for, its results on all the inputs."""

    @property
    def dataset(self) -> str:
        """What the networks were scored on."""
        return self.jpeg.dataset

    @property
    def trained_qfs(self) -> tuple[int, ...]:
        """The networks' quality factors, ascending."""
        return tuple(sorted(self.restored))

    @property
    def input_qfs(self) -> tuple[int, ...]:
        """The inputs' quality factors, in the order they were asked for."""
        return tuple(row.qf for row in self.jpeg.rows)

    def comparison(self, trained_qf: int) -> Comparison:
        """Return one network beside JPEG. Raises ValueError if there is none of that QF."""
        if trained_qf not in self.restored:
            known = list(self.trained_qfs)
            raise ValueError(f"no network of QF {trained_qf} was scored: choose one of {known}")
        return Comparison(jpeg=self.jpeg, restored=self.restored[trained_qf])

    def gain(self, trained_qf: int, input_qf: int, metric: str = "psnr") -> float:
        """Return how much the network of `trained_qf` raises a mean metric at `input_qf`."""
        return self.comparison(trained_qf).gain(input_qf, metric)

    def gains(self) -> dict[tuple[int, int], float]:
        """Return the gain over JPEG in PSNR for every (QF of the input, QF of the network)."""
        return {
            (input_qf, trained_qf): self.gain(trained_qf, input_qf)
            for trained_qf in self.trained_qfs
            for input_qf in self.input_qfs
        }


def transfer_matrix(
    restorers: Mapping[int, Restorer],
    images: Iterable[NamedImage],
    dataset: str,
    qfs: Sequence[int],
) -> QfTransfer:
    """Score every network on JPEGs of every quality factor, by the papers' protocol.

    Args:
        restorers: quality factor that a network was trained for, 1 to 100, to the network.
        images: name and luma, read once; each JPEG is made and decoded once for all networks.
        dataset: the name that stands in the results.
        qfs: quality factors of the inputs, 1 to 100.

    Raises ValueError for no network, a quality factor outside 1 to 100, and as
    `pipeline.evaluation.protocol.evaluate` does.
    """
    if not restorers or not all(1 <= qf <= 100 for qf in restorers):
        raise ValueError(
            f"networks of the QFs {sorted(restorers)}: give one or more, each of a QF from 1 to 100"
        )
    trained = sorted(restorers)
    each = [None, *(restorers[qf] for qf in trained)]
    of_jpeg, *of_networks = evaluate_each(each, images, dataset, qfs)
    return QfTransfer(jpeg=of_jpeg, restored=dict(zip(trained, of_networks, strict=True)))


def transfer_chart(transfer: QfTransfer, networks: str = "networks") -> Chart:
    """Return the gains in PSNR as a grid: QF of the input across, QF of the network down.

    `networks` is what the title calls them, such as their architecture.
    """
    return heat_map(
        transfer.gains(),
        title=f"What {networks} of one QF do to inputs of another: {transfer.dataset}",
        x_label="QF of the input",
        y_label="QF trained for",
        value_label="PSNR gain, dB",
    )
