"""The live web page of `edgekit run --sink http://127.0.0.1:8080`: what the model sees, now.

`board.py` is what the pipeline writes to, without waiting for anybody; all else runs in a thread of
its own and reads it. Needs the extra `serve`.
"""
