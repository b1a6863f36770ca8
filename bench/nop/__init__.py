"""
What awaiting costs: NOP requests through the kernel against bare asyncio futures.
"""
