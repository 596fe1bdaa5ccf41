"""What happened on an association or in a retrieve, why, and what to change, in plain words."""
