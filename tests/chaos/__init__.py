"""Chaos: real worker processes on a real database, killed, stopped and cut off, and audited from outside.

`python -m tests.chaos --seconds 60` runs it; `run.py` says what happens, `audit.py` what must be true afterwards.
"""
