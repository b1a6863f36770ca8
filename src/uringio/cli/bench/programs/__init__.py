"""
What the suites of questions run in fresh processes; started by path, never imported.
"""
