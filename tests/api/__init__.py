"""The control API on a real unix socket, over a fake supervisor with real fleets."""
