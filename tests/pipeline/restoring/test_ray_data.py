"""Folders of photographs restored with a real Ray: the manifest, faults, going on after them."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.restoring import ray_data
from pipeline.restoring.batch_file import (
    NetworkSource,
    check_networks,
    failure,
    open_networks,
    rejection,
    restore_file,
)
from pipeline.restoring.batch_plan import Photo, plan
from pipeline.restoring.batch_run import Batch, prepare, report
from pipeline.restoring.one_photograph import restore_jpeg
from pipeline.restoring.ray_data import restore_all
from pipeline.served import precision as served_precision
from pipeline.served.facts import facts_in
from storage import files
from storage.batches import manifest
from storage.batches.batch_settings import UsedNetwork
from storage.batches.manifest import FileResult, append, merge, read_results
from storage.files import StoreError
from tests.support.endpoint import counted, counted_in_time
from tests.support.processes import services_of
from tests.support.project import PROJECT
from tests.support.store_images import texture

WEIGHTS = PROJECT / "models" / "zoo" / "quickres-qf10.safetensors"
SHA256 = files.sha256_of(str(WEIGHTS))
USED = UsedNetwork(name="quickres", uri="quickres-qf10", qfs=(10,), sha256=SHA256, asked=True)
SOURCE = NetworkSource(network=USED, content=WEIGHTS.read_bytes())
RUN = """
import sys
from pipeline import cluster
from pipeline.restoring.ray_data import restore_all
from tests.pipeline.restoring.test_ray_data import batch, slowly
cluster.connect(None, cpus=2)
restore_all(batch(sys.argv[1], sys.argv[2]), opener=slowly)
"""


def batch(inputs, outputs, **settings):
    known = {"networks": (USED,), "fetch": lambda used: SOURCE}
    return Batch(inputs=str(inputs), outputs=str(outputs), **{**known, **settings})


def restore_here(batch, opener=open_networks):
    """Restore a batch as `restore_all` does, in this process and without Ray."""
    prepared = prepare(batch)
    networks = opener(prepared.sources)
    results = [restore_file(photo, prepared.job, networks) for photo in prepared.plan.todo]
    if results:
        append(prepared.job.outputs, results)
    return report(batch, prepared, Counter(result.state for result in results))


def jpeg(seed, size=(48, 64), qf=10):
    """A colour JPEG that no other seed gives."""
    file = io.BytesIO()
    rgb = np.stack([texture(*size, seed=3 * seed + channel) for channel in range(3)], -1)
    Image.fromarray(rgb).save(file, "JPEG", quality=qf)
    return file.getvalue()


def photo_folder(folder, number, size=(48, 64)):
    """Fill a folder, and one in it, with JPEG files."""
    (folder / "below").mkdir(parents=True)
    for seed in range(number):
        name = f"below/{seed:03}.JPG" if seed % 3 == 0 else f"{seed:03}.jpeg"
        (folder / name).write_bytes(jpeg(seed, size))
    return folder


def written(outputs):
    """When each output was last written."""
    found = [path for path in Path(outputs).rglob("*.png") if ".qfactory" not in path.parts]
    return {path.relative_to(outputs).as_posix(): path.stat().st_mtime_ns for path in found}


def result(name="a.jpg", **values):
    known = {
        "bytes": 9, "stamp": "1", "run": 1, "finished": datetime(2026, 1, 1, tzinfo=UTC),
        "seconds": 0.5, "state": "done", "output": "a.png", "output_bytes": 7,
    }  # fmt: skip
    return FileResult(input=name, **{**known, **values})


def rejected(max_pixels):
    return result(state="rejected", output="", max_pixels=max_pixels)


def photo(name="a.jpg", size=9, stamp="1"):
    return Photo(name=name, uri=f"/in/{name}", bytes=size, stamp=stamp)


def test_the_manifest_keeps_the_row_of_the_latest_run(tmp_path):
    later = result(run=2, stamp="2", notes="später", qf=10, exact=True, width=64, height=48)
    append(str(tmp_path), [later])
    append(str(tmp_path), [result(), result("b.jpg", state="failed", reason="damaged")])
    (tmp_path / ".qfactory" / "parts" / ".tmp-1-x.parquet").write_bytes(b"half a part")
    expected = {"a.jpg": later, "b.jpg": result("b.jpg", state="failed", reason="damaged")}
    assert read_results(str(tmp_path)) == expected
    assert merge(str(tmp_path)) == merge(str(tmp_path)) == expected
    assert len(list(tmp_path.glob(".qfactory/parts/0*.parquet"))) == 1
    assert read_results(str(tmp_path)) == expected
    table = pq.read_table(tmp_path / "manifest.parquet")
    assert table.column("input").to_pylist() == ["a.jpg", "b.jpg"]


def test_runs_that_end_at_once_lose_no_result_to_each_other(tmp_path, monkeypatch):
    outputs = str(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        append(outputs, [result(name)])
    really_delete, rivals = files.delete, []

    def delete(uri):
        """Let another run add a result and end just before this one removes its first part."""
        if not rivals:
            rivals.append(uri)
            append(outputs, [result("c.jpg")])
            rivals.append(merge(outputs))
        really_delete(uri)

    monkeypatch.setattr(manifest, "READERS", 1)
    monkeypatch.setattr(files, "delete", delete)
    everything = ["a.jpg", "b.jpg", "c.jpg"]
    assert list(merge(outputs)) == everything
    assert list(rivals[1]) == list(read_results(outputs)) == everything
    assert pq.read_table(tmp_path / "manifest.parquet").column("input").to_pylist() == everything


def test_a_stale_or_missing_manifest_is_only_a_view(tmp_path):
    append(str(tmp_path), [result()])
    merge(str(tmp_path))
    (tmp_path / "manifest.parquet").write_bytes(b"an older one")
    assert list(read_results(str(tmp_path))) == ["a.jpg"]
    merge(str(tmp_path))
    assert pq.read_table(tmp_path / "manifest.parquet").num_rows == 1


def test_a_damaged_manifest_is_not_taken_for_an_empty_one(tmp_path):
    append(str(tmp_path), [result()])
    (part,) = tmp_path.glob(".qfactory/parts/*.parquet")
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(StoreError, match=rf"{part.name}.*damaged"):
        read_results(str(tmp_path))


@pytest.mark.parametrize(
    ("now", "before", "present", "expected"),
    [
        (photo(), None, {}, "todo"),
        (photo(), result(), {"a.png": 7}, "done"),
        (photo(size=8), result(), {"a.png": 7}, "todo"),
        (photo(), result(), {}, "todo"),
        (photo(), result(), {"a.png": 3}, "todo"),
        (photo(stamp="2"), result(), {"a.png": 7}, "touched"),
        (photo(), result(state="failed", output=""), {}, "todo"),
        (photo(), rejected(max_pixels=100), {}, "rejected"),
        (photo(), rejected(max_pixels=101), {}, "rejected"),
        (photo(), rejected(max_pixels=99), {}, "todo"),
        (photo(stamp="2"), rejected(max_pixels=100), {}, "todo"),
    ],
)
def test_only_what_is_new_changed_or_lost_is_to_be_done(now, before, present, expected):
    results = {before.input: before} if before else {}
    planned = plan([now], results, present, max_pixels=100, retry_failed=False)
    found = {
        "todo": planned.todo == (now,) and not planned.touched,
        "touched": planned.todo == (now,) and planned.touched == {now.name: before},
        "done": planned.todo == () and planned.done == 1,
        "rejected": planned.todo == () and planned.rejected == 1,
    }
    assert [name for name, true in found.items() if true] == [expected]
    assert plan([now], results, present, max_pixels=100, retry_failed=True).rejected == 0


def test_only_what_a_photograph_itself_is_to_blame_for_is_rejected(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "large.jpg"):
        (tmp_path / "in" / name).write_bytes(jpeg(0))
    (tmp_path / "in" / "text.jpg").write_bytes(b"no picture")
    (tmp_path / "in" / "gone.jpg").symlink_to(tmp_path / "nothing")
    prepared = prepare(batch(tmp_path / "in", tmp_path / "out"))

    def no_memory(luma, table):
        raise MemoryError

    networks = [replace(n, restorer=no_memory) for n in open_networks([SOURCE])]
    jobs = {"large.jpg": replace(prepared.job, max_pixels=100)}
    made = [restore_file(p, jobs.get(p.name, prepared.job), networks) for p in prepared.photos]
    states = {result.input: (result.state, result.max_pixels) for result in made}
    assert states == {
        "a.jpg": ("failed", None),
        "gone.jpg": ("failed", None),
        "large.jpg": ("rejected", 100),
        "text.jpg": ("rejected", prepared.job.max_pixels),
    }


def test_outputs_on_the_disks_of_other_nodes_are_an_error_not_a_success(tmp_path):
    asked = batch(photo_folder(tmp_path / "in", 3), tmp_path / "out")
    prepared = prepare(asked)
    first, second, _ = prepared.photos
    append(prepared.job.outputs, [failure(first, prepared.job, "no memory")])
    assert report(asked, prepared, {"failed": 1}).failed == 1
    append(prepared.job.outputs, [rejection(second, prepared.job, "no picture")])
    with pytest.raises(StoreError, match=r"1 of 3 photographs are not visible.*s3://.*share"):
        report(asked, prepared, {"done": 1, "failed": 1, "rejected": 1})


@pytest.mark.parametrize(("program", "room"), [(False, 2), (True, 16)])
def test_a_gpu_is_waited_for_only_if_every_network_computes_on_it(monkeypatch, program, room):
    monkeypatch.setattr(ray_data, "cluster_gpus", lambda: 2)
    monkeypatch.setattr(ray_data, "cluster_cpus", lambda: 16)
    other = replace(SOURCE, facts=facts_in({}) if program else None)
    assert ray_data._room([SOURCE, other]) == room


def test_two_photographs_with_one_output_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.jpeg", "b.jpg"):
        (tmp_path / "in" / name).write_bytes(jpeg(0))
    with pytest.raises(ValueError, match=r"a\.jpeg and a\.jpg would both become a\.png"):
        prepare(batch(tmp_path / "in", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("inputs", "outputs"), [("a", "a"), ("a", "a/out"), ("a/in", "a")])
def test_outputs_within_inputs_are_refused(tmp_path, inputs, outputs):
    photo_folder(tmp_path / "a" / "in", 1)
    with pytest.raises(ValueError, match="within the other"):
        prepare(batch(tmp_path / inputs, tmp_path / outputs))


def test_a_neighbour_of_a_similar_name_is_not_within(tmp_path):
    photo_folder(tmp_path / "a", 1)
    assert len(prepare(batch(tmp_path / "a", tmp_path / "a-restored")).plan.todo) == 1


def test_a_folder_without_photographs_is_refused_with_the_suffixes(tmp_path):
    (tmp_path / "notes.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no JPEG files .*\.jpeg"):
        prepare(batch(tmp_path, tmp_path.parent / "nowhere"))


def test_files_that_no_batch_wrote_are_not_overwritten(tmp_path):
    photo_folder(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "001.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"1 files .* such as 001\.png.*another output"):
        prepare(batch(tmp_path / "in", tmp_path / "out"))
    assert (tmp_path / "out" / "001.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "jpeg"}, "format png, not jpeg"),
        (
            {"networks": (replace(USED, name="newer", qfs=(20,)),)},
            "quickres, which is not used now; not newer.*--new-networks",
        ),
        (
            {"networks": (USED, replace(USED, name="newer", qfs=(20,)))},
            "other networks: not newer",
        ),
        ({"inputs": "other"}, "inputs .*in, not .*other"),
    ],
)
def test_outputs_of_other_settings_are_refused(tmp_path, change, told):
    photo_folder(tmp_path / "in", 1)
    photo_folder(tmp_path / "other", 1)
    first = batch(tmp_path / "in", tmp_path / "out")
    prepare(first)
    if "inputs" in change:
        change = {"inputs": str(tmp_path / change["inputs"])}
    with pytest.raises(ValueError, match=told):
        prepare(replace(first, **change))
    prepare(replace(first, max_pixels=9))


def test_new_networks_are_taken_when_asked_and_stay(tmp_path):
    photo_folder(tmp_path / "in", 1)
    first = batch(tmp_path / "in", tmp_path / "out")
    prepare(first)
    newer = replace(first, networks=(replace(USED, name="newer", qfs=(20,)),))
    prepare(replace(newer, new_networks=True))
    prepare(newer)
    with pytest.raises(ValueError, match="other networks: newer"):
        prepare(first)
    with pytest.raises(ValueError, match="format png, not jpeg"):
        prepare(replace(newer, kind="jpeg", new_networks=True))


def test_networks_are_fetched_only_when_there_is_something_to_do(tmp_path):
    photos = photo_folder(tmp_path / "in", 1)
    fetched = []

    def fetch(used):
        fetched.append(used.name)
        return SOURCE

    one = batch(photos, tmp_path / "out", fetch=fetch)
    prepared = prepare(one)
    assert fetched == ["quickres"]
    made = restore_file(prepared.photos[0], prepared.job, open_networks(prepared.sources))
    append(str(tmp_path / "out"), [made])
    assert prepare(one).plan.done == 1
    assert fetched == ["quickres"]


def test_a_network_that_cannot_be_opened_is_told_of_at_once(tmp_path):
    with pytest.raises(ValueError, match="damaged"):
        check_networks([replace(SOURCE, content=SOURCE.content[:-5])])
    none = batch(tmp_path / "in", tmp_path / "out", networks=())
    with pytest.raises(ValueError, match=r"no network.*--model NAME.*qfactory study"):
        prepare(none)
    photo_folder(tmp_path / "in", 1)
    damaged = batch(
        tmp_path / "in", tmp_path / "out", fetch=lambda used: replace(SOURCE, content=b"")
    )
    with pytest.raises(ValueError, match="quickres: its file has just changed"):
        prepare(damaged)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_file_is_what_restore_jpeg_gives_and_the_faulty_ones_are_listed(
    tmp_path, ray_cluster
):
    photos = photo_folder(tmp_path / "in", 12)
    (photos / "garbage.jpg").write_bytes(b"no picture")
    (photos / "gone.jpg").symlink_to(tmp_path / "nothing")
    Image.new("CMYK", (16, 16)).save(photos / "print.jpg")
    (photos / "half.jpg").write_bytes(jpeg(99, (200, 300))[:1500])
    (photos / "notes.txt").write_text("not a photograph")
    (photos / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg(98))
    states = {"done": 13, "failed": 1, "rejected": 3}
    expected = {("qfactory_photographs_total", state): n for state, n in states.items()}
    before, seen = counted(), []
    outputs = batch(photos, tmp_path / "out")
    report = restore_all(outputs, on_progress=lambda *counts: seen.append(counts))
    after = counted_in_time({one: before.get(one, 0) + n for one, n in expected.items()})
    assert {one: after[one] - before.get(one, 0) for one in expected} == expected
    assert (report.restored, report.failed, report.skipped) == (13, 4, 0)
    assert seen[-1] == (13, 4, 17)
    rows = read_results(str(tmp_path / "out"))
    reasons = {name: row.reason for name, row in rows.items() if row.state != "done"}
    assert report.reasons == dict.fromkeys(reasons.values(), 1)
    assert {report.examples[reason]: reason for reason in report.reasons} == reasons
    assert reasons.keys() == {"garbage.jpg", "gone.jpg", "print.jpg", "caf\\xe9.jpg"}
    assert "not a JPEG" in reasons["garbage.jpg"]
    assert "unreadable: No such file" in reasons["gone.jpg"]
    assert "CMYK" in reasons["print.jpg"]
    assert "UTF-8" in reasons["caf\\xe9.jpg"]
    assert "truncated" in rows["half.jpg"].notes
    networks = open_networks([SOURCE])
    for name, row in rows.items():
        if row.state == "done":
            alone = restore_jpeg((photos / name).read_bytes(), networks, kind="png")
            assert (tmp_path / "out" / row.output).read_bytes() == alone.content
            assert (row.qf, row.exact, row.network) == (alone.qf, alone.exact, alone.network)
            assert (row.width, row.height) == (alone.width, alone.height)
            assert row.output == str(Path(name).with_suffix(".png"))
    assert len(written(tmp_path / "out")) == 13


def test_a_later_run_does_only_what_is_new_changed_lost_or_asked_for(tmp_path):
    photos, outputs = photo_folder(tmp_path / "in", 8), tmp_path / "out"
    (photos / "bad.jpg").write_bytes(b"no picture")
    assert restore_here(batch(photos, outputs)).failed == 1
    first = written(outputs)
    (photos / "001.jpeg").write_bytes(jpeg(50))
    os.utime(photos / "002.jpeg", (1, 1))
    (photos / "new.jpg").write_bytes(jpeg(51))
    (outputs / "004.png").unlink()
    report = restore_here(batch(photos, outputs))
    assert (report.skipped, report.rejected_before, report.failed) == (5, 1, 1)
    second = written(outputs)
    assert second.keys() == {*first, "new.png"}
    redone = {name for name in first if second[name] != first[name]}
    assert redone == {"001.png", "004.png"}
    assert restore_here(batch(photos, outputs)).skipped == 9
    (photos / "bad.jpg").write_bytes(jpeg(52)[:-1])
    os.utime(photos / "bad.jpg", (2, 2))
    assert [photo.name for photo in prepare(batch(photos, outputs)).plan.todo] == ["bad.jpg"]


def test_what_was_too_large_is_tried_again_when_asked_or_when_it_may_be_larger(tmp_path):
    photos = photo_folder(tmp_path / "in", 3)
    small = batch(photos, tmp_path / "out", max_pixels=100)
    assert restore_here(small).failed == 3
    again = restore_all(small, actors=1)
    assert (again.restored, again.failed, again.rejected_before) == (0, 3, 3)
    assert len(prepare(replace(small, retry_failed=True)).plan.todo) == 3
    assert restore_here(batch(photos, tmp_path / "out")).failed == 0


class DiesOf:
    """Opens a network that kills its process on photographs of one height, and once of another."""

    def __init__(self, *, once, always, marker):
        self.once, self.always, self.marker = once, always, marker

    def __call__(self, sources):
        (network,) = open_networks(sources)
        return [replace(network, restorer=lambda luma, table: self.restore(network, luma, table))]

    def restore(self, network, luma, table):
        kills_now = len(luma) == self.once and not self.marker.exists()
        if kills_now:
            self.marker.touch()
        if kills_now or len(luma) == self.always:
            os.kill(os.getpid(), signal.SIGKILL)
        return network.restorer(luma, table)


@pytest.mark.slow
def test_a_killed_actor_takes_no_photograph_with_it_but_one_that_kills_each_time(
    tmp_path, ray_cluster
):
    photos = photo_folder(tmp_path / "in", 20)
    (photos / "010.jpeg").write_bytes(jpeg(10, (56, 64)))
    (photos / "017.jpeg").write_bytes(jpeg(17, (72, 64)))
    opener = DiesOf(once=56, always=72, marker=tmp_path / "killed")
    report = restore_all(batch(photos, tmp_path / "out"), actors=1, opener=opener)
    assert (tmp_path / "killed").exists()
    assert report.restored == len(written(tmp_path / "out")) == 19
    assert report.failed == 1
    ((reason, example),) = report.examples.items()
    assert example == "017.jpeg"
    assert "its worker died" in reason
    (again,) = prepare(batch(photos, tmp_path / "out")).plan.todo
    assert again.name == "017.jpeg"


class BreaksTheManifest:
    """Opens networks in an output folder whose parts can no longer be written."""

    def __init__(self, parts):
        self.parts = parts

    def __call__(self, sources):
        shutil.rmtree(self.parts, ignore_errors=True)
        self.parts.write_bytes(b"in the way")
        return open_networks(sources)


@pytest.mark.slow
def test_a_run_that_can_write_nothing_ends_with_the_reason(tmp_path, ray_cluster):
    photos, outputs = photo_folder(tmp_path / "in", 6), tmp_path / "out"
    parts = outputs / ".qfactory" / "parts"
    with pytest.raises(StoreError, match=r"parts.*nothing was published"):
        restore_all(batch(photos, outputs), actors=1, opener=BreaksTheManifest(parts))
    parts.unlink()
    assert len(prepare(batch(photos, outputs)).plan.todo) == 6


class StoppedError(Exception):
    """Raised by a caller that wants no more."""


@pytest.mark.slow
def test_a_run_that_its_caller_stops_goes_on_later(tmp_path, ray_cluster):
    photos, outputs = photo_folder(tmp_path / "in", 30, size=(200, 300)), tmp_path / "out"

    def stop(done, failed, total):
        if done >= 6:
            raise StoppedError

    with pytest.raises(StoppedError):
        restore_all(batch(photos, outputs), actors=1, on_progress=stop)
    finished = read_results(str(outputs))
    before = written(outputs)
    assert 6 <= len(finished) < 30
    assert restore_here(batch(photos, outputs)).failed == 0
    after = written(outputs)
    assert len(after) == 30
    assert all(after[row.output] == before[row.output] for row in finished.values())


def precisions(outputs):
    return {row.precision for row in read_results(str(outputs)).values()}


def test_a_batch_goes_on_in_the_precision_that_it_was_begun_in(tmp_path):
    photos, outputs = photo_folder(tmp_path / "in", 2), tmp_path / "out"

    def source_of(**asked):
        return prepare(batch(photos, outputs, **asked)).sources[0]

    assert (source_of().precision, source_of().begun_in) == ("auto", None)
    append(str(outputs), [result(network="quickres", precision="float32")])
    assert source_of().begun_in == "float32"
    append(str(outputs), [result("b.jpg", network="quickres", precision="bfloat16")])
    assert source_of().begun_in == "bfloat16", "some of its workers lacked it"
    assert source_of(precision="float32").precision == "float32"
    for _ in range(2):
        assert (source_of().precision, source_of().begun_in) == ("auto", "float32")
    assert source_of(precision="bfloat16").precision == "bfloat16"
    assert source_of().begun_in == "bfloat16"


def test_a_batch_begun_before_precisions_were_recorded_goes_on_in_float32(tmp_path):
    photos, outputs = photo_folder(tmp_path / "in", 1), tmp_path / "out"
    prepare(batch(photos, outputs))
    recorded = outputs / ".qfactory" / "settings.json"
    values = json.loads(recorded.read_text())
    del values["precision"]
    recorded.write_text(json.dumps(values))
    (source,) = prepare(batch(photos, outputs)).sources
    (opened,) = open_networks([replace(source, network=replace(USED, bfloat16_loss_db=0.0))])
    assert opened.precision == "float32"


def test_the_manifest_tells_what_each_photograph_was_computed_in(tmp_path, monkeypatch):
    monkeypatch.setattr(served_precision, "bfloat16_units", lambda device: "AMX")
    photos, outputs = photo_folder(tmp_path / "in", 2), tmp_path / "out"
    restore_here(batch(photos, outputs, precision="bfloat16"))
    assert precisions(outputs) == {"bfloat16"}


@pytest.mark.slow
def test_a_precision_that_the_workers_lack_ends_the_run_and_loses_nothing(tmp_path, ray_cluster):
    photos, outputs = photo_folder(tmp_path / "in", 3), tmp_path / "out"
    with pytest.raises(ValueError, match="does not compute in it"):
        restore_all(batch(photos, outputs, precision="bfloat16"), actors=1, opener=without_bfloat16)
    assert restore_here(batch(photos, outputs), opener=without_bfloat16).restored == 3
    assert precisions(outputs) == {"float32"}


def without_bfloat16(sources):
    """Open networks on a processor that does not compute in bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served_precision, "bfloat16_units", lambda device: None)
        return open_networks(sources)


def slowly(sources):
    """Open networks that take longer for a photograph than an actor keeps results to itself."""

    def restore(network, luma, table):
        time.sleep(ray_data.PART_SECONDS + 0.1)
        return network.restorer(luma, table)

    return [replace(n, restorer=partial(restore, n)) for n in open_networks(sources)]


@pytest.mark.slow
def test_a_run_that_is_killed_redoes_at_most_the_photograph_that_each_actor_was_at(
    tmp_path,
):
    photos, outputs = photo_folder(tmp_path / "in", 40), tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(photos), str(outputs)],
        cwd=PROJECT,
        env={**os.environ, "QFACTORY_WORKSPACE": str(tmp_path)},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(written(outputs)) >= 12 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    wait_for(lambda: not services_of(tmp_path))
    finished = read_results(str(outputs))
    before = written(outputs)
    assert 10 <= len(finished) < 40
    report = restore_here(batch(photos, outputs))
    assert (report.skipped, report.restored) == (len(finished), 40 - len(finished))
    after = written(outputs)
    assert len(after) == 40
    redone = [name for name in before if after[name] != before[name]]
    assert len(redone) <= 2, "one an actor"
    assert len(read_results(str(outputs))) == 40
    assert len(files.list_names(str(outputs / ".qfactory" / "parts"))) == 1


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
