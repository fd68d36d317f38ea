"""The scripted model server: OpenAI-compatible chat completions planned by rules, needing no key and no network.

:mod:`.plan` decides (pure functions over messages and tool definitions), :mod:`.script` answers from a file where one
is given, :mod:`.completion` speaks the wire format, :mod:`.server` the HTTP. The planner knows English and JSON Schema
and nothing about any particular tool: which one fits follows from the names, descriptions and schemas offered.
"""
