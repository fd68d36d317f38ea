"""Measurements against the budgets of DESIGN §10: `make bench`, or `python -m bench NAME…`."""
