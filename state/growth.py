"""How far arrays grow when they are full."""

#: The least that is added: small arrays would be copied for every few rows.
LEAST = 1024


def grown_size(size: int) -> int:
    """An eighth more: rows that are not used yet cost memory too, and twice as many would be a third of all on average."""
    return size + max(LEAST, size // 8)
