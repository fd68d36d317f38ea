"""Listeners of a snapshot, their routes, and plain HTTP services behind them."""
