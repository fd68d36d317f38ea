"""An MCP server with three tools about the current date and time, over stdio."""

from datetime import UTC, datetime

from fastmcp import FastMCP

mcp = FastMCP("datetime-server")


@mcp.tool
def get_date() -> str:
    """Get the current date (UTC), as YYYY-MM-DD."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


@mcp.tool
def get_time() -> str:
    """Get the current time of day (UTC), as HH:MM:SS."""
    return datetime.now(UTC).strftime("%H:%M:%S")


@mcp.tool
def get_datetime() -> str:
    """Get the current date and time together (UTC), in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    mcp.run(show_banner=False)
