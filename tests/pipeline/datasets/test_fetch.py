"""Fetching against a real local HTTP server that can lie, stall and die."""

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.catalogue import DATASETS, Archive
from pipeline.datasets.download import CHUNK_BYTES, download
from pipeline.datasets.fetch import INCOMING, fetch
from pipeline.datasets.references import DatasetError, list_images, pinned_hashes
from pipeline.datasets.verify import verify

BODY = np.random.default_rng(3).bytes(1 << 20)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch):
    monkeypatch.setattr("pipeline.datasets.download.PAUSES_S", (0.01, 0.01))


@dataclass
class Server:
    """What the local server serves, and how it misbehaves."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    """Whether it can continue in the middle."""
    cuts: list[int] = field(default_factory=list)
    """After how many bytes of the body the next connections break."""
    short: int | None = None
    """If set, it serves only so many bytes of a file, as if that were all."""
    starts: list[int] = field(default_factory=list)
    """Where each answered request began in the file."""


class Handler(BaseHTTPRequestHandler):
    """Serves a Server's files."""

    def __init__(self, server_state: Server, *args) -> None:
        self.state = server_state
        super().__init__(*args)

    def do_GET(self):
        body = self.state.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        body = body[: self.state.short]
        start = 0
        asked = self.headers.get("Range")
        if asked and self.state.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.state.starts.append(start)
        cut = self.state.cuts.pop(0) if self.state.cuts else None
        self.wfile.write(body[start:][:cut])

    def log_message(self, format, *args):
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, state)) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def get(server, tmp_path):
    """Download BODY from the server to tmp_path / "file"."""
    server.files["/file"] = BODY
    return partial(
        download,
        f"{server.url}/file",
        tmp_path / "file",
        SHA256,
        incoming=tmp_path / "incoming",
    )


def is_whole(tmp_path: Path) -> bool:
    return (tmp_path / "file").read_bytes() == BODY and not any((tmp_path / "incoming").iterdir())


def test_a_good_file_arrives_whole_with_progress(get, tmp_path):
    seen: list[int] = []
    get(on_bytes=seen.append)
    assert is_whole(tmp_path)
    assert seen == sorted(seen)
    assert seen[-1] == len(BODY)


def test_a_file_with_another_hash_is_refused_and_deleted(get, server, tmp_path):
    server.files["/file"] = BODY[:-1] + b"!"
    with pytest.raises(DatasetError, match=f"not the pinned {SHA256}"):
        get()
    assert not (tmp_path / "file").exists()
    assert not any((tmp_path / "incoming").iterdir())


def test_a_wrong_download_leaves_the_file_that_was_there(get, server, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    server.files["/file"] = b"other"
    with pytest.raises(DatasetError):
        get()
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_body_shorter_than_the_real_file_is_refused(get, server, tmp_path):
    server.short = 1000
    with pytest.raises(DatasetError, match="not the pinned"):
        get()
    assert not (tmp_path / "file").exists()


def test_a_server_that_dies_midway_is_continued_where_it_broke_off(get, server, tmp_path):
    server.cuts = [300_000, 400_000]
    get()
    assert is_whole(tmp_path)
    assert server.starts[0] == 0
    assert 0 <= 300_000 - server.starts[1] < CHUNK_BYTES
    assert 0 <= 700_000 - server.starts[2] < 2 * CHUNK_BYTES


def test_a_server_that_cannot_continue_is_asked_again_from_the_start(get, server, tmp_path):
    server.cuts = [300_000]
    server.ranges = False
    get()
    assert is_whole(tmp_path)
    assert server.starts == [0, 0]


def test_a_server_that_stays_dead_keeps_what_arrived_for_the_next_call(get, server, tmp_path):
    server.cuts = [200_000, 100_000, 50_000]
    with pytest.raises(DatasetError, match="run the same command again"):
        get()
    assert not (tmp_path / "file").exists()
    get()
    assert is_whole(tmp_path)
    assert 0 <= 350_000 - server.starts[-1] < 3 * CHUNK_BYTES


def test_a_server_that_is_gone_is_a_clear_error(get, tmp_path):
    with pytest.raises(DatasetError, match="the connection failed"):
        download(
            "http://127.0.0.1:9/file",
            tmp_path / "file",
            SHA256,
            incoming=tmp_path / "incoming",
        )


def test_a_partial_file_longer_than_the_servers_is_dropped(get, tmp_path):
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / f"{SHA256}.part").write_bytes(BODY + b"more")
    get()
    assert is_whole(tmp_path)


def test_a_missing_file_is_not_asked_for_again(get, server):
    server.files.clear()
    with pytest.raises(DatasetError, match="404"):
        get()


def test_a_dataset_is_fetched_verified_and_not_fetched_twice(server, tmp_path, datasets_root):
    for path in (datasets_root / "Classic5").iterdir():
        server.files[f"/Classic5/{path.name}"] = path.read_bytes()
    seen: list[tuple[int, int, str, int]] = []
    report = fetch("classic5", tmp_path, base_url=server.url, progress=lambda *s: seen.append(s))
    assert (report.downloaded, report.present) == (5, 0)
    assert seen[-1] == (5, 5, "Classic5/5.bmp", 0)
    assert verify("classic5", tmp_path).ok
    assert len(list_images("classic5", root=tmp_path, purpose="evaluate")) == 5
    assert not (tmp_path / INCOMING).exists()

    damaged = tmp_path / "Classic5" / "3.bmp"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = fetch("classic5", tmp_path, base_url=server.url)
    assert (again.downloaded, again.present) == (1, 4)
    assert verify("classic5", tmp_path).good == 5


def test_verify_tells_missing_wrong_and_extra_apart(tmp_path, datasets_root):
    folder = tmp_path / "Classic5"
    folder.mkdir()
    for name in ("1.bmp", "2.bmp", "4.bmp"):
        (folder / name).write_bytes((datasets_root / "Classic5" / name).read_bytes())
    (folder / "4.bmp").write_bytes(b"BM")
    (folder / "own.bmp").write_bytes(b"BM")
    report = verify("classic5", tmp_path)
    assert not report.ok
    assert report.good == 2
    assert report.missing == ("Classic5/3.bmp", "Classic5/5.bmp")
    assert report.wrong == ("Classic5/4.bmp",)
    assert report.extra == ("Classic5/own.bmp",)


def test_a_dataset_that_was_never_fetched_is_all_missing(tmp_path):
    assert len(verify("bsds500:val", tmp_path).missing) == 100
    assert verify("div2k", tmp_path).missing == (
        "DIV2K/train/ (800 of 800)",
        "DIV2K/valid/ (100 of 100)",
    )
    assert not verify("imagenet", tmp_path).ok


def test_the_sample_needs_no_fetching(tmp_path):
    assert fetch("sample", tmp_path).present == 11
    assert verify("sample", tmp_path).ok


def test_what_cannot_be_fetched_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match=r"image-net\.org"):
        fetch("imagenet", tmp_path)
    with pytest.raises(ValueError, match="a folder of your own"):
        fetch("folder:/photos", tmp_path)
    with pytest.raises(ValueError, match="choose sample, bsds500"):
        fetch("flickr", tmp_path)
    with pytest.raises(DatasetError, match="no local folder"):
        fetch("live1", "s3://bucket/data")


@pytest.fixture
def small_div2k(server, tmp_path, monkeypatch):
    """Let DIV2K's validation split be three images, in an archive on the local server."""
    with zipfile.ZipFile(tmp_path / "small.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("other/ignored.txt", "")
        for n in range(3):
            zipped.writestr(f"DIV2K_valid_HR/080{n}.png", bytes([n]) * 1000)
    content = (tmp_path / "small.zip").read_bytes()
    server.files["/DIV2K_valid_HR.zip"] = content
    archive = Archive(
        url="https://example.org/DIV2K_valid_HR.zip",
        sha256=hashlib.sha256(content).hexdigest(),
        split="valid",
        members="DIV2K_valid_HR",
        images=3,
    )
    known = {**DATASETS, "div2k": replace(DATASETS["div2k"], archives=(archive,))}
    monkeypatch.setattr("pipeline.datasets.references.DATASETS", known)


def test_an_archive_is_fetched_unpacked_verified_and_removed(server, tmp_path, small_div2k):
    root = tmp_path / "root"
    server.cuts = [100]
    report = fetch("div2k:valid", root, base_url=server.url)
    assert report.downloaded == 1
    assert [i.name for i in list_images("div2k:valid", root=root, purpose="train")] == [
        "valid/0800.png",
        "valid/0801.png",
        "valid/0802.png",
    ]
    assert not (root / INCOMING).exists()
    assert verify("div2k:valid", root).good == 3
    assert fetch("div2k:valid", root, base_url=server.url).present == 1

    (root / "DIV2K/valid/0801.png").write_bytes(b"damaged")
    assert verify("div2k:valid", root).wrong == ("DIV2K/valid/0801.png",)
    (root / "DIV2K/valid/0802.png").unlink()
    with pytest.raises(DatasetError, match="holds 2 images instead of 3: move it away"):
        fetch("div2k:valid", root, base_url=server.url)


def test_an_archive_with_another_hash_is_never_opened(server, tmp_path, small_div2k):
    server.files["/DIV2K_valid_HR.zip"] = b"PK" + bytes(100)
    with pytest.raises(DatasetError, match="not the pinned"):
        fetch("div2k:valid", tmp_path / "root", base_url=server.url)
    assert not (tmp_path / "root" / "DIV2K").exists()


def test_images_that_the_user_already_has_are_not_fetched(server, tmp_path, small_div2k):
    for n in range(3):
        path = tmp_path / "DIV2K_valid_HR" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"own")
    report = fetch("div2k:valid", tmp_path, base_url=server.url)
    assert report.present == 1
    assert verify("div2k:valid", tmp_path).ok


def test_div2k_is_pinned_by_its_archives():
    assert [len(archive.sha256) for archive in DATASETS["div2k"].archives] == [64, 64]
    assert sum(archive.images for archive in DATASETS["div2k"].archives) == 900
    assert not any(path.startswith("DIV2K") for path in pinned_hashes())


def test_an_unpacking_that_was_interrupted_starts_afresh(server, tmp_path, small_div2k):
    half = tmp_path / INCOMING / "DIV2K_valid_HR.unpacking" / "DIV2K_valid_HR"
    half.mkdir(parents=True)
    (half / "0900.png").write_bytes(b"of another time")
    fetch("div2k:valid", tmp_path, base_url=server.url)
    names = sorted(path.name for path in (tmp_path / "DIV2K/valid").iterdir())
    assert names == ["0800.png", "0801.png", "0802.png"]
    assert not (tmp_path / INCOMING).exists()


def test_a_place_that_cannot_be_unpacked_to_is_told(server, tmp_path, small_div2k):
    (tmp_path / "DIV2K").write_bytes(b"a file where the folder goes")
    with pytest.raises(DatasetError, match="DIV2K/valid: "):
        fetch("div2k:valid", tmp_path, base_url=server.url)
