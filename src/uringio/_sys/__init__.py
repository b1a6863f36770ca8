"""Room 0: foreign facts, and `System`, the seam to the kernel.  The only importer of ctypes."""
