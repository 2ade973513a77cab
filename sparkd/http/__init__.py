"""What both faces share: the runner, request limits, and how errors look on the wire."""
