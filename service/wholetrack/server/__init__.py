"""What wholetrack adds to uvicorn: connection limits, and draining before it stops."""
