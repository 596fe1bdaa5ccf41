"""The conformance instrument: judges other AEs against the Standard, clause by clause."""
