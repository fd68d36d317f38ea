"""A2A, the agents' side: version 1.0 inside, 0.3 spoken to those who ask for it (or name no version)."""
