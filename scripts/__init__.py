"""What developers run; no part of what is installed."""
