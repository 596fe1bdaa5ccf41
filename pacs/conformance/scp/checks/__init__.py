"""The checks, a module for each service; importing this package registers them all."""

from pacs.conformance.scp.checks import custody as custody
from pacs.conformance.scp.checks import find_hierarchy as find_hierarchy
from pacs.conformance.scp.checks import find_matching as find_matching
from pacs.conformance.scp.checks import find_responses as find_responses
from pacs.conformance.scp.checks import negotiation as negotiation
from pacs.conformance.scp.checks import retrieve as retrieve
from pacs.conformance.scp.checks import robustness as robustness
from pacs.conformance.scp.checks import storage as storage
from pacs.conformance.scp.checks import verification as verification
