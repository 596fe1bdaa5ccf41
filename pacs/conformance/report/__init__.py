"""Reports of a run: a terminal table, JSON, JUnit XML and one HTML page."""
