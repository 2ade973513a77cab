"""The one owner of instance state, and the ports through which it touches the machine."""
