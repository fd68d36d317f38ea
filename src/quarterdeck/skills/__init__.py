"""Agent Skills: folders with a SKILL.md (https://agentskills.io/specification), for an agent's Pod."""
