"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import settings

# Tests run side by side, so the time an example takes says nothing; pytest-timeout ends what hangs.
settings.register_profile("quarterdeck", deadline=None)
settings.load_profile("quarterdeck")
