"""Storing and retrieving over real associations, against the archives people use today.

Every archive is started fresh for every measurement, the archives take turns within each round, and the result
is the ratio of medians: other load on the machine meets all of them. The sender and the Move Destination are
DCMTK's tools.

    python -m benchmarks.wire --rounds 3 --work store-ct --work move-ct
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks.peers import (
    NODELAY,
    Archive,
    Dcmqrscp,
    Orthanc,
    Pacs,
    Running,
    StockQrscp,
    dcmtk,
    destination,
)

CT_COUNT, SMALL_COUNT, MOVE_COUNT = 1000, 2000, 250


@dataclass(frozen=True)
class Data:
    """Folders of instances, one study each."""

    root: Path
    studies: dict[str, str]

    def folder(self, name: str) -> Path:
        """The folder of one set."""
        return self.root / name


def make_data(root: Path) -> Data:
    """Write the synthetic instances: 525 KB CT and 3 KB ones, each set one study."""
    studies = {}
    sets = {"ct": (CT_COUNT, 512), "small": (SMALL_COUNT, 32), "move": (MOVE_COUNT, 512)}
    for name, (count, side) in sets.items():
        studies[name] = generate_uid()
        (root / name).mkdir(parents=True)
        series = generate_uid()
        for number in range(count):
            dataset = _instance(studies[name], series, number, side)
            dataset.save_as(root / name / f"{number:05d}.dcm", enforce_file_format=True)
    return Data(root, studies)


def _instance(study: str, series: str, number: int, side: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyDate, dataset.StudyTime = "20260102", "101500"
    dataset.AccessionNumber, dataset.Modality = "A1", "CT"
    dataset.Manufacturer, dataset.StudyDescription = "Synthetic", "Benchmark"
    dataset.SeriesDescription = "Axial"
    dataset.PatientName, dataset.PatientID = "Bench^Mark", study[-16:]
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, number + 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = side
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = os.urandom(side * side * 2)
    return dataset


def run(*command: str, environment: Mapping[str, str] = NODELAY) -> float:
    """Run a DCMTK tool to its end; seconds."""
    base = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    started = time.perf_counter()
    done = subprocess.run(
        command, env=base | dict(environment), capture_output=True, check=False, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode or "rror" in done.stderr:
        raise WorkFailed(f"{command[0]} failed: {done.stdout[-500:]}{done.stderr[-1500:]}")
    return seconds


def store(
    archive: Running, folder: Path, environment: Mapping[str, str] = NODELAY, associations: int = 1
) -> float:
    """Send a folder over one or several associations at once; seconds."""
    files = sorted(map(str, folder.iterdir()))
    common = [dcmtk("storescu"), "--max-pdu", "131072", "-aec", archive.title, "127.0.0.1"]
    base = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    started = time.perf_counter()
    senders = [
        subprocess.Popen(
            [*common, str(archive.port), *files[first::associations]],
            env=base | dict(environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for first in range(associations)
    ]
    for sender in senders:
        _, errors = sender.communicate()
        if sender.returncode or errors:
            raise WorkFailed(f"storescu failed: {errors.decode()[-800:]}")
    return time.perf_counter() - started


def move(archive: Running, study: str) -> float:
    """C-MOVE one study to DEST; seconds."""
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    address = ["-aec", archive.title, "-aem", "DEST", "127.0.0.1", str(archive.port)]
    return run(dcmtk("movescu"), "-S", *keys, *address)


def get(archive: Running, study: str, directory: Path) -> float:
    """C-GET one study, ignoring what comes; seconds."""
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    address = ["-aec", archive.title, "127.0.0.1", str(archive.port)]
    pdu = ["--max-pdu", "131072"]
    return run(dcmtk("getscu"), "-S", "+B", "-od", str(directory), *pdu, *keys, *address)


def echo(archive: Running) -> float:
    """Fifty associations with one C-ECHO each, one after the other; seconds for one."""
    address = ["-aec", archive.title, "127.0.0.1", str(archive.port)]
    return sum(run(dcmtk("echoscu"), *address) for _ in range(50)) / 50


class WorkFailed(Exception):
    """A peer did not do the work; it has no time."""


Measure = Callable[[Archive, Data, Path], float]


@contextmanager
def _holding(
    archive: Archive, data: Data, directory: Path, environment: Mapping[str, str] = NODELAY
) -> Iterator[Running]:
    """A fresh archive that holds the study to retrieve and knows DEST."""
    with ExitStack() as stack:
        port = stack.enter_context(destination(environment))
        running = stack.enter_context(archive.run(directory, {"DEST": port}, environment))
        store(running, data.folder("move"))
        yield running


def _store_work(name: str, associations: int = 1, sender: Mapping[str, str] = NODELAY) -> Measure:
    def measure(archive: Archive, data: Data, directory: Path) -> float:
        with archive.run(directory, {}) as running:
            return store(running, data.folder(name), sender, associations)

    return measure


def _move_work(environment: Mapping[str, str] = NODELAY) -> Measure:
    def measure(archive: Archive, data: Data, directory: Path) -> float:
        with _holding(archive, data, directory, environment) as running:
            move(running, data.studies["move"])  # warm up: code paths and the page cache
            return statistics.median(move(running, data.studies["move"]) for _ in range(3))

    return measure


def _get_work(archive: Archive, data: Data, directory: Path) -> float:
    with _holding(archive, data, directory) as running, tempfile.TemporaryDirectory() as received:
        get(running, data.studies["move"], Path(received))
        return statistics.median(
            get(running, data.studies["move"], Path(received)) for _ in range(3)
        )


def _echo_work(archive: Archive, _: Data, directory: Path) -> float:
    with archive.run(directory, {}) as running:
        return echo(running)


WORK: dict[str, Measure] = {
    "store-ct": _store_work("ct"),
    "store-small": _store_work("small"),
    "store-ct-4": _store_work("ct", 4),
    "store-small-4": _store_work("small", 4),
    "move-ct": _move_work(),
    "move-ct-nagle": _move_work({}),
    "get-ct": _get_work,
    "store-nagle": _store_work("move", sender={}),
    "echo": _echo_work,
}


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--work", "works", multiple=True, type=click.Choice(list(WORK)))
@click.option("--database-url", help="Measure pacs on this PostgreSQL as well (emptied by you).")
@click.option("--with-qrscp", is_flag=True, help="Also pynetdicom's qrscp (slow).")
@click.option("--only-pacs", is_flag=True, help="No peers: for profiling.")
@click.option("--directory", type=Path, help="Where the archives keep their data.")
def main(
    rounds: int,
    works: tuple[str, ...],
    database_url: str | None,
    with_qrscp: bool,
    only_pacs: bool,
    directory: Path | None,
) -> None:
    """Measure and print medians, spread and ratios."""
    archives: list[Archive] = [Pacs()] if only_pacs else [Pacs(), Orthanc(), Dcmqrscp()]
    if database_url:
        archives.insert(1, Pacs(database_url))
    if with_qrscp:
        archives.append(StockQrscp())
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        data = make_data(Path(scratch) / "instances")
        click.echo("| work | archive | median s | min-max | times pacs |")
        click.echo("| --- | --- | ---: | ---: | ---: |")
        for name in works or WORK:
            seconds: dict[str, list[float]] = {archive.name: [] for archive in archives}
            for number in range(rounds):
                for archive in archives:
                    # A fresh one each time: dcmqrscp's children may still be writing to the last.
                    place = Path(scratch) / f"{name} {number} {archive.name}".replace(" ", "-")
                    try:
                        seconds[archive.name].append(WORK[name](archive, data, place))
                    except WorkFailed as failure:
                        click.echo(f"{name}, {archive.name}: {failure}", err=True)
            ours = statistics.median(seconds[archives[0].name])
            for archive_name, times in seconds.items():
                if not times:
                    click.echo(f"| {name} | {archive_name} | failed | | |")
                    continue
                middle = statistics.median(times)
                spread = f"{min(times):.3f}-{max(times):.3f}"
                click.echo(
                    f"| {name} | {archive_name} | {middle:.3f} | {spread} | {middle / ours:.2f} |"
                )


if __name__ == "__main__":
    main()
