"""Edges to this machine; each satisfies a Protocol declared in `sparkd.supervisor.ports`."""
