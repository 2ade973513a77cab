"""sparkd: starts, shares and stops vLLM servers on demand, under systemd."""

__version__ = "0.1.0"
