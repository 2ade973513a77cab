"""Sets up what sparkd runs: runtimes and weights. Run by a person, never in a request."""
