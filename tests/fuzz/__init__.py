"""Real files with damage done to them on purpose, sent to the real service: nothing may break it."""
