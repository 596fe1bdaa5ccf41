"""What names this implementation in associations and in files (PS3.7 D.3.3.2)."""

from __future__ import annotations

from pacs import __version__

#: Derived from a random UUID (PS3.5 B.2).
IMPLEMENTATION_CLASS_UID = "2.25.261081497613310795972766795757511439206"
#: At most 16 characters (PS3.7 D.3.3.2.3).
IMPLEMENTATION_VERSION_NAME = f"PACS_{__version__}"[:16]
