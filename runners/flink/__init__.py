"""Flink: its installation, and one job of it inside an allocation of nodes."""
