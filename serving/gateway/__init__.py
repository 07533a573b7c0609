"""The one API in front of every engine. `pipeline.py` is the first file to read: one request, top to bottom."""
