"""Which of two is faster, with how much certainty: two bundles in turns, or two saved profiles."""
