"""One suite for every engine, driven over HTTP by the official client; `conftest.py` says how to point it at one."""
