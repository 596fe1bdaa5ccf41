"""pacs: a database-backed DICOM archive."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mini-pacs")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
