"""The rules that the planner settles, by what they concern. Pure."""
