"""agentgateway's configuration files of October 2025 (``oct``, v0.10.5) and of today (``now``, 2026)."""
