"""Around the audit log: arguments, copies to collectors, checkpoints, access log, spans. ``service`` builds it."""
