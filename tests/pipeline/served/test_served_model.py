"""What travels with a registered network: it restores photographs where this project is not."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import ExifTags, Image, ImageCms
from skimage import data
from torch import nn

from flows.planning.named_networks import open_network
from flows.settings import settings
from pipeline.images.jpeg import encode, quantization_table
from pipeline.networks.export import export_network
from pipeline.networks.restorer import Restorer, network_restorer
from pipeline.networks.weights import load_network
from pipeline.restoring.one_photograph import Network, restore_jpeg
from pipeline.served import model as served_model
from pipeline.served.facts import ProgramFacts
from pipeline.served.model import ServedModel
from pipeline.served.network import ServedNetwork
from pipeline.served.photographs import png_of, read_photograph
from pipeline.served.quantization_cells import within_cells
from storage.registry.model_registry import ModelRegistry, RegisteredVersion, RegistryError
from storage.tracking.tracker import Tracker
from tests.support.mlflow_servers import new_database, serving
from tests.support.processes import free_port
from tests.support.project import PROJECT
from tests.support.small_networks import awake

ZOO = PROJECT / "models" / "zoo" / "quickres-qf10.safetensors"
NAME = "qfactory-quickres-qf10"
BLIND = "qfactory-dmcnn-blind"
TABLE = quantization_table(10)
ORIENTATION = ExifTags.Base.Orientation
NO_PICKLE = MappingProxyType({"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"})


def grey_jpeg(height: int = 101, width: int = 77) -> bytes:
    return jpeg_of(Image.fromarray(data.camera()[:height, :width]))


def colour_jpeg() -> bytes:
    """4:2:0, wider than a tile, with a profile, and on its side by its EXIF."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[ExifTags.Base.Artist] = "someone"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = Image.fromarray(np.tile(data.astronaut()[100:291], (1, 2, 1))[:, :570])
    return jpeg_of(wide, subsampling="4:2:0", exif=exif, icc_profile=profile)


def jpeg_of(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=10, **options)  # type: ignore[arg-type]  # Pillow's options
    return file.getvalue()


def pixels(picture: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(picture)))


class Lighter(nn.Module):
    """Adds ten levels: what it did is plain to see, in tiles or not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 10 / 255).clamp(0, 1)


class Diverged(nn.Module):
    """Gives no numbers any more."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float("nan")


class FirstStep(nn.Module):
    """Gives the first entry of the table, as a grey level."""

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return 0 * x + table[:, None, :1, :1] / 255


def served(program: nn.Module, table: np.ndarray | None = None) -> ServedModel:
    facts = ProgramFacts(
        receptive_field=1,
        multiple=1,
        needs_table=isinstance(program, FirstStep),
        default_table=None if table is None else table.tolist(),
    )
    return ServedModel(ServedNetwork(program, facts))


LIGHTER = served(Lighter())


def lighter(luma: np.ndarray) -> np.ndarray:
    """What Lighter makes of luma."""
    return np.minimum(luma.astype(int) + 10, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(101, 77), (600, 9), (1, 1), (7, 30)])
def test_a_grey_jpeg_becomes_a_png_of_its_size(size):
    photograph = grey_jpeg(*size)
    expected = within_cells(pixels(photograph), lighter(pixels(photograph)), TABLE)
    assert (expected != pixels(photograph)).any()
    restored = LIGHTER.predict(photograph)
    assert isinstance(restored, bytes)
    assert Image.open(io.BytesIO(restored)).format == "PNG"
    np.testing.assert_array_equal(pixels(restored), expected)


@pytest.mark.parametrize("qf", [90, 95])
def test_a_jpeg_that_is_good_already_is_left_as_it_is(qf, caplog):
    noise = np.random.default_rng(qf).integers(0, 200, (40, 56), np.uint8)
    good = encode(noise, qf)
    restored = served(Diverged()).predict(good)
    assert isinstance(restored, bytes)
    np.testing.assert_array_equal(pixels(restored), pixels(good))
    assert f"left as it is: already good, QF {qf}" in caplog.text
    with pytest.raises(ValueError, match="not finite"):
        served(Diverged()).predict(encode(noise, 89))


def test_of_a_colour_jpeg_only_luma_changes_and_its_metadata_stays():
    photograph = colour_jpeg()
    restored = LIGHTER.predict(photograph)
    assert isinstance(restored, bytes)
    image = Image.open(io.BytesIO(restored))
    assert image.size == (191, 570), "not turned upright"
    assert image.getexif()[ORIENTATION] == 1
    assert image.getexif()[ExifTags.Base.Artist] == "someone"
    assert image.info["icc_profile"] == Image.open(io.BytesIO(photograph)).info["icc_profile"]
    read = read_photograph(photograph)
    luma = within_cells(read.luma, lighter(read.luma), read.table)
    np.testing.assert_array_equal(pixels(restored), pixels(png_of(read, luma)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda b: [b, b],
        lambda b: (b, b),
        lambda b: [base64.b64encode(b).decode(), base64.encodebytes(b).decode()],
        lambda b: np.array([b, b], object),
        lambda b: np.array([base64.b64encode(b).decode()] * 2),
        lambda b: pd.Series([b, b]),
        lambda b: pd.DataFrame({"image": [b, b]}),
        lambda b: {"image": [b, b]},
        lambda b: [{"image": b}, b],
    ],
    ids=["list", "tuple", "base64", "objects", "texts", "series", "frame", "dictionary", "mixed"],
)
def test_many_photographs_give_a_list_in_their_order(wrap):
    photograph = grey_jpeg(20, 30)
    assert LIGHTER.predict(wrap(photograph)) == [LIGHTER.predict(photograph)] * 2


def test_one_base64_text_gives_what_its_bytes_give():
    photograph = grey_jpeg(20, 30)
    text = base64.b64encode(photograph).decode()
    for given in (text, np.array(text), {"image": text}):
        assert LIGHTER.predict(given) == LIGHTER.predict(photograph)


@pytest.mark.parametrize("shape", [(3, 1, 33, 47), (1, 1, 8, 8), (2, 1, 600, 9)])
def test_arrays_keep_their_shape_and_type(shape):
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    restored = LIGHTER.predict(images)
    assert isinstance(restored, np.ndarray)
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, np.minimum(images + 10 / 255, 1), atol=1e-6)
    luma = np.arange(35, dtype=np.uint8).reshape(5, 7)
    restored = LIGHTER.predict(luma)
    assert isinstance(restored, np.ndarray)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, luma + 10)


def test_one_call_has_caps_for_all_its_images_together(monkeypatch):
    with pytest.raises(ValueError, match="more than 256 images in one call: give them in several"):
        LIGHTER.predict([b""] * 257)
    photograph = grey_jpeg(20, 30)
    monkeypatch.setattr(served_model, "CALL_BYTES", 3 * len(photograph))
    monkeypatch.setattr(served_model, "CALL_PIXELS", 3 * 600)
    text = base64.b64encode(photograph).decode()
    luma = np.zeros((20, 30), np.uint8)
    for items in ([photograph] * 3, [text, photograph], [{"image": luma}, luma, text]):
        assert len(LIGHTER.predict(items)) == len(items)
    with pytest.raises(ValueError, match=r"4 images have .* bytes together"):
        LIGHTER.predict({"image": [photograph, photograph, text, photograph]})
    monkeypatch.setattr(served_model, "CALL_BYTES", 99 * len(photograph))
    for items in ([photograph, text, luma, {"image": luma}], pd.DataFrame({"image": [text] * 4})):
        with pytest.raises(ValueError, match=r"4 images have 2,400 pixels together, .* 1,800"):
            LIGHTER.predict(items)


def test_a_table_comes_from_the_jpeg_from_the_caller_or_from_the_version():
    blind, at_qf20 = served(FirstStep()), served(FirstStep(), quantization_table(20))
    photograph, luma = grey_jpeg(9, 17), np.zeros((9, 17), np.uint8)
    decoded = pixels(photograph)
    expected = within_cells(decoded, np.full_like(decoded, TABLE[0, 0]), TABLE)
    for model in (blind, at_qf20):
        np.testing.assert_array_equal(pixels(model.predict(photograph)), expected)  # type: ignore[arg-type]
        given = model.predict({"image": luma, "table": np.full((8, 8), 7)})
        assert np.unique(given).tolist() == [7]  # type: ignore[arg-type]
    assert np.unique(at_qf20.predict(luma)).tolist() == [quantization_table(20)[0, 0]]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the quantisation table of the JPEG"):
        blind.predict(luma)
    each = np.stack([np.full((8, 8), 3), np.full((8, 8), 200)])
    restored = blind.predict({"image": np.zeros((2, 1, 9, 17), np.float32), "table": each})
    np.testing.assert_allclose(restored[:, 0, 0, 0], [3 / 255, 200 / 255])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "empty"),
        (b"garbage", "not a JPEG"),
        ("aGVsbG8=", "not a JPEG"),
        ("?", "not base64"),
        ("A" * 100_000_000, "75,000,000 bytes is above the cap of 67,108,864"),
        (bytes(70_000_000), "70,000,000 bytes is above the cap"),
        ([grey_jpeg(9, 9), b"x"], "image 2 of 2: not a JPEG"),
        ([[grey_jpeg(9, 9)]], "image 1 of 1 is a list"),
        (None, "a value of type NoneType: give a JPEG's bytes"),
        ({"photo": b""}, r"a dictionary with \['photo'\]"),
        ({"image": b"", "table": TABLE}, "a table belongs to an array"),
        (pd.DataFrame({"photo": [b""]}), r"columns \['photo'\]"),
        (np.zeros((3, 9, 9), np.float32), r"shape \(3, 9, 9\)"),
        (np.full((1, 1, 9, 9), 200.0), r"values 200.0 to 200.0.*in \[0, 1\]"),
        (np.full((1, 1, 9, 9), np.nan), "nan"),
        (np.zeros((1, 1, 7, 9), np.float32), "8x8 pixels or more"),
        (np.zeros((100_000, 1_000), np.uint8), "more than 80,000,000 pixels"),
    ],
)
def test_what_cannot_be_restored_is_a_value_error_that_says_why(given, message):
    with pytest.raises(ValueError, match=message):
        LIGHTER.predict(given)


def test_a_damaged_jpeg_is_refused_unless_the_caller_asks_for_what_is_left_of_it():
    cut = colour_jpeg()
    cut = cut[: len(cut) * 2 // 3]
    for given in (cut, [grey_jpeg(), cut]):
        with pytest.raises(ValueError, match=r"truncated or damaged.*\{\"damaged\": \"restore\"\}"):
            LIGHTER.predict(given)
    restored = LIGHTER.predict(cut, {"damaged": "restore"})
    assert isinstance(restored, bytes)
    assert pixels(restored).shape == (570, 191, 3)
    with pytest.raises(ValueError, match="damaged 'yes': choose refuse or restore"):
        LIGHTER.predict(cut, {"damaged": "yes"})


def test_mlflows_server_answers_with_the_reason_and_nothing_else():
    with pytest.raises(MlflowException) as caught:
        LIGHTER.predict([b"hello"])
    caught.value.message = "Failed to predict data: what MLflow's server makes of it"
    assert json.loads(caught.value.serialize_as_json()) == {
        "error_code": "BAD_REQUEST",
        "message": "image 1 of 1: not a JPEG: it does not begin as one",
    }
    assert caught.value.get_http_status_code() == 400


def test_a_network_that_sees_the_whole_image_takes_fewer_pixels():
    facts = ProgramFacts(receptive_field=None, multiple=1, needs_table=False, default_table=None)
    whole = ServedModel(ServedNetwork(Lighter(), facts))
    assert isinstance(whole.predict(np.zeros((600, 700), np.uint8)), np.ndarray)
    with pytest.raises(ValueError, match="more than 2,000,000 pixels"):
        whole.predict(np.zeros((2001, 1000), np.uint8))


def test_a_bad_table_or_a_diverged_network_is_refused():
    with pytest.raises(ValueError, match=r"table of shape \(8, 8\): give \(8, 8\), values 1 to"):
        served(FirstStep()).predict({"image": np.zeros((9, 9), np.uint8), "table": TABLE * 0})
    with pytest.raises(ValueError, match="not finite"):
        served(Diverged()).predict(np.full((1, 1, 9, 9), np.float32(0.5)))


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> ModelRegistry:
    """A registry whose champions are the zoo's quickres and a small blind DMCNN."""
    folder = tmp_path_factory.mktemp("served")
    uri = new_database(folder)
    with Tracker(uri, str(folder / "artifacts")) as tracker, tracker.study("study") as study:
        assert study.run_id is not None
        opened = ModelRegistry(uri)
        for name, network in ((NAME, load_network(str(ZOO))[1]), (BLIND, awake("dmcnn"))):
            register(opened, name, network, study.run_id)
            client_of(opened).set_registered_model_alias(name, "champion", "1")
    return opened


def register(
    opened: ModelRegistry, name: str, network: nn.Module, run_id: str
) -> RegisteredVersion:
    export = export_network(network)
    return opened.register(
        export.module,
        name=name,
        input_example=export.input_example,
        tags={**export.facts.tags, "architecture": name.split("-")[1]},
        run_id=run_id,
        served=export.served,
    )


def client_of(registry: ModelRegistry) -> MlflowClient:
    return MlflowClient(tracking_uri=registry.uri, registry_uri=registry.uri)


def folder_of(registry: ModelRegistry, name: str, version: int = 1) -> Path:
    return Path(client_of(registry).get_model_version_download_uri(name, str(version)))


@pytest.fixture
def opened(registry, monkeypatch) -> Iterator[Restorer]:
    """The registered quickres as this project opens it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    settings.cache_clear()
    restorer = open_network(NAME).restorer
    assert restorer is not None
    yield restorer
    settings.cache_clear()


def restored_here(restorer: Restorer, picture: bytes) -> np.ndarray:
    network = Network(name=NAME, qfs=(10,), restorer=restorer, asked=True)
    return pixels(restore_jpeg(picture, [network], kind="png").content)


@pytest.mark.slow
def test_a_registered_blind_network_is_given_the_table_of_each_image(registry, opened):
    restorer, luma = open_network(BLIND).restorer, data.camera()[:40, :50]
    assert restorer is not None
    expected = network_restorer(awake("dmcnn"))
    by_table = [restorer(luma, quantization_table(qf)) for qf in (10, 60)]
    assert (by_table[0] != by_table[1]).any()
    for qf, restored in zip((10, 60), by_table, strict=True):
        change = restored.astype(int) - expected(luma, quantization_table(qf))
        assert np.abs(change).max() <= 1  # on a rounding boundary


@pytest.mark.slow
def test_every_file_has_a_digest_and_loading_leaves_no_other_file(registry):
    folder, found = folder_of(registry, NAME), registry.version(NAME, 1)
    code = {path.split("/")[1] for path in found.digests if path.startswith("code/")}
    assert len(code) == 1
    assert {f"code/{next(iter(code))}/model.py", "onnx/model.onnx", "data/served.json"} <= set(
        found.digests
    )
    assert found.tags["onnx"] == "onnx/model.onnx"
    model = mlflow.pyfunc.load_model(str(folder))
    assert isinstance(model.predict(grey_jpeg()), bytes)
    assert next(iter(code)) in sys.modules
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == set(
        found.digests
    )
    registry.load(found.uri)


@pytest.mark.slow
def test_threads_share_a_loaded_model(registry):
    model = mlflow.pyfunc.load_model(str(folder_of(registry, NAME)))
    photographs = [grey_jpeg(40 + n, 60) for n in range(6)]
    alone = [model.predict(photograph) for photograph in photographs]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(model.predict, photographs * 3)) == alone * 3


@pytest.mark.slow
def test_changed_code_facts_or_onnx_are_refused_by_name(registry):
    run_id = registry.version(NAME, 1).run_id
    assert run_id is not None
    found = register(registry, "qfactory-arcnn-changed", awake("arcnn"), run_id)
    folder = folder_of(registry, found.name)
    for path in [p for p in found.digests if p.startswith(("code/", "onnx/", "data/served"))]:
        before = (folder / path).read_bytes()
        (folder / path).write_bytes(before + b"\n")
        with pytest.raises(RegistryError, match=f"{path} changed since it was registered"):
            registry.load(found.uri)
        (folder / path).write_bytes(before)
    planted = next(p for p in found.digests if p.endswith("/model.py")).replace("model.py", "os.py")
    (folder / planted).write_text("")
    with pytest.raises(RegistryError, match=f"{planted} changed"):
        registry.load(found.uri)


class Unwritable(nn.Module):
    """Exports to pt2, and ONNX has no such operation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 0 * torch.special.i1(x)).clamp(0, 1)


@pytest.mark.slow
def test_a_network_that_onnx_cannot_express_is_registered_without_it(registry):
    run_id = registry.version(NAME, 1).run_id
    assert run_id is not None
    found = register(registry, "qfactory-bessel-qf10", Unwritable(), run_id)
    assert found.tags["onnx"].startswith("not written: ")
    assert not any(path.startswith("onnx/") for path in found.digests)
    model = mlflow.pyfunc.load_model(str(folder_of(registry, found.name)))
    np.testing.assert_array_equal(pixels(model.predict(grey_jpeg())), pixels(grey_jpeg()))


@pytest.mark.slow
def test_the_precision_is_a_parameter_of_mlflows(registry):
    model = mlflow.pyfunc.load_model(str(folder_of(registry, NAME)))
    exact = model.predict(grey_jpeg(), params={"precision": "float32"})
    np.testing.assert_array_equal(pixels(model.predict(grey_jpeg())), pixels(exact))
    with pytest.raises(ValueError, match="precision 'half': choose one of"):
        model.predict(grey_jpeg(), params={"precision": "half"})


def in_a_clean_environment(test: Callable) -> Callable:
    """Mark a test that installs the model's requirements: whole packages, two minutes or more."""
    return pytest.mark.slow(pytest.mark.timeout(1_500)(test))


@pytest.fixture(scope="module")
def consumer(registry, tmp_path_factory) -> Path:
    """The bin folder of a virtual environment with the model's own requirements and no more."""
    folder = tmp_path_factory.mktemp("consumer")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    uv = ["uv", "pip", "install", "--offline", "--python", folder / "env" / "bin" / "python"]
    pip = ["pip", "--python", folder / "env", "--disable-pip-version-check", "install"]
    wanted = ["-q", "-r", folder_of(registry, NAME) / "requirements.txt"]
    if subprocess.run([sys.executable, "-m", *uv, *wanted]).returncode:  # not all in uv's cache
        subprocess.run([sys.executable, "-m", *pip, "--no-compile", *wanted], check=True)
    return folder / "env" / "bin"


def environment_of(consumer: Path, registry: ModelRegistry) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in ("HOME", "LANG", "TMPDIR")}
    return {
        **kept,
        **NO_PICKLE,
        "PATH": f"{consumer}:/usr/bin:/bin",
        "MLFLOW_TRACKING_URI": registry.uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }


CONSUMER = """
import importlib.util, sys
from pathlib import Path
import mlflow, numpy as np, torch
assert not any(importlib.util.find_spec(n) for n in ("pipeline", "models", "storage", "flows"))
name, blind, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
by_table = mlflow.pyfunc.load_model(f"models:/{blind}@champion")
for file in folder.glob("*.jpg"):
    file.with_suffix(".png").write_bytes(model.predict(file.read_bytes()))
    file.with_suffix(".blind.png").write_bytes(by_table.predict(file.read_bytes()))
network = mlflow.pytorch.load_model(f"models:/{name}@champion")
assert sum(p.numel() for p in network.parameters()) > 1000
for file in folder.glob("*.npy"):
    images = np.load(file)
    np.savez(file.with_suffix(""), pyfunc=model.predict(images),
             pytorch=network(torch.from_numpy(images)).numpy() if images.ndim == 4 else images)
"""


@in_a_clean_environment
def test_a_clean_environment_restores_the_very_pixels_also_by_each_jpegs_own_table(
    registry, opened, consumer, tmp_path
):
    photographs = {"grey": grey_jpeg(), "colour": colour_jpeg()}
    for name, photograph in photographs.items():
        (tmp_path / f"{name}.jpg").write_bytes(photograph)
    images = np.random.default_rng(1).random((3, 1, 33, 47), np.float32)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "luma.npy", data.camera())
    subprocess.run(
        [consumer / "python", "-I", "-c", CONSUMER, NAME, BLIND, tmp_path],
        check=True,
        cwd=tmp_path,
        env=environment_of(consumer, registry),
    )
    blind = open_network(BLIND).restorer
    assert blind is not None
    for name, photograph in photographs.items():
        restored = pixels((tmp_path / f"{name}.png").read_bytes())
        np.testing.assert_array_equal(restored, restored_here(opened, photograph))
        restored = pixels((tmp_path / f"{name}.blind.png").read_bytes())
        np.testing.assert_array_equal(restored, restored_here(blind, photograph))
    with torch.no_grad():
        expected = load_network(str(ZOO))[1](torch.from_numpy(images)).clamp(0, 1).numpy()
    with np.load(tmp_path / "images.npz") as restored:
        np.testing.assert_allclose(restored["pyfunc"], expected, atol=1e-6)
        np.testing.assert_allclose(restored["pytorch"], expected, atol=1e-6)
    with np.load(tmp_path / "luma.npz") as restored:
        np.testing.assert_array_equal(restored["pyfunc"], opened(data.camera(), TABLE))


@pytest.fixture(scope="module")
def server(registry, consumer, tmp_path_factory) -> Iterator[str]:
    """`mlflow models serve` in the clean environment, as the README starts it."""
    log, environment = tmp_path_factory.mktemp("serve") / "log", environment_of(consumer, registry)
    with serving(f"models:/{NAME}@champion", log, free_port(), environment) as url:
        yield url


def post(url: str, body: bytes) -> tuple[int, dict]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def asking(photograph: bytes, **more: object) -> bytes:
    """The body of a request for one photograph."""
    return json.dumps({"inputs": [base64.b64encode(photograph).decode()], **more}).encode()


@in_a_clean_environment
def test_a_server_answers_a_jpeg_with_a_png_and_lives_on_after_bad_requests(server, opened):
    photograph = colour_jpeg()
    cut = photograph[: len(photograph) * 2 // 3]
    cmyk = jpeg_of(Image.fromarray(data.astronaut()[:40, :50]).convert("CMYK"))
    png = LIGHTER.predict(grey_jpeg())
    assert isinstance(png, bytes)
    bad = {
        asking(b"hello"): "image 1 of 1: not a JPEG: it does not begin as one",
        asking(cmyk): "image 1 of 1: colour model: CMYK, convert it to RGB or grey",
        asking(png): "image 1 of 1: not a JPEG: it does not begin as one",
        asking(cut): "image 1 of 1: truncated or damaged",
        b'{"inputs": ["' + b"A" * 100_000_000 + b'"]}': "image 1 of 1: a JPEG of 75,000,000 bytes",
        b"garbage": "Invalid input. Ensure that input is a valid JSON formatted string",
        b"{}": "The input must be a JSON dictionary with exactly one of the input fields",
    }
    for body, sentence in bad.items():
        status, answer = post(server, body)
        assert status == 400
        assert answer["message"].startswith(sentence)
        assert len(json.dumps(answer)) < 10_000, "the request is not sent back"
    status, answer = post(server, asking(cut, params={"damaged": "restore"}))
    assert status == 200, answer
    assert pixels(base64.b64decode(answer["predictions"][0])).shape == (570, 191, 3)
    status, answer = post(server, asking(photograph))
    assert status == 200
    restored = base64.b64decode(answer["predictions"][0])
    np.testing.assert_array_equal(pixels(restored), restored_here(opened, photograph))


def curl_line(url: str) -> str:
    """The README's command, with another address."""
    text = (PROJECT / "storage/registry/README.md").read_text()
    return (
        text[
            text.index('(printf \'{"inputs"') : text.index("{ cat answer.json >&2; false; }")
        ].replace("http://127.0.0.1:5001/invocations", url)
        + "{ cat answer.json >&2; false; }"
    )


@in_a_clean_environment
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_curl_line_of_the_readme_works(server, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(grey_jpeg())
    line = ["bash", "-c", curl_line(server)]
    subprocess.run(line, cwd=tmp_path, check=True)
    assert pixels((tmp_path / "photo.png").read_bytes()).shape == pixels(grey_jpeg()).shape
    (tmp_path / "photo.png").unlink()
    (tmp_path / "photo.jpg").write_bytes(b"no photograph")
    failed = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode != 0
    assert "image 1 of 1: not a JPEG" in failed.stderr
    assert not (tmp_path / "photo.png").exists()
