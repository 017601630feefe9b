"""Sequences of any lengths over one KV cache, on the host and on a device."""
