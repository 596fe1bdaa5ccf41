"""What is decompressed for a Move Destination, against what DCMTK and GDCM make of the same files."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import data_manager
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.dicom.encoding.part10 import file_meta
from pacs.dimse.transcode import transcode

pytest.importorskip("gdcm", reason="the decoders of mini-pacs[codecs]")
pytestmark = pytest.mark.interop

DCMTK = {"50": "dcmdjpeg", "51": "dcmdjpeg", "70": "dcmdjpeg", "80": "dcmdjpls", "81": "dcmdjpls"}
FILES = {
    "JPEG-lossy.dcm": "51",
    "JPGExtended.dcm": "51",
    "JPEGLSNearLossless_08.dcm": "81",
    "JPEGLSNearLossless_16.dcm": "81",
    "MR_small_jpeg_ls_lossless.dcm": "80",
    "SC_rgb_jls_lossy_line.dcm": "81",
    "SC_rgb_jpeg_dcmtk.dcm": "50",
    "SC_rgb_jpeg_gdcm.dcm": "70",
    "SC_rgb_small_odd_jpeg.dcm": "50",
    "examples_ybr_color.dcm": "50",
    "MR_small_RLE.dcm": "rle",
    "SC_rgb_rle_16bit_2frame.dcm": "rle",
    "rtdose_rle.dcm": "rle",
    "J2K_pixelrep_mismatch.dcm": "j2k",
    "693_J2KI.dcm": "j2k",
    "JPEG2000.dcm": "j2k",
    "examples_jpeg2k.dcm": "j2k",
}


def _theirs(path: Path, kind: str, result: Path) -> None:
    tool = "gdcmconv" if kind == "j2k" else DCMTK.get(kind, "dcmdrle")
    program = shutil.which(tool)
    if program is None:
        pytest.skip(f"{tool} is not installed")
    option = "--raw" if kind == "j2k" else "+te"
    subprocess.run([program, option, str(path), str(result)], check=True, capture_output=True)


def _pixels(source: Path | BytesIO) -> tuple[Dataset, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        instance = dcmread(source)
        return instance, instance.pixel_array.tobytes()


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_that_dcmtk_and_gdcm_decode(name: str, tmp_path: Path) -> None:
    path = Path(data_manager.DATA_ROOT) / "test_files" / name
    if not path.exists():
        pytest.skip(f"this pydicom does not ship {name}")
    _theirs(path, FILES[name], tmp_path / "theirs.dcm")

    converted = transcode(BytesIO(path.read_bytes()), ExplicitVRLittleEndian)

    meta = file_meta("1.2", "1.3", ExplicitVRLittleEndian, source_ae="")
    ours, pixels = _pixels(BytesIO(meta + converted))
    theirs, expected = _pixels(tmp_path / "theirs.dcm")
    assert pixels == expected
    assert ours.PhotometricInterpretation == theirs.PhotometricInterpretation
    assert (ours.Rows, ours.Columns) == (theirs.Rows, theirs.Columns)
    # GDCM takes out a Number of Frames of 1.
    assert int(ours.get("NumberOfFrames") or 1) == int(theirs.get("NumberOfFrames") or 1)
