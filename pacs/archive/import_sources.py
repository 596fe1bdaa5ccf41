"""What there is to import under a path: files, folders, zip archives, the files of a DICOMDIR.

Nothing is extracted under a name that a zip chose, and nothing outside is written to. Links to files and folders
are followed; a folder is visited once, so loops end. Memory grows with the number of folders and, while one is
open, with the members of a zip, never with files.

A zip is taken for hostile until read: a member may inflate to a lot only if it is not packed tightly, and all
members together only to a multiple of the zip; see the limits below.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Protocol

from pacs.dicom.encoding.dicomdir import MEDIA_STORAGE_DIRECTORY, referenced_files
from pacs.dicom.encoding.part10 import FileMeta, read_file_meta
from pacs.errors import InvalidInstance, StorageUnavailable

#: Everything that opening and reading a file or a damaged zip member can raise.
SOURCE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

# Deflate packs at most 1032 to 1. An empty image comes close to that, real ones reach 2 to 10, so a large
# member packed beyond 100 to 1 is no image, and neither are members that add up to that.
_FREE_MEMBER_BYTES = 256 * 1024 * 1024
_FREE_ZIP_BYTES = 1024 * 1024 * 1024
_LARGEST_RATIO = 100
_ENCRYPTED = 0x1
# bzip2 and LZMA inflate one read to gigabytes, which Python's reader holds in memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: What a name may end in that its File ID does not have. Digits are none: files are named by UIDs.
_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{0,4}$")
_ZIP_PREFIXES = (b"PK\x03\x04", b"PK\x05\x06")


class Reason(Enum):
    """Why something was not stored, in the words of the summary."""

    NOT_DICOM = "not DICOM"
    DICOMDIR = "DICOMDIR"
    UNREADABLE = "cannot be read"
    MISSING = "named by a DICOMDIR, but missing"
    INVALID = "not a DICOM instance that can be indexed"
    NOT_STORAGE = "not of a storage SOP Class"
    DIFFERENT = "a different instance with this UID is stored"
    ENCRYPTED = "encrypted in a zip"
    NESTED = "a zip within a zip"
    COMPRESSION = "packed in a zip by a method other than deflate"
    BOMB = "inflates to too much"
    OWN_STORAGE = "the storage of this archive"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that is not stored, and why."""

    name: str
    reason: Reason
    detail: str = ""
    #: Nobody expected it to be stored: a text file among the instances of a folder.
    is_harmless: bool = False


class Source(Protocol):
    """Bytes that are read once, from start to end, and closed by whoever opened them."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""
        ...

    def close(self) -> object:
        """Free what reading needed."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file, or member of a zip, that may be an instance."""

    #: Its path; for a member of a zip, that of the zip, ``!`` and the member's name.
    name: str
    #: Opens it; like reading from it, it may raise any of ``SOURCE_ERRORS``.
    open: Callable[[], Source]
    #: Asked for by name, so it is expected to be an instance.
    is_named: bool = False


Found = Candidate | Refusal


def scan(paths: Collection[Path], *, excluded: Collection[Path] = ()) -> Iterator[Found]:
    """Everything under the paths, in no particular order, found while it is asked for.

    Args:
        paths: Files, folders, zip archives, DICOMDIRs.
        excluded: Folders that are left out wherever they turn up.
    """
    folders = _Folders(excluded)
    for path in paths:
        yield from _named(path, folders)


class _Folders:
    """The folders that have been visited, by device and inode: a path may lead to one in many ways."""

    def __init__(self, excluded: Collection[Path]) -> None:
        self._excluded = {key for path in excluded if (key := _identity(path)) is not None}
        self._visited: set[tuple[int, int]] = set()

    def is_excluded(self, path: Path) -> bool:
        """Whether this is an excluded folder or within one."""
        folders = (path, *path.resolve().parents)
        return any(_identity(folder) in self._excluded for folder in folders)

    def visit(self, path: Path) -> bool:
        """Whether this is the first visit; remembers it."""
        key = _identity(path)
        if key is None or key in self._visited or key in self._excluded:
            # One that is gone says so when it is listed.
            return key is None
        self._visited.add(key)
        return True


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _named(path: Path, folders: _Folders) -> Iterator[Found]:
    try:
        mode = path.stat().st_mode
        if S_ISDIR(mode):
            if folders.is_excluded(path):
                detail = "'pacs check' and 'pacs reindex' deal with what is in it"
                yield Refusal(str(path), Reason.OWN_STORAGE, detail)
                return
            yield from _folder(path, folders)
            return
        if not S_ISREG(mode):
            yield Refusal(str(path), Reason.UNREADABLE, "not a regular file")
            return
        is_zip, meta = _sniff(path)
    except OSError as error:
        yield _unreadable(path, error)
        return
    if is_zip:
        yield from _zip(path)
    elif meta is not None and meta.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        yield from _medium(path, meta)
    else:
        yield Candidate(str(path), partial(_open, path), is_named=True)


def _sniff(path: Path) -> tuple[bool, FileMeta | None]:
    with path.open("rb") as stream:
        if stream.read(4) in _ZIP_PREFIXES:
            return True, None
        try:
            return False, read_file_meta(stream)
        except (InvalidInstance, StorageUnavailable):
            # Whoever imports it will say so.
            return False, None


def _folder(path: Path, folders: _Folders) -> Iterator[Found]:
    # A stack in place of recursion: a tree may be deeper than Python's, and one listing is open at a time.
    pending = [path]
    while pending:
        folder = pending.pop()
        if not folders.visit(folder):
            continue
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _leads_to_folder(entry):
                        pending.append(Path(entry.path))
                    else:
                        yield from _file_in_folder(entry)
        except OSError as error:
            yield _unreadable(folder, error)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself, for one.
        return False


def _file_in_folder(entry: os.DirEntry[str]) -> Iterator[Found]:
    path = Path(entry.path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield _unreadable(path, error)
        return
    if not S_ISREG(mode):
        # A pipe or a device: opening one may wait for ever.
        yield Refusal(entry.path, Reason.NOT_DICOM, "not a regular file", is_harmless=True)
    elif path.suffix.lower() == ".zip":
        # By name, because looking into each file costs another round trip on a network file system.
        yield from _zip(path)
    else:
        yield Candidate(entry.path, partial(_open, path))


def _open(path: Path) -> Source:
    return path.open("rb")


def _unreadable(path: Path, error: Exception) -> Refusal:
    reason = error.strerror if isinstance(error, OSError) else None
    return Refusal(str(path), Reason.UNREADABLE, reason or str(error))


def _zip(path: Path) -> Iterator[Found]:
    try:
        archive = zipfile.ZipFile(path)
        allowance = _FREE_ZIP_BYTES + _LARGEST_RATIO * path.stat().st_size
    except SOURCE_ERRORS as error:
        yield _unreadable(path, error)
        return
    # Not closed here: members are opened later and by several threads. Each holds the zip, and the last one to
    # go closes it (ZipFile.__del__).
    turn = threading.Lock()
    for member in archive.infolist():
        # Not is_dir(), which fails on an empty name.
        if member.filename.endswith("/"):
            continue
        name = f"{path}!{member.filename}"
        allowance -= member.file_size
        refusal = _refuse_member(name, member, allowance)
        yield refusal or Candidate(name, partial(_Member, archive, member, turn))


class _Member:
    """An open member of a zip that other threads read other members of.

    Reading from several threads is what ``ZipFile`` allows; but it counts its open members without a lock, and
    closes the zip under the others when it has miscounted.
    """

    def __init__(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, turn: threading.Lock
    ) -> None:
        self._turn = turn
        with turn:
            self._stream = archive.open(member)

    def read(self, size: int, /) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        with self._turn:
            self._stream.close()


def _refuse_member(name: str, member: zipfile.ZipInfo, allowance: int) -> Refusal | None:
    if member.flag_bits & _ENCRYPTED:
        return Refusal(name, Reason.ENCRYPTED)
    if member.compress_type not in _METHODS:
        return Refusal(name, Reason.COMPRESSION, f"method {member.compress_type}")
    if member.filename.lower().endswith(".zip"):
        return Refusal(name, Reason.NESTED)
    is_packed_tightly = member.file_size > _LARGEST_RATIO * member.compress_size
    if allowance < 0 or (member.file_size > _FREE_MEMBER_BYTES and is_packed_tightly):
        detail = f"{member.compress_size} bytes would become {member.file_size}"
        return Refusal(name, Reason.BOMB, detail)
    return None


def _medium(path: Path, meta: FileMeta) -> Iterator[Found]:
    folder = _MediumFolder(path.parent)
    try:
        with path.open("rb") as stream:
            for components in referenced_files(
                stream, meta.transfer_syntax_uid, meta.data_set_offset
            ):
                yield folder.find(components)
    except InvalidInstance as error:
        yield Refusal(str(path), Reason.INVALID, error.message)
    except OSError as error:
        yield _unreadable(path, error)


class _MediumFolder:
    """The folder of a DICOMDIR, in which File IDs are looked up.

    A File ID is in capitals and has no extension (PS3.10 8.2), but a medium may have been copied to lower case, with
    the version numbers of ISO 9660, or with an extension such as ``.dcm``; so what is not found as it stands is looked
    up without regard to them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        # The listing used last: records of one folder follow each other.
        self._listed: Path | None = None
        self._names: dict[str, str] = {}
        #: By the name without its extension.
        self._stems: dict[str, list[str]] = {}

    def find(self, components: tuple[str, ...]) -> Found:
        """The file with this File ID."""
        shown = str(self._root.joinpath(*components)) if components else str(self._root)
        path = self._root
        for number, component in enumerate(components, 1):
            if component in {"", ".", ".."} or "/" in component or "\0" in component:
                return Refusal(repr(shown), Reason.MISSING, "the File ID leaves the medium")
            exact = path / component
            if _exists(exact):
                path = exact
            else:
                is_file = number == len(components)
                path /= self._spelling(path, component, is_file=is_file)
        try:
            if S_ISREG(path.stat().st_mode):
                return Candidate(str(path), partial(_open, path))
        except OSError:
            pass
        return Refusal(shown, Reason.MISSING)

    def _spelling(self, folder: Path, component: str, *, is_file: bool) -> str:
        if folder != self._listed:
            self._list(folder)
        name = self._names.get(_plain(component))
        if name is None and is_file:
            name = _one_of(self._stems.get(_stem(component), []))
        return name or component

    def _list(self, folder: Path) -> None:
        self._listed, self._names, self._stems = folder, {}, {}
        try:
            names = [entry.name for entry in os.scandir(folder)]
        except OSError:
            return
        for name in sorted(names):
            self._names[_plain(name)] = name
            self._stems.setdefault(_stem(name), []).append(name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # A component may be longer than the names of the file system.
        return False


def _plain(name: str) -> str:
    return name.partition(";")[0].rstrip(".").casefold()


def _stem(name: str) -> str:
    return _EXTENSION.sub("", _plain(name))


def _one_of(names: list[str]) -> str | None:
    # The one that is there, or of several the one whose extension says what it is.
    if len(names) != 1:
        names = [name for name in names if _plain(name).endswith(".dcm")]
    return names[0] if len(names) == 1 else None
