"""Room 4: the native scheduler.  The only room that calls ``send`` and ``throw``."""
