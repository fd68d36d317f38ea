"""Several processes that serve one gateway: each accepts on the same ports, one supervisor keeps them running."""
