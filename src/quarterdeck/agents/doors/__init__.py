"""Other ways to talk to an agent than A2A: OpenAI's chat completions and responses, AG-UI. One task each, as there."""
