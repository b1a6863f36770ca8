"""
Cross-process echo load: CPU that a server spends per message, throughput and latency.
"""
