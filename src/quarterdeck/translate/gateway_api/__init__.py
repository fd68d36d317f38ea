"""Gateway API to listeners, routes and status conditions: functions without I/O.

:mod:`.compile` is the way in. Which listeners there are and who may attach: :mod:`.listeners`, :mod:`.attachment`;
what a route does: :mod:`.routes`, :mod:`.filters`, :mod:`.backends`; what applies to it: :mod:`.policies`.
"""
