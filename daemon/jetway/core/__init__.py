"""The core decides. Values in, values out: no clock, no randomness, no I/O; standard library and pydantic only."""
