"""A pytest plugin with a real archive and a real destination for tests of other projects' SCUs and SCPs.

The fixtures are in ``pacs.testing.plugin``, which pytest finds by itself where this package is installed.
"""
