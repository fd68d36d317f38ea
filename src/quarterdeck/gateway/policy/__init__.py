"""Who calls (authentication) and what they may do (authorization)."""
