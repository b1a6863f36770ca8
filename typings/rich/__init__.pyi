"""What of rich is used, for checkers in environments that lack it; rich itself is typed."""
