"""`sparkctl`: the operator's command. A client of the control API; the only place that prints."""
