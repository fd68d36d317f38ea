"""What is told of a run while it is made: spans, metrics, tokens and what they cost (:mod:`.run`)."""
