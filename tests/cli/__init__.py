"""sparkctl as its users meet it: a process with streams, signals and exit codes."""
