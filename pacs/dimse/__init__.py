"""Layer 4: the DIMSE services, as SCP and SCU, over the associations of ``pacs.wire``."""
