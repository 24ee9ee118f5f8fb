"""What an engine needs besides Beam's own options."""
