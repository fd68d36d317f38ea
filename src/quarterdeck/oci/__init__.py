"""OCI images without a daemon: the local store (an OCI image layout) and the builder behind ``qd mcp build``."""
