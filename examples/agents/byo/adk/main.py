"""kagent's own agent on the ADK, as its image starts it: all it needs is in /config/config.json and the environment."""

from kagent.adk.cli import run_cli

if __name__ == "__main__":
    run_cli()
