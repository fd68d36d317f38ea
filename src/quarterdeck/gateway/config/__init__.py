"""Snapshots: where they come from, and the last good one on disk."""
