"""
Benchmarks of uringio against its rivals; see README.md in this folder.
"""
