"""From an installation of kagent to Quarterdeck in place: every Agent keeps its name, its spec and its history."""
