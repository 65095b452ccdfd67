"""Sends a WAV file of 16 bits as fast as it plays, as a recorder would, and prints the genre of each window.

Usage: python live.py FILE. Needs the package websockets. WHOLETRACK_URL and WHOLETRACK_KEY as in the other examples.
"""

import json
import os
import sys
import threading
import time
import wave

from websockets.sync.client import connect


def send() -> None:
    """Send a tenth of a second at a time."""
    rate = wav.getframerate()
    start = {"encoding": "int16", "sample_rate_hz": rate, "channels": wav.getnchannels()}
    socket.send(json.dumps(start | {"key": os.environ.get("WHOLETRACK_KEY")}))
    while samples := wav.readframes(rate // 10):
        socket.send(samples)
        time.sleep(0.1)
    socket.send('{"end": true}')


url = os.environ.get("WHOLETRACK_URL", "http://127.0.0.1:8000").replace("http", "ws", 1)
with wave.open(sys.argv[1]) as wav, connect(f"{url}/v1/live", max_size=None) as socket:
    threading.Thread(target=send, daemon=True).start()
    for event in map(json.loads, socket):
        if event["event"] == "windows":
            for start_s, genre in zip(event["data"]["start_s"], event["data"]["genre"], strict=True):
                print(f"{start_s:7.2f} s  {genre or 'silence'}", flush=True)
        elif event["event"] == "error":
            sys.exit(event["data"]["detail"])
        elif event["event"] == "result":
            print("whole recording:", event["data"]["prediction"]["summed_score"]["genre"])
