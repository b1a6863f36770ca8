"""Room 3: who may touch it now.  State machines without I/O."""
