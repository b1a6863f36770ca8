"""Room 1: the mechanism of one io_uring.  Files and functions carry liburing's names."""
