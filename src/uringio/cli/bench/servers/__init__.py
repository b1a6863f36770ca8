"""
The echo servers that are compared, each a program of its own.

They are started by their paths, never imported: a rival's process holds nothing of uringio.
"""
