"""The control face: what an operator reads and asks for, under `/sparkd/v1` on the unix socket."""
