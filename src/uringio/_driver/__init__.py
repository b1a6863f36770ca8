"""Room 2: the completion contract, the op record, and the drivers that fulfil it."""
