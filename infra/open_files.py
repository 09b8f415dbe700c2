"""How many files this process may open: many systems allow 1,024 unless asked for more, and a socket is a file.

A process that has opened them all can accept no connection, and open no store either.
"""

import resource


def allow_open_files(wanted: int) -> int:
    """Allow at least `wanted` open files, or as many as the system lets this process allow itself; returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return wanted if soft == resource.RLIM_INFINITY else soft
