"""The whole way: a real server, real ffmpeg, the bundled model, real music."""
