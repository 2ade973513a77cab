"""The data path: from a client's request to one engine's answer, as bytes."""
