"""From PCM to the windows of one track: what the service computes from the output of ffmpeg, stage by stage."""
