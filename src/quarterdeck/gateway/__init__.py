"""The data plane: every call of an agent or person to a tool, model or other agent passes here."""
