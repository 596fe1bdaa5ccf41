"""Data Elements taken out of a data set: in pydicom's container, or as VR and value alone."""

from __future__ import annotations

from typing import TypeAlias

from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from typing_extensions import TypeIs

from pacs.dicom.encoding.plain_values import Element

#: VR and value of an element that was little endian; a pydicom element takes ten times as long to make.
PlainElement: TypeAlias = tuple[str, bytes]
#: By tag.
Elements: TypeAlias = dict[int, Element | PlainElement]


def as_element(tag: int, element: Element | PlainElement) -> Element:
    """The element in pydicom's container."""
    if not is_plain(element):
        return element
    vr, value = element
    return RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True)


def is_plain(element: Element | PlainElement) -> TypeIs[PlainElement]:
    """Whether this is VR and value alone; pydicom's raw element is a tuple as well."""
    return type(element) is tuple


def value_of(element: Element | PlainElement) -> object:
    """The value, in bytes unless it is a sequence."""
    return element[1] if is_plain(element) else element.value
