"""The whole daemon with real vLLM engines on the CPU. Slow: tests share daemons and warm models."""
