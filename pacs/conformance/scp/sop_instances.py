"""Tiny valid instances of many SOP Classes and transfer syntaxes: what is particular to each kind of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag

_SIDE = 8
_PIXELS = bytes(range(0, 256, 4))
#: The same eight by eight pixels as one baseline JPEG image.
_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6jq62rZ4C8ybqmx5mo"
    "q6T/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABf/EABcQAAMBAAAAAAAAAAAAAAAAAAABA2H/2gAIAQEAAD8ACUMP/9k="
)
#: One RLE segment (PS3.5 Annex G): a header of sixteen numbers, and one literal run of 64 bytes.
_RLE = (
    (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + b"\x3f" + _PIXELS + b"\0"
)
_PDF = (
    b"%PDF-1.1\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)
FRAMES = 3


@dataclass(frozen=True)
class Kind:
    """A sort of instance: its SOP Class, Modality and transfer syntax, and what fills in the rest."""

    name: str
    sop_class_uid: str
    modality: str
    transfer_syntax: str
    fill: Callable[[Dataset], None]


def _image(data_set: Dataset) -> None:
    data_set.SamplesPerPixel = 1
    data_set.PhotometricInterpretation = "MONOCHROME2"
    data_set.Rows = data_set.Columns = _SIDE
    data_set.BitsAllocated = data_set.BitsStored = 8
    data_set.HighBit = 7
    data_set.PixelRepresentation = 0
    data_set.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data_set.FrameOfReferenceUID = data_set.SeriesInstanceUID + ".1"
    _set_pixels(data_set, _PIXELS)


def _set_pixels(data_set: Dataset, value: bytes, *, encapsulated: bool = False) -> None:
    element = DataElement(Tag("PixelData"), "OB", value)
    element.is_undefined_length = encapsulated
    data_set.add(element)


def _multi_frame(data_set: Dataset) -> None:
    _image(data_set)
    data_set.NumberOfFrames = FRAMES
    data_set.FrameTime = "40"
    data_set.FrameIncrementPointer = Tag("FrameTime")
    _set_pixels(data_set, _PIXELS * FRAMES)


def _secondary_capture(data_set: Dataset) -> None:
    _image(data_set)
    data_set.ConversionType = "WSD"


def _jpeg(data_set: Dataset) -> None:
    _secondary_capture(data_set)
    data_set.LossyImageCompression = "01"
    _set_pixels(data_set, encapsulate([_JPEG]), encapsulated=True)


def _rle(data_set: Dataset) -> None:
    _secondary_capture(data_set)
    _set_pixels(data_set, encapsulate([_RLE]), encapsulated=True)


def _enhanced(data_set: Dataset) -> None:
    _image(data_set)
    data_set.NumberOfFrames = FRAMES
    data_set.SharedFunctionalGroupsSequence = [Dataset()]
    data_set.PerFrameFunctionalGroupsSequence = [_frame(number + 1) for number in range(FRAMES)]
    _set_pixels(data_set, _PIXELS * FRAMES)


def _frame(number: int) -> Dataset:
    content, group = Dataset(), Dataset()
    content.InStackPositionNumber = number
    group.FrameContentSequence = [content]
    return group


def _code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _document(data_set: Dataset) -> None:
    data_set.ValueType = "CONTAINER"
    data_set.ConceptNameCodeSequence = [_code("121070", "Findings")]
    data_set.ContinuityOfContent = "SEPARATE"
    data_set.CompletionFlag, data_set.VerificationFlag = "COMPLETE", "UNVERIFIED"
    data_set.ContentDate, data_set.ContentTime = "20240229", "000000"


def _key_objects(data_set: Dataset) -> None:
    _document(data_set)
    data_set.ConceptNameCodeSequence = [_code("113000", "Of Interest")]


def _presentation_state(data_set: Dataset) -> None:
    data_set.ContentLabel = "STATE"
    data_set.ContentDescription = ""
    data_set.ContentCreatorName = ""
    data_set.PresentationCreationDate, data_set.PresentationCreationTime = "20240229", "235959"
    data_set.PresentationLUTShape = "IDENTITY"


def _encapsulated_pdf(data_set: Dataset) -> None:
    data_set.DocumentTitle = "Empty page"
    data_set.MIMETypeOfEncapsulatedDocument = "application/pdf"
    data_set.BurnedInAnnotation = "NO"
    data_set.EncapsulatedDocument = _PDF + b" " * (len(_PDF) % 2)


def _plan(data_set: Dataset) -> None:
    data_set.RTPlanLabel = "PLAN"
    data_set.RTPlanDate, data_set.RTPlanTime = "20240229", "120000"
    data_set.RTPlanGeometry = "TREATMENT_DEVICE"


#: Every kind, by name. The first can be stored wherever anything can.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("CT", uid.CTImageStorage, "CT", uid.ExplicitVRLittleEndian, _image),
        Kind("CT, implicit", uid.CTImageStorage, "CT", uid.ImplicitVRLittleEndian, _image),
        Kind("CT, big endian", uid.CTImageStorage, "CT", uid.ExplicitVRBigEndian, _image),
        Kind("MR", uid.MRImageStorage, "MR", uid.ExplicitVRLittleEndian, _image),
        Kind("MR, implicit", uid.MRImageStorage, "MR", uid.ImplicitVRLittleEndian, _image),
        Kind("MR, deflated", uid.MRImageStorage, "MR", uid.DeflatedExplicitVRLittleEndian, _image),
        Kind("CR", uid.ComputedRadiographyImageStorage, "CR", uid.ExplicitVRLittleEndian, _image),
        Kind(
            "DX",
            uid.DigitalXRayImageStorageForPresentation,
            "DX",
            uid.ExplicitVRLittleEndian,
            _image,
        ),
        Kind(
            "US, multi-frame",
            uid.UltrasoundMultiFrameImageStorage,
            "US",
            uid.ExplicitVRLittleEndian,
            _multi_frame,
        ),
        Kind(
            "SC",
            uid.SecondaryCaptureImageStorage,
            "OT",
            uid.ExplicitVRLittleEndian,
            _secondary_capture,
        ),
        Kind("SC, JPEG", uid.SecondaryCaptureImageStorage, "OT", uid.JPEGBaseline8Bit, _jpeg),
        Kind("SC, RLE", uid.SecondaryCaptureImageStorage, "OT", uid.RLELossless, _rle),
        Kind(
            "enhanced CT", uid.EnhancedCTImageStorage, "CT", uid.ExplicitVRLittleEndian, _enhanced
        ),
        Kind("SR", uid.BasicTextSRStorage, "SR", uid.ExplicitVRLittleEndian, _document),
        Kind(
            "KO",
            uid.KeyObjectSelectionDocumentStorage,
            "KO",
            uid.ImplicitVRLittleEndian,
            _key_objects,
        ),
        Kind(
            "PR",
            uid.GrayscaleSoftcopyPresentationStateStorage,
            "PR",
            uid.ExplicitVRLittleEndian,
            _presentation_state,
        ),
        Kind(
            "PDF", uid.EncapsulatedPDFStorage, "DOC", uid.ExplicitVRLittleEndian, _encapsulated_pdf
        ),
        Kind("RT plan", uid.RTPlanStorage, "RTPLAN", uid.ExplicitVRLittleEndian, _plan),
    )
}
