"""The commands, and the dataflow that they share."""
