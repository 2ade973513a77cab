"""The pure core: what is known about instances, and what follows. No clock, no I/O, no asyncio."""
