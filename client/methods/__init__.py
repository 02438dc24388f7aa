"""The client half of each method that has one."""
