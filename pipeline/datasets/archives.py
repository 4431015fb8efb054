"""Unpack a zip file of images that nobody vouches for: no escapes, no bombs, all or nothing."""

import hashlib
import stat
import zipfile
from pathlib import Path, PurePosixPath

CHUNK_BYTES = 1 << 20


class ArchiveError(Exception):
    """An archive is refused; nothing of it was unpacked."""


def unpack(
    archive: Path, folder: Path, *, members: str, max_files: int, max_bytes: int
) -> dict[str, str]:
    """Write the files of the archive's folder `members` into `folder`, which must not exist yet.

    Returns file name -> SHA-256. The whole archive is refused, with ArchiveError, if any member's
    path is absolute or leads outside, or is a link, if it holds more than `max_files` files, or
    more than `max_bytes` when unpacked. `folder` appears when everything is in it.
    """
    unfinished = folder.with_name(f".{folder.name}.unpacking")
    _remove(unfinished)
    try:
        with zipfile.ZipFile(archive) as source:
            infos = [info for info in source.infolist() if not info.is_dir()]
            _check(archive.name, infos, max_files, max_bytes)
            wanted = [info for info in infos if str(_path(info).parent) == members]
            if not wanted:
                raise ArchiveError(f"{archive.name} has no files in {members}/")
            unfinished.mkdir(parents=True)
            hashes = {
                _path(info).name: _write(source, info, unfinished / _path(info).name)
                for info in wanted
            }
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        _remove(unfinished)
        raise ArchiveError(f"{archive.name} is no whole zip file: {error}") from error
    except BaseException:
        _remove(unfinished)
        raise
    unfinished.rename(folder)
    return hashes


def _check(name: str, infos: list[zipfile.ZipInfo], max_files: int, max_bytes: int) -> None:
    if len(infos) > max_files:
        raise ArchiveError(f"{name} holds {len(infos)} files, more than {max_files}")
    if (size := sum(info.file_size for info in infos)) > max_bytes:
        raise ArchiveError(f"{name} unpacks to {size} bytes, more than {max_bytes}")
    for info in infos:
        path = _path(info)
        if path.is_absolute() or ".." in path.parts or ":" in info.filename:
            raise ArchiveError(f"{name}: member {info.filename!r} leads outside its folder")
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise ArchiveError(f"{name}: member {info.filename!r} is a link or a device")
        if info.flag_bits & 1:
            raise ArchiveError(f"{name}: member {info.filename!r} is encrypted")


def _path(info: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(info.filename.replace("\\", "/"))


def _write(source: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> str:
    digest = hashlib.sha256()
    with source.open(info) as member, target.open("xb") as file:  # reads at most info.file_size
        while chunk := member.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _remove(folder: Path) -> None:
    if folder.exists():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
