"""What `bench/ingest.py` measures besides the worker: one small program a contender.

Each takes `BOOTSTRAP ID FOLDER EVENTS` (ID names its group and topics, FOLDER is for its state), reads `interactions` from its
beginning, says on standard output how far it is (`bench.peers.progress`), and ends cleanly at SIGTERM.
"""
