"""
Batches on the bare ring, against the compiled binding from the package index.
"""
