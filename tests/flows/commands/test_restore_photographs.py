"""`qfactory restore` as people type it: what is written, what is skipped and why, exit codes."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from skimage import data

from flows.commands.restore_photographs import _restore_file
from flows.planning.restore_plan import Job
from pipeline.networks.export import export_network
from pipeline.networks.weights import load_network
from pipeline.restoring.one_photograph import Network
from pipeline.served.photographs import MAX_PIXELS
from storage.registry.gate import GateScores
from storage.registry.model_registry import ModelRegistry
from storage.tracking.tracker import Tracker
from tests.pipeline.restoring.test_restore import ZOO, jpeg
from tests.support.commands import several
from tests.support.mlflow_servers import new_database

pytestmark = pytest.mark.slow

CAT = Image.fromarray(data.chelsea()[:120, :150])
FOLDER = {
    "ten.jpg": jpeg(CAT, quality=10),
    "deep/down/Twenty.JPEG": jpeg(CAT, quality=20, subsampling="4:2:0"),
    "deep/grey.jpe": jpeg(CAT.convert("L"), quality=30),
    "good.jpg": jpeg(CAT, quality=97),
    "cut.jpg": jpeg(CAT, quality=10)[:1200],
    "cmyk.jpg": jpeg(CAT.convert("CMYK")),
    "not.jpg": b"nothing of the kind",
    "notes.txt": b"not asked for",
}
LONGEST, TOO_LONG = "l" * 251 + ".jpg", "n" * 255
TURNED = Image.Exif()
TURNED[ExifTags.Base.Orientation] = 6
TURNED[ExifTags.Base.Make] = "A camera"
CONTENT = {f"in/{name}": content for name, content in FOLDER.items()} | {
    "a/one.jpg": FOLDER["ten.jpg"],
    f"long/{LONGEST}": FOLDER["ten.jpg"],
    f"long/{TOO_LONG}": FOLDER["ten.jpg"],
    "turned.jpg": jpeg(CAT, quality=10, exif=TURNED.tobytes()),
    "b/one.jpeg": FOLDER["ten.jpg"],
    "solid": b"a file",
}


def lay_out(folder: Path) -> None:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


RESTORED = [
    ("in", "-o", "out"),
    ("in", "-o", "out", "--json"),
    ("in", "-o", "out", "--force", "--max-pixels", "100"),
    ("in", "-o", "in/restored", "--json"),
    ("in", "-o", "in/restored", "--force", "--json"),
    ("in/ten.jpg", "-o", "new/one.jpg", "--json"),
    ("in/ten.jpg", "-o", "new/one.png"),
    ("in/**/*.[jJ]*", "-o", "globbed", "--format", "jpeg", "--json"),
    ("in/ten.jpg", "in", "in/ten.jpg", "-o", "twice", "--json"),
    ("a", "-o", "named", "--model", "quickres-qf10", "--json"),
    ("a", "-o", "weights", "--model", str(ZOO / "quickres-qf10.safetensors"), "--json"),
    (f"long/{LONGEST}", f"long/{TOO_LONG}", "a/one.jpg", "-o", "short", "--json"),
    ("turned.jpg", "-o", "upright"),
]
REFUSED = [
    (("a", "b", "-o", "clash"), "a/one.jpg and b/one.jpeg would both become clash/one.png"),
    (("nowhere.jpg", "-o", "out"), "nowhere.jpg: there is no such file or folder"),
    (("*.gif", "-o", "out"), "*.gif: no *.jpg"),
    (("s3://bucket/folder", "-o", "out"), "restore-batch"),
    (("a", "-o", "solid"), "solid is a file"),
    (("a", "-o", "solid/below"), "solid/below cannot be written"),
    (("a", "-o", "/proc/new"), "/proc/new cannot be written"),
    (("a", "-o", "one.png"), "one.png names one file"),
    (("a/one.jpg", "-o", "one.webp"), "choose .png or .jpg"),
    (("a/one.jpg", "-o", "one.png", "--format", "jpeg"), "--format says jpeg"),
    (("a/one.jpg", "-o", "a/one.jpg", "--force"), "is itself an input"),
    (("a", "-o", "a", "--format", "jpeg", "--force"), "a/one.jpg is itself an input"),
    (("-o", "out"), "nothing to restore"),
    (("a",), "output"),
    (("a", "-o", "out", "--max-pixels", "0"), "greater than or equal to 1"),
    (("a", "-o", "out", "--format", "gif"), "png"),
    (("a", "-o", "out", "--model", "nix"), "unet-blind"),
    (("a", "-o", "out", "--model", "models:/nix@champion"), "no registry at sqlite"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restore")
    lay_out(folder)
    return folder


@pytest.fixture(scope="module")
def answers(folder):
    """Command -> what it answered, one after the other in one folder, without a registry."""
    commands = [*RESTORED, *(command for command, _ in REFUSED)]
    return dict(zip(commands, several(folder, [("restore", *c) for c in commands]), strict=True))


def files_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def rows(answer):
    return {row["source"]: row for row in json.loads(answer.out)}


def test_a_folder_keeps_its_tree_and_the_summary_names_networks_and_what_was_skipped(
    answers, folder
):
    answer = answers["in", "-o", "out"]
    assert answer.code == 1
    assert files_below(folder / "out") == [
        *("cut.png", "deep/down/Twenty.png", "deep/grey.png", "good.png", "ten.png"),
    ]
    told = " ".join(answer.out.split())
    assert "unet-blind (shipped) 4 10 to 30" in told
    assert "none: left as they are 1 97" in told
    assert "truncated" in told
    assert "in/cmyk.jpg colour model: CMYK" in told
    assert "in/not.jpg not a JPEG" in told
    assert "notes.txt" not in told
    assert "5 of 7 files written" in answer.err


def test_the_new_files_are_whole_and_of_the_photographs_size(answers, folder):
    for name in files_below(folder / "out"):
        with Image.open(folder / "out" / name) as image:
            image.load()
            assert image.size == CAT.size
            assert image.mode == ("L" if "grey" in name else "RGB")
    ten = np.asarray(Image.open(folder / "out/ten.png"))
    before = np.asarray(Image.open(io.BytesIO(FOLDER["ten.jpg"])))
    error = [np.square(np.asarray(CAT).astype(float) - shown).mean() for shown in (before, ten)]
    assert error[1] < 0.95 * error[0]


def test_files_that_exist_are_skipped_without_force(answers):
    found = rows(answers["in", "-o", "out", "--json"])
    assert found["in/ten.jpg"]["skipped"] == "out/ten.png exists: --force replaces it"
    assert "colour model" in found["in/cmyk.jpg"]["skipped"]
    assert answers["in", "-o", "out", "--json"].code == 1


def test_more_pixels_than_the_cap_are_skipped(answers):
    answer = answers["in", "-o", "out", "--force", "--max-pixels", "100"]
    assert answer.code == 1
    assert "150x120 is more than 100 pixels" in " ".join(answer.out.split())
    assert "0 of 7 files written" in answer.err


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_an_output_folder_inside_the_input_is_not_read(answers, force):
    found = rows(answers["in", "-o", "in/restored", *force, "--json"])
    assert len(found) == 7
    assert not any("restored" in source for source in found)


def test_one_file_becomes_what_its_name_says(answers, folder):
    answer = answers["in/ten.jpg", "-o", "new/one.jpg", "--json"]
    assert answer.code == 0
    row = rows(answer)["in/ten.jpg"]
    assert row["network"] == "unet-blind (shipped)"
    assert (row["qf"], row["exact"], row["width"], row["height"]) == (10, True, 150, 120)
    assert Image.open(folder / "new/one.jpg").format == "JPEG"
    assert answers["in/ten.jpg", "-o", "new/one.png"].code == 0
    assert Image.open(folder / "new/one.png").format == "PNG"


def test_a_glob_keeps_the_tree_below_its_fixed_part(answers, folder):
    found = rows(answers["in/**/*.[jJ]*", "-o", "globbed", "--format", "jpeg", "--json"])
    assert found["in/deep/down/Twenty.JPEG"]["target"] == "globbed/deep/down/Twenty.JPEG"
    assert Image.open(folder / "globbed/deep/down/Twenty.JPEG").format == "JPEG"
    assert (folder / "globbed/good.jpg").read_bytes() == FOLDER["good.jpg"]


def test_a_file_that_is_named_several_times_is_restored_once(answers):
    found = json.loads(answers["in/ten.jpg", "in", "in/ten.jpg", "-o", "twice", "--json"].out)
    assert sum(row["source"] == "in/ten.jpg" for row in found) == 1


def test_a_network_can_be_named_by_its_weights_or_as_a_shipped_one(answers):
    named = answers["a", "-o", "named", "--model", "quickres-qf10", "--json"]
    assert rows(named)["a/one.jpg"]["network"] == "quickres-qf10 (shipped)"
    path = str(ZOO / "quickres-qf10.safetensors")
    weights = answers["a", "-o", "weights", "--model", path, "--json"]
    assert rows(weights)["a/one.jpg"]["network"] == path


def test_one_files_error_is_its_own_and_long_names_are_no_error(answers, folder):
    answer = answers[f"long/{LONGEST}", f"long/{TOO_LONG}", "a/one.jpg", "-o", "short", "--json"]
    assert answer.code == 1
    assert "Traceback" not in answer.err
    assert "too long" in rows(answer)[f"long/{TOO_LONG}"]["skipped"]
    assert files_below(folder / "short") == [f"{'l' * 251}.png", "one.png"]


def test_exif_is_kept_and_the_picture_is_upright(answers, folder):
    assert answers["turned.jpg", "-o", "upright"].code == 0
    with Image.open(folder / "upright" / "turned.png") as shown:
        assert shown.size == (CAT.height, CAT.width)
        assert shown.getexif()[ExifTags.Base.Make] == "A camera"
        assert shown.getexif()[ExifTags.Base.Orientation] == 1


@pytest.mark.parametrize(("command", "told"), REFUSED)
def test_a_mistake_is_one_line_before_anything_runs(answers, folder, command, told):
    answer = answers[command]
    assert answer.code == 2
    assert told in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert not (folder / "clash").exists()


def test_nothing_else_was_written_and_no_input_was_changed(answers, folder):
    for name, content in CONTENT.items():
        assert (folder / name).read_bytes() == content
    assert not list(folder.rglob(".tmp-*"))
    assert not (folder / "workspace" / "mlflow.db").exists()
    assert not (folder / "mlruns").exists()


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A workspace with a registry: champions for QF 10, for smaller pictures, and a weak one."""
    folder = tmp_path_factory.mktemp("registered")
    lay_out(folder)
    (folder / "workspace").mkdir()
    uri = new_database(folder / "workspace")
    registry = ModelRegistry(uri)
    export = export_network(load_network(str(ZOO / "quickres-qf10.safetensors"))[1])
    with Tracker(uri, str(folder / "artifacts")) as tracker, tracker.study("study") as study:
        for name, psnr in CHAMPIONS.items():
            qf = int(name[-2:])
            found = registry.register(
                export.module,
                name=name,
                input_example=export.input_example,
                tags={"qfs": str(qf), **export.facts.tags},
                run_id=str(study.run_id),
            )
            scores = GateScores(dataset="live1", qfs=(qf,), psnr=psnr, ssim=0.8, psnr_b=28.4)
            registry.promotions.promote(name, found.version, scores)
    return folder


CHAMPIONS = {
    "qfactory-quickres-qf10": 29.5,
    "qfactory-quickres-rescaled-qf20": 40.0,
    "qfactory-quickres-qf20": 30.5,
}
"""Their PSNR on LIVE1; the shipped unet-blind has 29.46 dB at QF 10 and 31.84 at QF 20."""
BY_REGISTRY = [
    ("in", "-o", "out", "--json"),
    ("a", "-o", "asked", "--model", "qfactory-quickres-qf10@champion", "--json"),
    ("a", "-o", "no", "--model", "qfactory-quickres-qf10@nix"),
    ("a", "-o", "no", "--model", "models:/qfactory-quickres-qf10/7"),
    ("a", "-o", "no", "--model", "models:/nix@champion"),
]


def test_champions_are_used_for_their_quality_factor_and_what_is_missing_is_listed(registered):
    told = several(registered, [("restore", *command) for command in BY_REGISTRY])
    found = rows(told[0])
    champion = "models:/qfactory-quickres-qf10/1 (@champion)"
    assert found["in/ten.jpg"]["network"] == champion
    assert found["in/deep/down/Twenty.JPEG"]["network"] == "unet-blind (shipped)"
    weak = "models:/qfactory-quickres-qf20/1 has 30.50 dB on live1 QF20, the shipped unet-blind"
    assert weak in told[0].err
    assert rows(told[1])["a/one.jpg"]["network"] == champion
    assert told[1].code == 0
    assert "no version has the alias 'nix'" in told[2].err
    assert "models:/qfactory-quickres-qf10/1" in told[2].err
    assert "has no version 7; there are [1]" in told[3].err
    assert f"there are {sorted(CHAMPIONS)}" in told[4].err
    assert [answer.code for answer in told[2:]] == [2, 2, 2]
    assert "Shipped networks: unet-blind, unet-small-blind, unet-tiny-blind" in told[4].err
    assert not (registered / "no").exists()


def test_a_registry_that_does_not_answer_leaves_the_shipped_networks(tmp_path):
    lay_out(tmp_path)
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "mlflow.db").write_bytes(b"no database" * 99)
    answer = several(tmp_path, [("restore", "a", "-o", "out", "--json")])[0]
    assert answer.code == 0
    assert rows(answer)["a/one.jpg"]["network"] == "unet-blind (shipped)"


@pytest.mark.parametrize("error", [KeyError("layer1"), struct.error("no"), TypeError("no")])
def test_whatever_goes_wrong_with_a_file_is_told_as_its_reason(tmp_path, error):
    def fails(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
        raise error

    (tmp_path / "one.jpg").write_bytes(FOLDER["ten.jpg"])
    job = Job(source=tmp_path / "one.jpg", target=tmp_path / "one.png")
    network = Network(name="fails", qfs=(10,), restorer=fails)
    outcome = _restore_file(job, "png", [network], force=False, max_pixels=MAX_PIXELS)
    assert outcome.restored is None
    assert outcome.reason == f"{type(error).__name__}: {error}"


def test_a_registered_network_whose_files_are_gone_is_named_before_any_file(registered):
    gone = registered / "gone"
    (registered / "artifacts").rename(gone)
    try:
        named, chosen = several(
            registered,
            [
                ("restore", "a", "-o", "no", "--model", "qfactory-quickres-qf10"),
                ("restore", "a", "-o", "other", "--json"),
            ],
        )
    finally:
        gone.rename(registered / "artifacts")
    assert named.code == 2
    assert "not downloaded" in named.err
    assert not (registered / "no").exists()
    assert chosen.code == 0
    row = rows(chosen)["a/one.jpg"]
    assert row["network"] == "unet-blind (shipped)"
    assert "models:/qfactory-quickres-qf10/1 (@champion) could not be opened" in row["notes"][0]
