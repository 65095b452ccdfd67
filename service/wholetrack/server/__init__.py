"""Extensions of uvicorn: limits for each connection, and draining before the server stops."""
